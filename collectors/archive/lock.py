"""One writer of an archive at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from collectors.archive.errors import ArchiveError

LOCK = ".lock"


@contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Hold the archive below ``root``, made where it is not there; raises ArchiveError where another run does.

    The kernel lets go of it with the process, however that ends.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise ArchiveError(
                f"another run writes the archive {root} (process {holder}): wait for it, or end it; it may be ended at"
                " any moment"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
