"""How far a restore or a dump is, as one line in a file of the work path that whoever waits can read."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..postgres import PostgresError
from . import server

try:
    import psycopg

    ERRORS: tuple[type[Exception], ...] = (PostgresError, psycopg.Error, OSError)
except ImportError:  # connect() says so before anything here needs it
    ERRORS = (PostgresError, OSError)

if TYPE_CHECKING:
    from psycopg import Connection

NAME = "progress"
EVERY_S = 2.0

_LOADED = """
SELECT count(*) FROM unnest(%s::text[]) AS wanted (name)
WHERE to_regclass(wanted.name) IS NOT NULL AND pg_relation_size(to_regclass(wanted.name)) > 0
"""


def progress_line(what: str, sizes: tuple[int, int], tables: tuple[int, int], seconds: float) -> str:
    """What one reads of it: bytes so far and expected (an estimate, 0 where nobody knows), tables begun and in all."""
    size, expected = sizes
    line = f"{what}, {size >> 20} MB" + (f" of about {expected >> 20} MB" if expected else "")
    if tables[1]:
        line += f", {tables[0]} of {tables[1]} tables"
    rate = size / seconds if seconds > 0 else 0
    if rate <= 0:
        return line
    line += f", {rate / (1 << 20):.0f} MB/s"
    return f"{line}, about {max(expected - size, 0) / rate:.0f} s left" if expected else line


@contextlib.contextmanager
def telling(folder: Path, line: Callable[[], str]) -> Iterator[None]:
    """Keep the line in the folder up to date while something runs; what keeps it from that only ends the telling."""
    ended = threading.Event()

    def keep() -> None:
        with contextlib.suppress(*ERRORS):
            while True:
                (folder / f"{NAME}.new").write_text(line() + "\n")
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


@contextlib.contextmanager
def shown(
    options: Mapping[str, Any],
    folder: Path,
    database: str,
    phase: str,
    *,
    expected: int,
    tables: Iterable[str],
    begun: float,
) -> Iterator[None]:
    """Tell of a phase of a restore; ``tables``: those that are to have rows; ``begun`` is of the monotonic clock."""
    names = list(tables)
    # A session in the database itself, for only there its tables are seen; it ends before the database is renamed.
    with contextlib.ExitStack() as stack:
        sessions: list[Connection[tuple[Any, ...]]] = []

        def line() -> str:
            if not sessions:
                sessions.append(stack.enter_context(server.open_session(options, database, read_only=True)))
            size = sessions[0].execute("SELECT pg_database_size(current_database())").fetchone()
            loaded = sessions[0].execute(_LOADED, [names]).fetchone()
            assert size is not None
            assert loaded is not None
            sizes, done = (size[0], expected), (loaded[0], len(names))
            return progress_line(f"{database}: {phase}", sizes, done, time.monotonic() - begun)

        with telling(folder, line):
            yield


def remove_progress(folder: Path) -> None:
    """Nothing is under way any more."""
    for name in (NAME, f"{NAME}.new"):
        (folder / name).unlink(missing_ok=True)
