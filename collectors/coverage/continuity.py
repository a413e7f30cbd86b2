"""The continuity of the datalake: per instrument and channel what was meant, what was covered, and the gaps between."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import structlog
from msgspec.structs import replace
from psycopg.types.multirange import Multirange

from collectors.coverage.checks import clocks, crossed_hours, empty_hours, silent_hours
from collectors.coverage.ids import annotate, between, jumps, missing_trades
from collectors.coverage.model import Continuity, Edge, Gap, Interval, Query
from collectors.datalake import missing_relations
from collectors.errors import CryptopipError, UsageError
from collectors.events import CHANNELS

NEEDED = ("instruments", "recording", "connections", "coverage", "coverage_intervals", "digests", *CHANNELS)


def check_continuity(connection: psycopg.Connection[Any], query: Query) -> list[Continuity]:
    """What the datalake knows of the instruments and channels asked for, in the order of exchange, symbol, channel.

    Raises UsageError for what cannot be asked, CryptopipError for a database that is no datalake.
    """
    _check_schema(connection)
    now = _now(connection)
    _check_query(connection, query, now)
    try:
        return list(_answers(connection, query, now))
    except psycopg.DataError as error:
        raise _impossible(connection, error) from error


def _answers(connection: psycopg.Connection[Any], query: Query, now: datetime) -> Iterator[Continuity]:
    for row in connection.execute(_SUBJECTS, _filters(query)).fetchall():
        instrument_id, exchange, symbol, channel, first, last = row
        start = max(filter(None, (query.since, first)), default=now)
        end = _end(query, now, last)
        if start < end:
            yield _continuity(connection, query, (instrument_id, exchange, symbol, channel), Interval(start, end))


def _end(query: Query, now: datetime, last: datetime | None) -> datetime:
    """Where the check ends for one channel: ``last`` is up to when it is covered."""
    if query.until is not None:
        return min(query.until, now)
    return last if last is not None and now - last <= timedelta(seconds=query.settle) else now


_SUBJECTS = """
SELECT i.id, i.exchange, i.symbol, s.channel, s.first, s.last
FROM instruments AS i
INNER JOIN (
    SELECT instrument_id, channel, min(first) AS first, max(last) AS last
    FROM (
        SELECT instrument_id, channel, lower(during) AS first, NULL::timestamptz AS last FROM recording
        UNION ALL
        SELECT instrument_id, channel, lower(interval), upper(interval) FROM coverage_intervals
    ) AS known
    GROUP BY instrument_id, channel
) AS s ON i.id = s.instrument_id
WHERE (%(exchange)s::text IS NULL OR i.exchange = %(exchange)s)
    AND (%(symbol)s::text IS NULL OR i.symbol LIKE %(symbol)s)
    AND (%(channel)s::text IS NULL OR s.channel = %(channel)s)
ORDER BY i.exchange, i.symbol, i.id, s.channel
"""
_RANGES = """
SELECT recorded(%(id)s, %(channel)s, r), covered(%(id)s, %(channel)s, r), gaps(%(id)s, %(channel)s, r)
FROM (SELECT tstzrange(%(start)s, %(end)s) AS r) AS asked
"""
_BEFORE = """
SELECT DISTINCT ON (ingestor) ingestor, upper(interval), last_id, ended_by, last_time, proof = 'sequence'
FROM coverage_intervals
WHERE instrument_id = %(id)s AND channel = %(channel)s AND started_at <= %(at)s AND upper(interval) <= %(at)s
ORDER BY ingestor, upper(interval) DESC
"""
_AFTER = """
SELECT DISTINCT ON (ingestor) ingestor, started_at, first_id, NULL, first_time, proof = 'sequence'
FROM coverage_intervals
WHERE instrument_id = %(id)s AND channel = %(channel)s AND started_at >= %(at)s
ORDER BY ingestor, started_at
"""


def _continuity(
    connection: psycopg.Connection[Any], query: Query, subject: tuple[int, str, str, str], window: Interval
) -> Continuity:
    instrument_id, exchange, symbol, channel = subject
    of = {"id": instrument_id, "channel": channel}
    asked = of | {"start": window.start, "end": window.end}
    row = connection.execute(_RANGES, asked).fetchone()
    assert row is not None
    _warn_of_edits(connection, f"{exchange} {symbol} {channel}", asked)
    recorded, covered, missing = (intervals(each) for each in row)
    missing = [gap for gap in missing if gap.seconds > 0]
    gaps = []
    for gap in missing:
        if gap.seconds < query.min_gap:
            continue
        before = [Edge(*edge) for edge in connection.execute(_BEFORE, of | {"at": gap.start})]
        after = [Edge(*edge) for edge in connection.execute(_AFTER, of | {"at": gap.end})]
        is_newest = query.until is None and gap.end == window.end
        told = annotate(gap, before, after, channel, is_newest=is_newest)
        gaps.append(_counted(connection, instrument_id, told, before, after) if channel == "trades" else told)
    troubles = jumps(connection, instrument_id, window, gaps) if channel == "trades" else []
    lag = None
    if query.rates:
        troubles += silent_hours(connection, instrument_id, channel, window, covered)
    if query.read_rows:
        skewed, lag = clocks(connection, instrument_id, channel, window)
        troubles += skewed
        if channel == "quotes":
            troubles += crossed_hours(connection, instrument_id, window)
    recorded_seconds = sum(each.seconds for each in recorded)
    missing_seconds = sum(each.seconds for each in missing)
    return Continuity(
        instrument_id=instrument_id,
        exchange=exchange,
        symbol=symbol,
        channel=channel,
        until=window.end,
        recorded_seconds=recorded_seconds,
        covered_seconds=sum(each.seconds for each in covered),
        ratio=1 - missing_seconds / recorded_seconds if recorded_seconds else None,
        rows=_rows(connection, instrument_id, channel, window),
        covered=covered,
        gaps=gaps,
        missing=missing,
        troubles=troubles,
        empty_hours=empty_hours(connection, instrument_id, channel, window, covered) if query.empty_hours else [],
        lag=lag,
    )


def _counted(
    connection: psycopg.Connection[Any], instrument_id: int, gap: Gap, before: list[Edge], after: list[Edge]
) -> Gap:
    """The gap with the number of trades that the exchange numbered in it and that the history does not have."""
    ids = between(before, after)
    if ids is None:
        return gap
    return replace(gap, ids_between=ids.count, missing_ids=missing_trades(connection, instrument_id, ids))


def intervals(ranges: Multirange[datetime]) -> list[Interval]:
    """The bounded ranges of a multirange, UTC, in order."""
    return [Interval(r.lower.astimezone(UTC), r.upper.astimezone(UTC)) for r in ranges if r.lower and r.upper]


def _rows(connection: psycopg.Connection[Any], instrument_id: int, channel: str, window: Interval) -> int:
    """Rows whose time is in the window: whole hours from the digests, so a year costs no more than the two edges."""
    assert channel in CHANNELS
    hour = timedelta(hours=1)
    first = _floor_hour(window.start)
    whole = Interval(first if first == window.start else first + hour, _floor_hour(window.end))
    edges = [Interval(window.start, min(whole.start, window.end)), Interval(max(whole.end, window.start), window.end)]
    if whole.start >= whole.end:
        edges, whole = [window], Interval(window.start, window.start)
    row = connection.execute(
        "SELECT coalesce(sum(rows), 0)::bigint FROM digests"
        " WHERE instrument_id = %s AND channel = %s AND hour >= %s AND hour < %s",
        [instrument_id, channel, whole.start, whole.end],
    ).fetchone()
    total = int(row[0]) if row else 0
    for edge in edges:
        if edge.seconds > 0:
            row = connection.execute(
                f"SELECT count(*) FROM {channel} WHERE instrument_id = %s AND time >= %s AND time < %s",  # noqa: S608
                [instrument_id, edge.start, edge.end],
            ).fetchone()
            total += int(row[0]) if row else 0
    return total


def _floor_hour(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _filters(query: Query) -> dict[str, str | None]:
    return {
        "exchange": query.exchange,
        "symbol": like(query.symbol) if query.symbol else None,
        "channel": query.channel,
    }


def like(pattern: str) -> str:
    """A pattern with ``*`` and ``?`` as SQL's LIKE has it."""
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_")


def _now(connection: psycopg.Connection[Any]) -> datetime:
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    now: datetime = row[0]
    return now.astimezone(UTC)


def _check_schema(connection: psycopg.Connection[Any]) -> None:
    if lacking := missing_relations(connection, NEEDED):
        raise CryptopipError(
            f"this database has no {', '.join(lacking)}: it is no datalake, or not migrated; name another or migrate it"
        )


def _check_query(connection: psycopg.Connection[Any], query: Query, now: datetime) -> None:
    until = min(query.until or now, now)
    if query.since is not None and query.since >= until:
        raise UsageError(
            f"since ({query.since.isoformat()}) is not before until ({until.isoformat()}): swap or widen them"
        )
    if query.channel is not None and query.channel not in CHANNELS:
        raise UsageError(f"unknown channel {query.channel!r}: expected one of {', '.join(CHANNELS)}")
    found = {r[0] for r in connection.execute("SELECT DISTINCT exchange FROM instruments")}
    if query.exchange is not None and query.exchange not in found:
        known = ", ".join(sorted(found)) or "none"
        raise UsageError(f"unknown exchange {query.exchange!r}: the datalake has instruments of {known}")
    if query.symbol is not None:
        row = connection.execute(
            "SELECT count(*) FROM instruments WHERE symbol LIKE %s", [like(query.symbol)]
        ).fetchone()
        if row is None or row[0] == 0:
            raise UsageError(
                f"no instrument's symbol is like {query.symbol!r}: write it as BTC/USDT, or */USDT for several"
            )


_IMPOSSIBLE = (
    "SELECT incarnation, id, instrument_id, channel, started_at, ended_at FROM coverage WHERE ended_at < started_at"
)
_DOUBTFUL = """
SELECT count(*) FILTER (WHERE started_at < before), count(*) FILTER (WHERE started_at > %(now)s OR ended_at > %(now)s)
FROM (
    SELECT started_at, ended_at, max(coalesce(ended_at, started_at)) OVER (
        PARTITION BY incarnation, stream, epoch
        ORDER BY started_at, id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS before
    FROM coverage
    WHERE instrument_id = %(id)s AND channel = %(channel)s AND started_at BETWEEN %(start)s AND %(end)s
) AS known
"""
"""Within an epoch intervals follow each other; overlaps change no union, and time to come is cut off."""


def _impossible(connection: psycopg.Connection[Any], error: psycopg.Error) -> CryptopipError:
    """The rows of coverage that no range can be made of, by name."""
    connection.rollback()
    rows = connection.execute(_IMPOSSIBLE).fetchall()
    if not rows:
        return CryptopipError(f"the coverage cannot be read: {str(error).strip()}")
    incarnation, number, instrument, channel, started, ended = rows[0]
    return CryptopipError(
        f"{len(rows)} rows of table coverage end before they start, the first ({channel} of instrument {instrument},"
        f" incarnation {incarnation}, id {number}) from {started.isoformat()} to {ended.isoformat()}: the table was"
        " edited by hand; correct or delete these rows: their time then counts as not listened to"
    )


def _warn_of_edits(connection: psycopg.Connection[Any], name: str, asked: dict[str, Any]) -> None:
    """Say what somebody must have edited in the coverage of a channel and what still has one meaning."""
    row = connection.execute(_DOUBTFUL, asked | {"now": _now(connection) + timedelta(minutes=1)}).fetchone()
    overlapping, future = row or (0, 0)
    warn = structlog.get_logger().warning
    if overlapping:
        warn(
            "rows of table coverage overlap others of their own connection, which no loader writes: taken together",
            of=name,
            rows=overlapping,
        )
    if future:
        warn("rows of table coverage reach into the future: cut off at the present", of=name, rows=future)
