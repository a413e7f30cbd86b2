"""What of an ingestor may go, and what keeps the rest: pure, from what the ingestor and the datalake say.

The contract. A chunk of received rows goes where all that was received in it

1. is older than the days to keep, and was received before ``protected_until`` of the datalake;
2. is merged, and was merged before that protection came to be: ``protected_until`` says how far the history reached,
   and rows that came late may have missed the backup. The marks say up to which batch the datalake was seen to have
   merged, and when; a batch counts as protected if it was seen before ``protected_until``;
3. is in the datalake now, row for row (``compare`` asks last, of what nothing else keeps).

A segment goes behind the chunks of its rows, so what proved them proves it; it needs 1 and 2 for itself, and nothing of
it may be waiting (parked frames, damage). Under disk pressure a chunk may go without 1 and the marks of 2 where the
segments of its rows are all kept, for these can rebuild it; a segment may only go without the days.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from msgspec import Struct

from collectors.events import Channel

NEAR = timedelta(seconds=60)
"""Equal events without an id are numbered among those received this near (collectors.sync.tuples)."""
_LATE = timedelta(days=1)


class Chunk(Struct, frozen=True):
    """Rows of one channel received from ``start`` up to ``end``; bytes on disk."""

    channel: Channel
    start: datetime
    end: datetime
    bytes: int


class SegmentFile(Struct, frozen=True):
    """A file of the journal; ``written_at`` is when it was last written to."""

    stream: int
    name: str
    bytes: int
    written_at: datetime


class Load(Struct, frozen=True):
    """What was loaded of a segment in one day: the last of its batches, between which times, rows by channel."""

    stream: int
    segment: str
    batch: int
    since: datetime | None
    until: datetime | None
    rows: dict[Channel, int]


class Parked(Struct, frozen=True):
    """Frames of a segment that wait to be loaded."""

    stream: int
    segment: str
    frames: int
    since: datetime
    until: datetime


class StreamState(Struct, frozen=True):
    """A stream of the ingestor; batches up to ``watermark`` are merged, up to ``sure`` since before the protection."""

    id: int
    key: str
    watermark: int
    sure: int
    numbered: frozenset[Channel]
    """Channels whose events are numbered among those received nearby, so that a late one must find these."""


class State(Struct, frozen=True):
    """All that decides; times UTC, ``now`` by the datalake's clock."""

    now: datetime
    protected_until: datetime | None
    streams: dict[int, StreamState]
    loads: list[Load]
    parked: list[Parked]
    done: set[tuple[int, str]]
    damaged: set[tuple[int, str]]
    pending: list[tuple[datetime, datetime]]
    """Times of epochs loaded again whose old rows are still to be taken out of the history."""
    pruned: dict[Channel, list[tuple[datetime, datetime]]]

    @property
    def last_batches(self) -> dict[int, int]:
        """Of each stream the newest batch that was looked at."""
        last = dict.fromkeys(self.streams, 0)
        for load in self.loads:
            last[load.stream] = max(load.batch, last[load.stream])
        return last


class Held(Struct, frozen=True):
    """A reason to stay; ``yields`` where disk pressure weighs more."""

    reason: str
    yields: bool = False


def loads_of(chunk: Chunk, loads: Iterable[Load]) -> list[Load]:
    """What was loaded into a chunk."""
    return [
        load
        for load in loads
        if load.rows[chunk.channel]
        and load.since is not None
        and load.until is not None
        and load.since < chunk.end
        and load.until >= chunk.start
    ]


def keeps_chunk(chunk: Chunk, state: State, days: int, kept: set[tuple[int, str]]) -> list[Held]:
    """Why a chunk stays, empty where it may go (once compared); ``kept`` are the segments that are on disk."""
    loads = loads_of(chunk, state.loads)
    held = _too_young(chunk.end, state, days)
    if chunk.end > state.now:
        held.append(Held("it is still written to"))
    held += _not_merged(loads, state)
    for one in state.parked:
        stream = state.streams[one.stream]
        near = one.since < chunk.end + NEAR and one.until >= chunk.start - NEAR
        if near and chunk.channel in stream.numbered:
            held.append(
                Held(f"{one.frames} parked frames of {stream.key} {one.segment} would be numbered among its rows")
            )
    if any(since < chunk.end + _LATE and until >= chunk.start - _LATE for since, until in state.pending):
        held.append(Held("rows of an epoch that was loaded again are still to be taken out of the history"))
    missing = sorted({load.segment for load in loads if (load.stream, load.segment) not in kept})
    if missing and any(one.yields for one in held):
        held.append(Held(f"no journal could rebuild it: {missing[0]} is not here"))
    return held


def keeps_segment(file: SegmentFile, state: State, days: int) -> list[Held]:
    """Why a segment stays, empty where it may go; only its age yields to disk pressure."""
    key = (file.stream, file.name)
    loads = [load for load in state.loads if (load.stream, load.segment) == key]
    if key not in state.done:
        return [Held("it is not loaded to its end")]
    until = max([file.written_at, *(load.until for load in loads if load.until is not None)])
    held = _too_young(until, state, days) + _not_merged(loads, state)
    held = [one if one.reason.startswith("younger") else Held(one.reason) for one in held]
    held += [
        Held(f"{one.frames} of its frames are parked: see parked_frames for why, and load them")
        for one in state.parked
        if (one.stream, one.segment) == key
    ]
    if key in state.damaged:
        held.append(Held("a part of it could not be read: see journal_damage"))
    for channel, count in _rows(loads).items():
        spans = [(load.since, load.until) for load in loads if load.rows[channel]]
        if count and not all(_is_pruned(since, end, state.pruned.get(channel, [])) for since, end in spans):
            held.append(Held(f"its {channel} are still in the database"))
    return held


def relieving(candidates: Sequence[tuple[Chunk, list[Held]]], need: int) -> list[Chunk]:
    """The oldest chunks that may go under disk pressure, as many as free ``need`` bytes."""
    chosen: list[Chunk] = []
    for chunk, held in sorted(candidates, key=lambda each: (each[0].end, each[0].channel)):
        if sum(one.bytes for one in chosen) >= need:
            break
        if held and all(one.yields for one in held):
            chosen.append(chunk)
    return chosen


def _too_young(until: datetime, state: State, days: int) -> list[Held]:
    held = []
    if until > state.now - timedelta(days=days):
        held.append(Held(f"younger than {days} days", yields=True))
    if state.protected_until is None:
        held.append(Held("no backup or archive is verified: nothing is protected", yields=True))
    elif until > state.protected_until:
        held.append(
            Held(f"verified backups and archives reach up to {state.protected_until:%Y-%m-%d %H:%M}", yields=True)
        )
    return held


def _not_merged(loads: Iterable[Load], state: State) -> list[Held]:
    held = []
    last: dict[int, int] = {}
    for load in loads:
        last[load.stream] = max(load.batch, last.get(load.stream, 0))
    for number, batch in sorted(last.items()):
        stream = state.streams[number]
        if batch > stream.watermark:
            held.append(Held(f"{stream.key} is merged up to batch {stream.watermark}, and this needs {batch}"))
        elif batch > stream.sure and state.protected_until is not None:
            held.append(Held(f"{stream.key} was merged after what the newest verified backup holds", yields=True))
    return held


def _rows(loads: Iterable[Load]) -> dict[Channel, int]:
    total: dict[Channel, int] = {}
    for load in loads:
        for channel, rows in load.rows.items():
            total[channel] = total.get(channel, 0) + rows
    return total


def _is_pruned(since: datetime | None, until: datetime | None, pruned: Iterable[tuple[datetime, datetime]]) -> bool:
    """Whether the pruned ranges, taken together, hold all from ``since`` to ``until``, both included."""
    if since is None or until is None:
        return True
    reached = since
    for start, end in sorted(pruned):
        if start <= reached < end:
            reached = end
    return reached > until
