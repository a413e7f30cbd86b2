"""The continuity of the datalake: per instrument and channel what was meant, what was covered, and the gaps between."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from msgspec import Struct
from psycopg.types.multirange import Multirange

from collectors.datalake import missing_relations
from collectors.errors import CryptopipError, UsageError
from collectors.events import CHANNELS

NEEDED = ("instruments", "recording", "coverage_intervals", "digests", *CHANNELS)


class Query(Struct, frozen=True):
    """What to look at; times UTC, ``symbol`` with ``*`` and ``?``, durations in seconds.

    Without ``until`` the check reaches to now, but what has not yet had ``settle`` seconds to arrive is no gap.
    """

    since: datetime | None = None
    until: datetime | None = None
    exchange: str | None = None
    symbol: str | None = None
    channel: str | None = None
    min_gap: float = 0.0
    settle: float = 120.0


class Interval(Struct, frozen=True):
    """A stretch of time, UTC."""

    start: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.end - self.start).total_seconds()


class Edge(Struct, frozen=True):
    """Where an ingestor's listening ended before a gap (``ended_by`` None: end not known), or began after it."""

    ingestor: str
    at: datetime
    id: str | None
    ended_by: str | None = None


class Gap(Struct, frozen=True):
    """A stretch in which recording was meant and nobody was listening."""

    start: datetime
    end: datetime
    seconds: float
    last_id_before: str | None
    first_id_after: str | None
    ended_by: dict[str, str | None]
    """Per ingestor why its last listening before the gap ended; None where it is not known to have ended."""

    @property
    def causes(self) -> str:
        """``ended_by`` for a person."""
        causes = ", ".join(f"{ingestor}: {cause or 'not known yet'}" for ingestor, cause in self.ended_by.items())
        return causes or "nobody had listened yet"


class Continuity(Struct, frozen=True):
    """One instrument's channel; ``ratio`` is None where recording was not meant at all."""

    instrument_id: int
    exchange: str
    symbol: str
    channel: str
    until: datetime
    recorded_seconds: float
    covered_seconds: float
    ratio: float | None
    rows: int
    covered: list[Interval]
    gaps: list[Gap]


def check_continuity(connection: psycopg.Connection[Any], query: Query) -> list[Continuity]:
    """What the datalake knows of the instruments and channels asked for, in the order of exchange, symbol, channel.

    Raises UsageError for what cannot be asked, CryptopipError for a database that is no datalake.
    """
    _check_schema(connection)
    now = _now(connection)
    _check_query(connection, query, now)
    answers = []
    for row in connection.execute(_SUBJECTS, _filters(query)).fetchall():
        instrument_id, exchange, symbol, channel, first, last = row
        start = max(filter(None, (query.since, first)), default=now)
        end = _end(query, now, last)
        if start >= end:
            continue
        answers.append(_continuity(connection, query, (instrument_id, exchange, symbol, channel), Interval(start, end)))
    return answers


def _end(query: Query, now: datetime, last: datetime | None) -> datetime:
    """Where the check ends for one channel: ``last`` is up to when it is covered."""
    if query.until is not None:
        return min(query.until, now)
    return last if last is not None and now - last <= timedelta(seconds=query.settle) else now


def annotate(gap: Interval, before: Iterable[Edge], after: Iterable[Edge]) -> Gap:
    """The gap with the causes that opened it and the ids on both sides; of each ingestor the nearest edge is given."""
    befores = list(before)
    last = max(befores, key=lambda edge: edge.at, default=None)
    first = min(after, key=lambda edge: edge.at, default=None)
    return Gap(
        start=gap.start,
        end=gap.end,
        seconds=gap.seconds,
        last_id_before=last.id if last else None,
        first_id_after=first.id if first else None,
        ended_by={edge.ingestor: edge.ended_by for edge in befores},
    )


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
SELECT DISTINCT ON (ingestor) ingestor, upper(interval), last_id, ended_by FROM coverage_intervals
WHERE instrument_id = %(id)s AND channel = %(channel)s AND started_at <= %(at)s AND upper(interval) <= %(at)s
ORDER BY ingestor, upper(interval) DESC
"""
_AFTER = """
SELECT DISTINCT ON (ingestor) ingestor, started_at, first_id FROM coverage_intervals
WHERE instrument_id = %(id)s AND channel = %(channel)s AND started_at >= %(at)s
ORDER BY ingestor, started_at
"""


def _continuity(
    connection: psycopg.Connection[Any], query: Query, subject: tuple[int, str, str, str], window: Interval
) -> Continuity:
    instrument_id, exchange, symbol, channel = subject
    of = {"id": instrument_id, "channel": channel}
    row = connection.execute(_RANGES, of | {"start": window.start, "end": window.end}).fetchone()
    assert row is not None
    recorded, covered, missing = (intervals(each) for each in row)
    gaps = []
    for gap in missing:
        if gap.seconds <= 0 or gap.seconds < query.min_gap:
            continue
        before = [Edge(*edge) for edge in connection.execute(_BEFORE, of | {"at": gap.start})]
        after = [Edge(*edge) for edge in connection.execute(_AFTER, of | {"at": gap.end})]
        gaps.append(annotate(gap, before, after))
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
    )


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
