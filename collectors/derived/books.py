"""Books at full hours (``book_snapshots``), so that any moment's book is at most an hour of updates away, and the best
bid and ask of exchanges that send none (``quotes``, marked as derived).

The contract: after a run with nothing refused or left, and nothing new merged meanwhile, there is a snapshot at the end
of every hour that had updates and whose book is known there, and each is what the functions of migration 0023 compute
from the rows alone, whatever the order in which those came. Before, too, no answer is wrong: a snapshot that rests on
an hour which has changed since is not used.

How: triggers note each hour whose book events, or the coverage by which they are read, change (``book_hours``). An hour
is made once it has been over for ten minutes, in a transaction of its own, earlier hours of a day first, since a book
rests on the one before; quotes are made with it. Where what it leaves to the next hour has changed, that one is noted
too, and so on until nothing changes. An hour with another number of book events than its digest says is refused, and
stays as it was, as does one that retention has dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import psycopg
from msgspec import Struct

from collectors.datalake import missing_relations
from collectors.derived import book_statements as statements
from collectors.derived.book_quotes import make_quotes
from collectors.errors import CryptopipError

LOCK = int.from_bytes(b"cpipbook")
_TABLES = ("digests", "book_events", "quotes", "identities", "dropped_chunks", "book_hours", "book_snapshots")
_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)


class BooksRunningError(CryptopipError):
    """Another run makes the books of this datalake."""

    exit_code = 0


class BooksReport(Struct):
    """What a run did: hours of instruments that were made, snapshots and quotes written."""

    hours: int = 0
    snapshots: int = 0
    quotes: int = 0
    left: int = 0
    """Hours that are over and yet to be made: they were noted meanwhile, are held by sync, or time was up."""
    refused: int = 0
    """Hours that stay as they were since their rows are not as many as their digest says; also of runs before."""


def derive_books(
    connection: psycopg.Connection[Any],
    *,
    retry: bool = False,
    seconds: float | None = None,
    on_progress: Callable[[BooksReport], None] = lambda _: None,
) -> BooksReport:
    """Make the books of every hour that is over and has changed, the newest day first; ``retry``: of refused ones too.

    ``seconds``: begin no hour later than that. The connection is in autocommit mode. Raises BooksRunningError where
    another run is at work, CryptopipError for a database without the tables.
    """
    if lacking := missing_relations(connection, _TABLES):
        raise CryptopipError(
            f"the database {connection.info.dbname} has no {', '.join(lacking)}:"
            " name a datalake, or run playbooks/migrate.yml"
        )
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone()
    if row is None or not row[0]:
        raise BooksRunningError("another run makes the books of this datalake: nothing to do here")
    try:
        if retry:
            connection.execute("UPDATE book_hours SET state = 'stale' WHERE state = 'refused'")
        report = BooksReport()
        until = None if seconds is None else time.monotonic() + seconds
        _make_all(connection, report, until, on_progress)
        report.left, report.refused = connection.execute(statements.LEFT).fetchone() or (0, 0)
        return report
    finally:
        if not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(%s)", [LOCK])


def _make_all(
    connection: psycopg.Connection[Any],
    report: BooksReport,
    until: float | None,
    on_progress: Callable[[BooksReport], None],
) -> None:
    before: datetime | None = None
    while (day := _newest_day(connection, before)) is not None:
        is_any_made = False
        for instrument, hour in connection.execute(statements.OF_DAY, [day, day + _DAY]).fetchall():
            if until is not None and time.monotonic() >= until:
                return
            try:
                with connection.transaction():
                    is_made = _make(connection, instrument, hour, report)
            except psycopg.errors.LockNotAvailable:
                is_made = False  # sync is at work on the hour behind it; both are left to the next run
            is_any_made |= is_made
            on_progress(report)
        if not is_any_made:
            before = day


def _newest_day(connection: psycopg.Connection[Any], before: datetime | None) -> datetime | None:
    """The newest UTC day with an hour to be made, older than the day ``before``."""
    row = connection.execute(statements.NEWEST_DAY, [before]).fetchone()
    return row[0] if row else None


def _make(connection: psycopg.Connection[Any], instrument: int, hour: datetime, report: BooksReport) -> bool:
    """Make one hour and settle it; False where sync holds it at the moment, or it is settled already."""
    connection.execute("SET LOCAL work_mem = '96MB'; SET LOCAL random_page_cost = 1.1; SET LOCAL jit = off")
    connection.execute("SET LOCAL lock_timeout = '500ms'")  # shorter than deadlock_timeout, so that sync never loses
    key: dict[str, Any] = {"instrument": instrument, "hour": hour, "end": hour + _HOUR}
    if not connection.execute(statements.TAKE, key).rowcount:
        return False
    # Statements of their own, so that they see what was committed before the lock was had.
    if connection.execute(statements.IS_DROPPED, key).rowcount or connection.execute(statements.REFUSE, key).rowcount:
        return True
    left_before = connection.execute(statements.LEFT_TO_THE_NEXT, key).fetchone()
    connection.execute(statements.DROP, key)
    is_of_connection, is_without_quotes = connection.execute(statements.READ_HOW, key).fetchone() or (False, False)
    made = connection.execute(statements.MAKE_OF_CONNECTION if is_of_connection else statements.MAKE, key).rowcount
    report.snapshots += made
    if is_without_quotes:
        connection.execute(statements.DROP_QUOTES, key)
        report.quotes += make_quotes(connection, instrument, hour, key["end"], is_of_connection=is_of_connection)
    is_open = not made and not is_of_connection  # a hole in ids may be filled by an event that ends in the next hour
    left = connection.execute(statements.LEFT_TO_THE_NEXT, key).fetchone()
    if left != left_before or is_open or connection.execute(statements.IS_RESTED_ON, key).rowcount:
        connection.execute(statements.NOTE_THE_NEXT, key)
    report.hours += 1
    return True
