"""What can be wrong while somebody is listening: silence, crossed quotes, clocks; and the hours without a row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from collectors.coverage.model import EmptyHour, Interval, Lag, Trouble
from collectors.events import CHANNELS

HOUR = timedelta(hours=1)
USUAL_HOURS = 168
"""A week: what is usual has weekends in it."""
USUAL_ROWS = 60
"""An instrument with fewer rows in its usual hour is quiet by nature: no hour of it can be called silent."""
SILENT_SHARE = 0.05
EARLY_SECONDS = -0.5
"""An event cannot arrive before it happened; clocks kept by NTP agree better than that."""
LATE_SECONDS = 30.0
"""Where even the fastest event of an hour took longer, it is a clock and no network."""


def full_hours(window: Interval) -> list[datetime]:
    """The UTC hours that lie wholly in the window."""
    first = window.start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    first += HOUR if first < window.start else timedelta(0)
    count = max(0, int((window.end - first) / HOUR))
    return [first + n * HOUR for n in range(count)]


def covered_seconds(covered: Iterable[Interval], hour: datetime) -> float:
    """Seconds of the hour that the intervals, which do not overlap, cover."""
    end = hour + HOUR
    return sum(
        (min(each.end, end) - max(each.start, hour)).total_seconds()
        for each in covered
        if each.start < end and each.end > hour
    )


def empty_hours(
    connection: psycopg.Connection[Any], instrument_id: int, channel: str, window: Interval, covered: list[Interval]
) -> list[EmptyHour]:
    """The full hours of the window in which the history has no row."""
    rows = _rows_by_hour(connection, instrument_id, channel, window)
    return [EmptyHour(hour, covered_seconds(covered, hour)) for hour in full_hours(window) if not rows.get(hour)]


def _rows_by_hour(
    connection: psycopg.Connection[Any], instrument_id: int, channel: str, window: Interval
) -> dict[datetime, int]:
    found = connection.execute(
        "SELECT hour, rows FROM digests WHERE instrument_id = %s AND channel = %s AND hour >= %s AND hour < %s",
        [instrument_id, channel, window.start - HOUR, window.end],
    )
    return {row[0].astimezone(UTC): int(row[1]) for row in found}


def silent_hours(
    connection: psycopg.Connection[Any], instrument_id: int, channel: str, window: Interval, covered: list[Interval]
) -> list[Trouble]:
    """Full hours in which somebody was listening throughout, with hardly a row against the week before them."""
    before = Interval(window.start - USUAL_HOURS * HOUR, window.end)
    rows = _rows_by_hour(connection, instrument_id, channel, before)
    whole = [hour for hour in full_hours(window) if covered_seconds(covered, hour) >= HOUR.total_seconds() - 1]
    found = []
    for hour in whole:
        usual = median([n for h, n in rows.items() if n and hour - USUAL_HOURS * HOUR <= h < hour])
        if usual is not None and usual >= USUAL_ROWS and rows.get(hour, 0) < SILENT_SHARE * usual:
            detail = f"{rows.get(hour, 0):,} rows in an hour, where {usual:,.0f} are usual"
            found.append(Trouble("silent", hour, hour + HOUR, detail))
    return found


def median(values: Sequence[int]) -> float | None:
    """None for fewer than a day's worth, of which nothing is usual."""
    if len(values) < 24:
        return None
    ordered = sorted(values)
    middle = len(ordered) // 2
    return float(ordered[middle]) if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


_LAG = """
SELECT
    time_bucket('1 hour', time), ingestor, min(lag), max(lag),
    percentile_cont(ARRAY[0.5, 0.9, 0.99]) WITHIN GROUP (ORDER BY lag)
FROM (
    SELECT time, ingestor, extract(EPOCH FROM received_at - time)::float8 AS lag FROM {channel}
    WHERE instrument_id = %(id)s AND time >= %(start)s AND time < %(end)s AND ingestor = ANY (%(listeners)s)
) AS events
GROUP BY GROUPING SETS ((time_bucket('1 hour', time), ingestor), ())
"""
_LISTENERS = "SELECT DISTINCT ingestor FROM coverage WHERE instrument_id = %s AND channel = %s"


def clocks(
    connection: psycopg.Connection[Any], instrument_id: int, channel: str, window: Interval
) -> tuple[list[Trouble], Lag | None]:
    """Hours in which an ingestor's clock and the exchange's cannot both be right, and the lag of the whole window.

    Rows of whoever never listened (backfill) say nothing about clocks; they count for neither.
    """
    assert channel in CHANNELS
    listeners = {row[0] for row in connection.execute(_LISTENERS, [instrument_id, channel])}
    troubles, lag = [], None
    query = _LAG.replace("{channel}", channel).encode()
    asked = {"id": instrument_id, "start": window.start, "end": window.end, "listeners": sorted(listeners)}
    for row in connection.execute(query, asked).fetchall():
        hour, ingestor, least, most, percentiles = row
        if hour is None:
            lag = None if most is None else Lag(percentiles[0], percentiles[1], percentiles[2], most)
        elif not EARLY_SECONDS <= least <= LATE_SECONDS:
            detail = (
                f"an event reached {ingestor} {-least:.3f} s before the exchange says it happened"
                if least < 0
                else f"no event reached {ingestor} in less than {least:.3f} s"
            )
            hour = hour.astimezone(UTC)
            troubles.append(Trouble("clock_skew", hour, hour + HOUR, detail))
    return sorted(troubles, key=lambda trouble: (trouble.start, trouble.detail)), lag


_CROSSED = """
SELECT
    count(*) FILTER (WHERE bid_price > ask_price), count(*) FILTER (WHERE bid_price = ask_price), min(time), max(time)
FROM quotes
WHERE instrument_id = %s AND time >= %s AND time < %s AND bid_price >= ask_price
GROUP BY time_bucket('1 hour', time) ORDER BY min(time)
"""


def crossed_hours(connection: psycopg.Connection[Any], instrument_id: int, window: Interval) -> list[Trouble]:
    """Hours with quotes whose bid is at or above their ask; each from the first such quote to the last."""
    return [
        Trouble(
            "crossed",
            first.astimezone(UTC),
            last.astimezone(UTC),
            f"{crossed:,} crossed and {locked:,} locked quotes",
        )
        for crossed, locked, first, last in connection.execute(
            _CROSSED, [instrument_id, window.start, window.end]
        ).fetchall()
    ]
