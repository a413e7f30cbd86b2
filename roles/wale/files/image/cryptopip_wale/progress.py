"""How far a long operation is: lines on standard error for whoever waits, at most one a second."""

from __future__ import annotations

import sys
import time

EVERY_S = 1.0
_last = [0.0]


def tell(line: str) -> None:
    """One line with cumulative figures, unless the last one is younger than a second."""
    now = time.monotonic()
    if now - _last[0] >= EVERY_S:
        _last[0] = now
        sys.stderr.write(f"progress: {line}\n")
        sys.stderr.flush()
