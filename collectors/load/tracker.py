"""One instrument and channel within an epoch: what coverage remembers of it, and the interval that makes. Pure."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from collectors.events import Channel

EndedBy = Literal["disconnect", "sequence", "stall", "crash", "disk", "shutdown", "handover", "venue"]
Id = int | str


class Interval(Struct):
    """One stretch of coverage; open where ``ended_at`` is None. ``is_new``: the database has no row of it yet."""

    native_id: str
    channel: Channel
    is_new: bool
    started_at: int
    ended_at: int | None
    first_id: Id | None
    last_id: Id | None
    first_time: int | None
    last_time: int | None
    is_sequence: bool
    ended_by: EndedBy | None


class Tracker(Struct, gc=False):
    """One instrument and channel within an epoch. For books ``chain_first`` to ``last_id`` is the unbroken chain."""

    native_id: str
    channel: Channel
    is_consecutive: bool
    is_unsubscribed: bool = False
    started_at: int | None = None
    first_id: Id | None = None
    first_time: int | None = None
    last_id: Id | None = None
    last_time: int | None = None
    last_at: int | None = None
    chain_first: int | None = None
    snapshot_id: int | None = None
    is_written: bool = False
    is_first_written: bool = False
    is_chained: bool = True
    """Of books: ids show that no update is missing."""
    before_at: int | None = None
    """Receive time of the last event that came earlier than ``last_at``."""

    @property
    def is_sequence(self) -> bool:
        return self.is_consecutive or (self.channel == "book_events" and self.is_chained)


def open_at(tracker: Tracker, at: int) -> None:
    """Covered from then on."""
    tracker.started_at = at


def bridge(tracker: Tracker, at: int) -> None:
    """Open where the snapshot's next id lies inside the chain, or without a chain, where it is not older than all."""
    snapshot, first, last = tracker.snapshot_id, tracker.chain_first, tracker.last_id
    if snapshot is None or first is None or not isinstance(last, int):
        return
    if first <= snapshot + 1 <= last if tracker.is_chained else first <= snapshot:
        open_at(tracker, at)
        tracker.first_id, tracker.first_time = snapshot, tracker.last_time


def heard(tracker: Tracker, at: int) -> None:
    """An event was received."""
    if tracker.last_at is not None and at > tracker.last_at:
        tracker.before_at = tracker.last_at
    tracker.last_at = at


def last_before(tracker: Tracker, at: int) -> int | None:
    """Receive time of the last event earlier than ``at``; None where none is known."""
    return tracker.last_at if tracker.last_at is not None and tracker.last_at < at else tracker.before_at


def forget(tracker: Tracker) -> None:
    """Whatever comes next starts anew."""
    tracker.last_id = tracker.last_time = tracker.last_at = tracker.chain_first = tracker.snapshot_id = None
    tracker.before_at = None


def interval_of(tracker: Tracker, ended_at: int | None, ended_by: EndedBy | None) -> Interval:
    """The row of a tracker that covers; open where ``ended_at`` is None."""
    assert tracker.started_at is not None
    has_any = tracker.first_id is not None
    return Interval(
        tracker.native_id,
        tracker.channel,
        not tracker.is_written,
        tracker.started_at,
        ended_at,
        tracker.first_id,
        tracker.last_id if has_any and ended_at is not None else None,
        tracker.first_time,
        tracker.last_time if has_any and ended_at is not None else None,
        tracker.is_sequence,
        ended_by,
    )
