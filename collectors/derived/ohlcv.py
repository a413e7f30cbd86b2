"""Bars (OHLCV) of 1 s, 1 min, 1 h and 1 d from merged trades, kept equal to them at the cost of what is new.

The contract: after a run with nothing refused and nothing new merged meanwhile, every bar is what one GROUP BY over
all trades would give, whatever the order in which the trades came; late, backfilled and removed ones included. A kill
at any point leaves the bars of each hour as they were before or after.

How: a trigger on ``digests`` notes each hour whose trades change, in the transaction that changes them (migration
0015). An hour whose bars were made keeps count and hash of its trades up to its last bar. While those and the trades
since then add up to the hour's digest, the trades before are the same, and only the bars since then are made; else all
of the hour are. Trades that do not add up to their digest even so (removed by hand, or by retention) are no base for
bars: their hour is refused and its bars stay.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import psycopg
from msgspec import Struct
from psycopg import sql

from collectors.datalake import missing_relations
from collectors.derived import statements
from collectors.errors import CryptopipError
from collectors.sync.channels import TRADES

LOCK = int.from_bytes(b"cpipderi")
HOURS_AT_ONCE = 500
"""Hours of instruments in one transaction: sync waits for it where it has more trades for one of them."""
RESOLUTIONS = ("1s", "1m", "1h", "1d")
_TABLES = ("digests", "trades", "ohlcv_hours", *(f"ohlcv_{resolution}" for resolution in RESOLUTIONS))
_DAY = timedelta(days=1)


class DeriveRunningError(CryptopipError):
    """Another run makes the bars of this datalake."""

    exit_code = 0


class DeriveReport(Struct):
    """What a run did: hours of instruments whose bars were made, those made from their first trade on, bars written."""

    hours: int = 0
    whole_hours: int = 0
    bars: int = 0
    refused: int = 0
    """Hours whose bars stay as they were since their trades are not those of their digest; also of runs before."""


def derive(
    connection: psycopg.Connection[Any],
    *,
    retry: bool = False,
    hours_at_once: int = HOURS_AT_ONCE,
    on_progress: Callable[[DeriveReport], None] = lambda _: None,
) -> DeriveReport:
    """Make the bars of every hour whose trades have changed, the newest day first; ``retry``: of refused ones too.

    The connection is in autocommit mode. Raises DeriveRunningError where another run is at work, CryptopipError for a
    database without the tables.
    """
    if lacking := missing_relations(connection, _TABLES):
        raise CryptopipError(
            f"the database {connection.info.dbname} has no {', '.join(lacking)}:"
            " name a datalake, or run playbooks/migrate.yml"
        )
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone()
    if row is None or not row[0]:
        raise DeriveRunningError("another run makes the bars of this datalake: nothing to do here")
    try:
        if retry:
            connection.execute("UPDATE ohlcv_hours SET state = 'stale' WHERE state = 'refused'")
        report = DeriveReport()
        before: datetime | None = None
        while (day := _newest_day(connection, before)) is not None:
            with connection.transaction():
                taken = _make(connection, day, hours_at_once, report)
            on_progress(report)
            if taken < hours_at_once:
                before = day
        _forget_settled(connection)
        row = connection.execute("SELECT count(*) FROM ohlcv_hours WHERE state = 'refused'").fetchone()
        report.refused = int(row[0]) if row else 0
        return report
    finally:
        if not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(%s)", [LOCK])


def _newest_day(connection: psycopg.Connection[Any], before: datetime | None) -> datetime | None:
    """The newest UTC day with a stale hour, older than the day ``before``."""
    row = connection.execute(
        "SELECT time_bucket('1 day', max(hour)) FROM ohlcv_hours"
        " WHERE state = 'stale' AND hour < coalesce(%s::timestamptz, 'infinity')",
        [before],
    ).fetchone()
    return row[0] if row else None


def _make(connection: psycopg.Connection[Any], day: datetime, limit: int, report: DeriveReport) -> int:
    """Take up to ``limit`` stale hours of the day, make their bars and settle them; returns how many were taken."""
    connection.execute("SET LOCAL work_mem = '96MB'; SET LOCAL random_page_cost = 1.1; SET LOCAL jit = off")
    connection.execute(statements.STAGES)
    within = {"day": sql.Literal(day), "end": sql.Literal(day + _DAY)}
    taken = connection.execute(statements.TAKE.format(**within, limit=sql.Literal(limit))).rowcount
    if not taken:
        return 0
    # A statement of its own, so that it sees what was committed before the locks were had.
    connection.execute(statements.DIGESTS)
    connection.execute(statements.SECONDS.format(**within, text=sql.SQL(TRADES.text)))
    if again := connection.execute(statements.START_AGAIN).rowcount:
        connection.execute(statements.DROP_SECONDS)
        connection.execute(statements.SECONDS.format(**within, text=sql.SQL(TRADES.text)))
        report.whole_hours += again
    refused = connection.execute(statements.REFUSE).rowcount
    connection.execute("ANALYZE derive_seconds")
    report.bars += connection.execute(statements.BARS_OF_SECONDS).rowcount
    report.bars += connection.execute(statements.DROP_BARS_OF_SECONDS.format(**within)).rowcount
    for source, target, width, first, last in statements.ROLL_UPS:
        names = {
            "source": sql.Identifier(f"ohlcv_{source}"),
            "target": sql.Identifier(f"ohlcv_{target}"),
            "width": sql.Literal(width),
            "values": statements.VALUES,
            "upsert": statements.UPSERT,
            "ranges": statements.RANGES.format(first=sql.SQL(first), last=sql.SQL(last)),
        }
        report.bars += connection.execute(statements.ROLL_UP.format(**within, **names)).rowcount
        report.bars += connection.execute(statements.DROP_ROLLED_UP.format(**within, **names)).rowcount
    connection.execute(statements.SETTLE)
    report.hours += taken - refused
    return taken


def _forget_settled(connection: psycopg.Connection[Any]) -> None:
    """Hours without a row are made from their first trade on when they change: right for those that seldom do."""
    connection.execute("DELETE FROM ohlcv_hours WHERE state = 'settled' AND hour < now() - INTERVAL '1 day'")
