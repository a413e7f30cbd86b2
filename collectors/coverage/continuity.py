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
from collectors.coverage.rows import count_rows
from collectors.datalake import missing_relations
from collectors.errors import CryptopipError, UsageError
from collectors.events import CHANNELS

NEEDED = (
    "instruments",
    "recording",
    "connections",
    "coverage",
    "coverage_intervals",
    "digests",
    "backfills",
    "dropped_chunks",
    *CHANNELS,
)


def check_continuity(connection: psycopg.Connection[Any], query: Query) -> list[Continuity]:
    """What the datalake knows of the instruments and channels asked for, in the order of exchange, symbol, channel.

    Raises UsageError for what cannot be asked, CryptopipError for a database that is no datalake.
    """
    _check_schema(connection)
    now = _now(connection)
    _check_query(connection, query, now)
    return list(_answers(connection, query, now))


def _answers(connection: psycopg.Connection[Any], query: Query, now: datetime) -> Iterator[Continuity]:
    asked = []
    for instrument_id, exchange, symbol, channel, first, last in connection.execute(
        _SUBJECTS, _filters(query, now)
    ).fetchall():
        start = max(filter(None, (query.since, first)), default=now)
        end = _end(query, now, last)
        if start < end:
            window = Interval(start.astimezone(UTC), end.astimezone(UTC))
            asked.append(((instrument_id, exchange, symbol, channel), window))
    rows = count_rows(connection, {(subject[0], subject[3]): window for subject, window in asked})
    for subject, window in asked:
        yield _continuity(connection, query, subject, window, rows[subject[0], subject[3]])


def _end(query: Query, now: datetime, last: datetime | None) -> datetime:
    """Where the check ends for one channel: ``last`` is up to when it is covered, None where that is not fresh."""
    if query.until is not None:
        return min(query.until, now)
    return now if last is None else last


# Each channel by itself, by index: the whole of coverage is never read. ``last`` matters only where it is newer than
# what may still be on its way.
_SUBJECTS = """
SELECT
    i.id, i.exchange, i.symbol, c.channel, least(meant.first, covered.first),
    CASE WHEN %(is_open)s THEN upper(covered(i.id, c.channel, tstzrange(%(fresh)s, %(now)s, '[]'))) END
FROM instruments AS i
CROSS JOIN unnest(%(channels)s::text[]) AS c (channel)
CROSS JOIN LATERAL (
    SELECT min(lower(during)) AS first FROM recording WHERE instrument_id = i.id AND channel = c.channel
) AS meant
CROSS JOIN LATERAL (
    SELECT min(started_at) AS first FROM coverage WHERE instrument_id = i.id AND channel = c.channel
) AS covered
WHERE (%(exchange)s::text IS NULL OR i.exchange = %(exchange)s)
    AND (%(symbol)s::text IS NULL OR i.symbol LIKE %(symbol)s)
    AND least(meant.first, covered.first) IS NOT NULL
ORDER BY i.exchange, i.symbol, i.id, c.channel
"""
_RANGES = """
SELECT recorded, covered, recorded - covered
FROM (
    SELECT recorded(%(id)s, %(channel)s, r) AS recorded, covered(%(id)s, %(channel)s, r) AS covered
    FROM (SELECT tstzrange(%(start)s, %(end)s) AS r) AS asked
    OFFSET 0
) AS ranges
"""
_BEFORE = """
SELECT DISTINCT ON (ingestor) ingestor, upper(interval), last_id, ended_by, last_time, proof = 'sequence'
FROM coverage_intervals
WHERE
    instrument_id = %(id)s AND channel = %(channel)s AND started_at <= %(at)s AND started_at >= %(back)s
    AND upper(interval) <= %(at)s
ORDER BY ingestor, upper(interval) DESC
"""
_AFTER = """
SELECT DISTINCT ON (ingestor) ingestor, started_at, first_id, NULL, first_time, proof = 'sequence'
FROM coverage_intervals
WHERE
    instrument_id = %(id)s AND channel = %(channel)s AND started_at >= %(at)s
    AND started_at <= %(at)s::timestamptz + INTERVAL '2 days'
ORDER BY ingestor, started_at
"""
_BACK = (timedelta(days=2), timedelta(days=60), timedelta(days=36_500))
"""How far back a connection may have begun that ended before a gap: the nearest is looked for first."""


def _before(connection: psycopg.Connection[Any], of: dict[str, Any], at: datetime) -> list[Edge]:
    """Where each ingestor's listening ended before ``at``; those that had ended long before the others are left out."""
    edges: list[Edge] = []
    for back in _BACK:
        edges = [Edge(*row) for row in connection.execute(_BEFORE, of | {"at": at, "back": at - back})]
        if edges:
            break
    return edges


def _continuity(
    connection: psycopg.Connection[Any], query: Query, subject: tuple[int, str, str, str], window: Interval, rows: int
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
        before = _before(connection, of, gap.start)
        after = [Edge(*edge) for edge in connection.execute(_AFTER, of | {"at": gap.end})]
        is_newest = query.until is None and gap.end == window.end
        told = annotate(gap, before, after, channel, is_newest=is_newest)
        gaps.append(_counted(connection, instrument_id, told, before, after) if channel == "trades" else told)
    if channel == "trades" and gaps:
        gaps = _looked_into(connection, instrument_id, gaps)
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
        rows=rows,
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


_BACKFILLS = """
SELECT lower(gap), upper(gap), state, detail FROM backfills
WHERE instrument_id = %s AND gap && tstzrange(%s, %s, '[]') ORDER BY changed_at DESC
"""


def _looked_into(connection: psycopg.Connection[Any], instrument_id: int, gaps: list[Gap]) -> list[Gap]:
    """The gaps with what ``cryptopip backfill`` made of each, or of a longer one that it is what is left of."""
    rows = connection.execute(_BACKFILLS, [instrument_id, gaps[0].start, gaps[-1].end]).fetchall()

    def told(gap: Gap) -> Gap:
        found = next((row for row in rows if row[0] <= gap.start and gap.end <= row[1]), None)
        return gap if found is None else replace(gap, backfill=found[2], backfill_detail=found[3])

    return [told(gap) for gap in gaps]


def intervals(ranges: Multirange[datetime]) -> list[Interval]:
    """The bounded ranges of a multirange, UTC, in order."""
    return [Interval(r.lower.astimezone(UTC), r.upper.astimezone(UTC)) for r in ranges if r.lower and r.upper]


def _filters(query: Query, now: datetime) -> dict[str, Any]:
    return {
        "exchange": query.exchange,
        "symbol": like(query.symbol) if query.symbol else None,
        "channels": sorted(CHANNELS) if query.channel is None else [query.channel],
        "is_open": query.until is None,
        "now": now,
        "fresh": now - timedelta(seconds=query.settle),
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


_DOUBTFUL = """
SELECT
    count(*) FILTER (WHERE started_at < before),
    count(*) FILTER (WHERE greatest(started_at, ended_at) > clock_timestamp() + INTERVAL '1 minute')
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


def _warn_of_edits(connection: psycopg.Connection[Any], name: str, asked: dict[str, Any]) -> None:
    """Say what somebody must have edited in the coverage of a channel and what still has one meaning."""
    row = connection.execute(_DOUBTFUL, asked).fetchone()
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
