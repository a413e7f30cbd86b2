"""How far a restore is, as one line in a file of the work path that whoever waits can read."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..postgres import PostgresError
from . import server

try:
    import psycopg

    ERRORS: tuple[type[Exception], ...] = (PostgresError, psycopg.Error, OSError)
except ImportError:  # connect() says so before anything here needs it
    ERRORS = (PostgresError, OSError)

NAME = "progress"
EVERY_S = 2.0


def progress_line(database: str, phase: str, size: int, expected: int, seconds: float) -> str:
    """What one reads of it: sizes in bytes on disk, of which the expected is an estimate."""
    line = f"{database}: {phase}, {size >> 20} MB on disk of about {expected >> 20} MB"
    rate = size / seconds if seconds > 0 else 0
    if rate <= 0:
        return line
    left = max(expected - size, 0) / rate
    return f"{line}, {rate / (1 << 20):.0f} MB/s, about {left:.0f} s left"


@contextlib.contextmanager
def shown(
    options: Mapping[str, Any], folder: Path, database: str, phase: str, *, expected: int, begun: float
) -> Iterator[None]:
    """Keep the line up to date while a phase runs; ``begun`` is of the monotonic clock."""
    ended = threading.Event()

    def keep() -> None:
        # A server that is gone ends the restore with a reason of its own; here it only ends the telling.
        with contextlib.suppress(*ERRORS), server.open_session(options, "postgres", read_only=True) as connection:
            while True:
                row = connection.execute("SELECT pg_database_size(%s)", [database]).fetchone()
                assert row is not None
                line = progress_line(database, phase, row[0], expected, time.monotonic() - begun)
                (folder / f"{NAME}.new").write_text(line + "\n")
                (folder / f"{NAME}.new").rename(folder / NAME)
                if ended.wait(EVERY_S):
                    return

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def remove_progress(folder: Path) -> None:
    """Nothing is under way any more."""
    for name in (NAME, f"{NAME}.new"):
        (folder / name).unlink(missing_ok=True)
