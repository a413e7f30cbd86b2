"""An end for every operation: WAL-E hangs on a truncated part, and waits for ever on a store that does not answer."""

from __future__ import annotations

import _thread
import os
import time

EXIT_CODE = 124  # that of timeout(1)


def start_deadline(seconds: int, what: str) -> None:
    """End this process after so many seconds; called before gevent replaces threads and sleep."""
    sleep = time.sleep

    def watch() -> None:
        sleep(seconds)
        os.write(2, f"{what}: not done after {seconds} s (CRYPTOPIP_WALE_DEADLINE_S), given up\n".encode())
        os._exit(EXIT_CODE)

    _thread.start_new_thread(watch, ())
