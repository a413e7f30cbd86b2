"""Trade-id arithmetic: what a stretch without proof of listening really left out."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import psycopg
from msgspec import Struct

from collectors.coverage.model import Edge, Gap, Interval, Kind, Trouble
from collectors.datalake import is_dropped


class IdRange(Struct, frozen=True):
    """Ids ``first`` to ``last``, both included, that lie between two events at these times of the exchange."""

    first: int
    last: int
    since: datetime
    until: datetime

    @property
    def count(self) -> int:
        """How many they are."""
        return max(0, self.last - self.first + 1)


def kind_of(before: Iterable[Edge], channel: str, *, is_newest: bool) -> Kind:
    """What opened a gap: the cause of whoever had listened last; ``is_newest``: it reaches to where the check ends."""
    last = max(before, key=lambda edge: edge.at, default=None)
    if last is not None and last.ended_by is None and is_newest:
        return "stale"
    if last is not None and last.ended_by == "sequence":
        return "sequence_broken" if channel == "book_events" else "ids_missing"
    return "not_listening"


def annotate(
    gap: Interval, before: Iterable[Edge], after: Iterable[Edge], channel: str = "trades", *, is_newest: bool = False
) -> Gap:
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
        kind=kind_of(befores, channel, is_newest=is_newest),
    )


def between(before: Iterable[Edge], after: Iterable[Edge]) -> IdRange | None:
    """The ids that lie between the events on both sides; None where ids do not rise by one or are not known."""
    last = max(before, key=lambda edge: edge.at, default=None)
    first = min(after, key=lambda edge: edge.at, default=None)
    if last is None or first is None or not (last.is_sequence and first.is_sequence):
        return None
    return id_range(last.id, first.id, last.time or last.at, first.time or first.at)


def id_range(before: str | None, after: str | None, since: datetime, until: datetime) -> IdRange | None:
    """The ids between two; None where one is no number, or where they fall (the exchange has started anew)."""
    if before is None or after is None or not (before.isdecimal() and after.isdecimal()):
        return None
    first, last = int(before) + 1, int(after) - 1
    return IdRange(first, last, since, until) if last >= first - 1 else None


def missing_trades(connection: psycopg.Connection[Any], instrument_id: int, ids: IdRange) -> int | None:
    """How many of these trades the history does not have; None where trades of that time were dropped since."""
    if not ids.count:
        return 0
    # The exchange's clock may lie a little beside ours, which stands in where an edge has no event.
    slack = timedelta(minutes=10)
    if is_dropped(connection, "trades", min(ids.since, ids.until), max(ids.since, ids.until)):
        return None
    row = connection.execute(
        "SELECT count(DISTINCT trade_id) FROM trades WHERE instrument_id = %s AND time >= %s AND time <= %s"
        " AND CASE WHEN trade_id ~ '^[0-9]{1,38}$' THEN trade_id::numeric BETWEEN %s AND %s ELSE false END",
        [instrument_id, min(ids.since, ids.until) - slack, max(ids.since, ids.until) + slack, ids.first, ids.last],
    ).fetchone()
    return ids.count - (int(row[0]) if row else 0)


_JUMPS = """
SELECT jump.ended_at, jump.last_id, jump.last_time, next.started_at, next.first_id, next.first_time, jump.ingestor
FROM coverage AS jump
CROSS JOIN LATERAL (
    SELECT c.started_at, c.first_id, c.first_time FROM coverage AS c
    WHERE
        c.incarnation = jump.incarnation AND c.stream = jump.stream AND c.epoch = jump.epoch
        AND c.instrument_id = jump.instrument_id AND c.channel = jump.channel
        AND c.started_at >= jump.ended_at AND c.id <> jump.id
    ORDER BY c.started_at, c.id LIMIT 1
) AS next
WHERE
    jump.instrument_id = %(id)s AND jump.channel = 'trades' AND jump.ended_by = 'sequence' AND jump.proof = 'sequence'
    AND jump.started_at < %(end)s AND jump.ended_at >= %(start)s AND jump.ended_at < %(end)s
ORDER BY jump.ended_at
"""


def jumps(
    connection: psycopg.Connection[Any], instrument_id: int, window: Interval, listed: Iterable[Gap]
) -> list[Trouble]:
    """Jumps of trade ids within a connection whose trades no other ingestor had, apart from the gaps that list them.

    A jump takes no time: the event before it and the one behind it may have come in the same frame.
    """
    found = []
    gaps = list(listed)
    for row in connection.execute(_JUMPS, {"id": instrument_id, "start": window.start, "end": window.end}).fetchall():
        ended_at, last_id, last_time, started_at, first_id, first_time, ingestor = row
        if any(gap.start <= ended_at <= gap.end for gap in gaps):
            continue
        ids = id_range(last_id, first_id, last_time or ended_at, first_time or started_at)
        if ids is None or not (missing := missing_trades(connection, instrument_id, ids)):
            continue
        detail = (
            f"{missing:,} of the {ids.count:,} trades {ids.first} to {ids.last} did not reach {ingestor} or any other"
        )
        found.append(Trouble("ids_missing", ended_at, started_at, detail, (ids.first, ids.last)))
    return found
