"""How many rows the history has in a stretch of time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from collectors.coverage.model import Interval

Subject = tuple[int, str]
"""Instrument and channel."""
_HOUR = timedelta(hours=1)


def count_rows(connection: psycopg.Connection[Any], windows: Mapping[Subject, Interval]) -> dict[Subject, int]:
    """Rows whose time is in each window: whole hours from the digests, of all channels together, and the edges counted.

    Together, for an instrument's digests of a year lie scattered over as many pages as it has hours.
    """
    parts = {subject: split(window) for subject, window in windows.items()}
    totals = dict.fromkeys(windows, 0) | _digested(
        connection, {key: whole for key, (whole, _) in parts.items() if whole}
    )
    for (instrument_id, channel), (_, edges) in parts.items():
        for edge in edges:
            row = connection.execute(
                sql.SQL("SELECT count(*) FROM {} WHERE instrument_id = %s AND time >= %s AND time < %s").format(
                    sql.Identifier(channel)
                ),
                [instrument_id, edge.start, edge.end],
            ).fetchone()
            totals[instrument_id, channel] += int(row[0]) if row else 0
    return totals


def split(window: Interval) -> tuple[Interval | None, list[Interval]]:
    """The full hours of a window (None where it has none), and what is left of it on both sides."""
    first, last = _floor_hour(window.start), _floor_hour(window.end)
    first += _HOUR if first < window.start else timedelta(0)
    if first >= last:
        return None, [window] if window.seconds > 0 else []
    edges = [Interval(window.start, first), Interval(last, window.end)]
    return Interval(first, last), [edge for edge in edges if edge.seconds > 0]


def _digested(connection: psycopg.Connection[Any], whole: Mapping[Subject, Interval]) -> dict[Subject, int]:
    """By window, since most channels have the one that was asked for: a join on windows would seek each by itself."""
    by_window: defaultdict[Interval, set[Subject]] = defaultdict(set)
    for subject, window in whole.items():
        by_window[window].add(subject)
    totals: dict[Subject, int] = {}
    for window, subjects in by_window.items():
        found = connection.execute(
            "SELECT instrument_id, channel, sum(rows)::bigint FROM digests"
            " WHERE instrument_id = ANY (%s) AND hour >= %s AND hour < %s GROUP BY instrument_id, channel",
            [sorted({instrument_id for instrument_id, _ in subjects}), window.start, window.end],
        )
        totals |= {(row[0], row[1]): int(row[2]) for row in found if (row[0], row[1]) in subjects}
    return totals


def _floor_hour(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
