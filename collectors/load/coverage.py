"""From when to when an epoch was provably listening: a state machine over marks and ids. Pure, no clock, no I/O.

The whole contract, all times being receive times (ns):

* trades, quotes: an interval opens at the ``subscribed`` mark, or at the first event of the instrument if that comes
  earlier (a frame proves the subscription better than a mark). It reaches to the connection's ``alive``.
* channels with consecutive ids: a jump ends the interval at the last event before it (``sequence``) and opens the next
  at the event behind it. Ids not above the last are copies or latecomers and change nothing.
* book_events: an interval opens once a snapshot and the update that bridges it (first <= id + 1 <= last) are both
  there, at the later of the two; a break of the chain ends it at the last good update, and the next bridged snapshot
  opens another. Only the ends of the unbroken chain are kept: where it is unbroken, first of chain <= id + 1 <= last
  of chain says that one of its updates bridges.
* damage of the journal ends everything at the last ``alive`` before it (``disk``); what comes behind opens anew.
* the close mark ends everything at ``alive`` with its reason; a dead writer without one, with ``crash``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct, field
from msgspec.msgpack import Decoder, Encoder

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

    @property
    def is_sequence(self) -> bool:
        return self.is_consecutive or self.channel == "book_events"


class Coverage(Struct):
    """State of one epoch; ``dump`` and ``load`` carry it over a restart."""

    epoch: int
    opened_at: int
    alive: int
    consecutive: frozenset[Channel] = frozenset()
    trackers: list[Tracker] = []
    unplaced: list[Interval] = []
    """Ended intervals of instruments that have no id yet."""
    closed_at: int | None = None
    ended_by: EndedBy | None = None
    _by_key: dict[str, Tracker] = field(default_factory=dict)
    _ended: list[Interval] = field(default_factory=list)

    def dump(self) -> bytes:
        """The state as bytes, for ``load``; ``changes`` must have been taken before."""
        assert not self._ended, "intervals that ended must be taken before the state is kept"
        return _encode(
            _State(
                self.epoch,
                self.opened_at,
                self.alive,
                self.consecutive,
                self.trackers,
                self.unplaced,
                self.closed_at,
                self.ended_by,
            )
        )

    @classmethod
    def load(cls, dumped: bytes) -> Coverage:
        """The state that ``dump`` gave."""
        s = _decode(dumped)
        self = cls(s.epoch, s.opened_at, s.alive, s.consecutive, s.trackers, s.unplaced, s.closed_at, s.ended_by)
        self._by_key = {tracker.channel + tracker.native_id: tracker for tracker in self.trackers}
        return self

    def tracker(self, channel: Channel, native_id: str) -> Tracker:
        """The tracker of an instrument and channel, made where there is none."""
        key = channel + native_id
        found = self._by_key.get(key)
        if found is None:
            found = self._by_key[key] = Tracker(native_id, channel, channel in self.consecutive)
            self.trackers.append(found)
        return found

    def subscribed(self, channel: Channel, native_ids: Iterable[str], at: int) -> None:
        """The exchange acknowledged."""
        for native_id in native_ids:
            tracker = self.tracker(channel, native_id)
            tracker.is_unsubscribed = False
            if channel != "book_events" and tracker.started_at is None:
                _open(tracker, at)

    def unsubscribed(self, channel: Channel, native_ids: Iterable[str], at: int) -> None:
        """The exchange stopped sending on our word; frames still under way open nothing."""
        for native_id in native_ids:
            tracker = self.tracker(channel, native_id)
            self._end(tracker, at, "shutdown")
            _forget(tracker)
            tracker.is_unsubscribed = True

    def event(self, tracker: Tracker, event_id: Id | None, at: int, time: int | None) -> None:
        """A trade or a quote was received."""
        if tracker.is_unsubscribed:
            return
        last = tracker.last_id
        if tracker.is_consecutive and isinstance(event_id, int) and isinstance(last, int):
            if event_id <= last:
                return
            if event_id != last + 1:
                assert tracker.last_at is not None
                self._end(tracker, tracker.last_at, "sequence")
        if tracker.started_at is None:
            _open(tracker, at)
        if tracker.first_id is None:
            tracker.first_id, tracker.first_time = event_id, time
        tracker.last_id, tracker.last_time, tracker.last_at = event_id, time, at

    def update(  # noqa: PLR0917
        self, tracker: Tracker, first: int | None, last: int | None, previous: int | None, at: int, time: int | None
    ) -> None:
        """A book update was received; without ``previous`` the update before it ended at ``first`` - 1."""
        if tracker.is_unsubscribed or first is None or last is None:
            return
        known = tracker.last_id
        if isinstance(known, int):
            if last <= known:
                return
            if (first - 1 if previous is None else previous) != known:
                assert tracker.last_at is not None
                self._end(tracker, tracker.last_at, "sequence")
                tracker.chain_first = first
        if tracker.chain_first is None:
            tracker.chain_first = first
        tracker.last_id, tracker.last_time, tracker.last_at = last, time, at
        if tracker.started_at is None:
            _bridge(tracker, at)
        elif tracker.first_time is None:
            tracker.first_time = time

    def snapshot(self, tracker: Tracker, snapshot_id: int | None, at: int) -> None:
        """The whole book was received."""
        if tracker.is_unsubscribed or tracker.started_at is not None or snapshot_id is None:
            return
        tracker.snapshot_id = snapshot_id
        _bridge(tracker, at)

    def reaches(self, alive: int) -> None:
        """A commit: the connection was alive until then."""
        self.alive = max(self.alive, alive)

    def damaged(self) -> None:
        """Nobody knows what came between the last commit and the next."""
        for tracker in self.trackers:
            self._end(tracker, self.alive, "disk")
            _forget(tracker)

    def close(self, reason: EndedBy, at: int) -> None:
        """The connection ended at ``at``; it was alive until ``alive``."""
        if self.ended_by is not None:
            return
        for tracker in self.trackers:
            self._end(tracker, self.alive, reason)
        self.closed_at, self.ended_by = max(at, self.alive), reason

    def changes(self, is_known: set[str] | dict[str, int]) -> list[Interval]:
        """The rows to insert and to update since the last call; those of unknown instruments wait."""
        ended = self.unplaced + self._ended
        self.unplaced = [interval for interval in ended if interval.native_id not in is_known]
        self._ended = []
        out = [interval for interval in ended if interval.native_id in is_known]
        for tracker in self.trackers:
            if tracker.started_at is None or tracker.native_id not in is_known:
                continue
            has_news = tracker.first_id is not None and not tracker.is_first_written
            if not tracker.is_written or has_news:
                out.append(_interval(tracker, None, None))
                tracker.is_written = True
                tracker.is_first_written = tracker.first_id is not None
        return out

    def _end(self, tracker: Tracker, at: int, reason: EndedBy) -> None:
        if tracker.started_at is None:
            return
        self._ended.append(_interval(tracker, max(at, tracker.started_at), reason))
        tracker.started_at = tracker.first_id = tracker.first_time = tracker.snapshot_id = None
        tracker.is_written = tracker.is_first_written = False


class _State(Struct, array_like=True):
    epoch: int
    opened_at: int
    alive: int
    consecutive: frozenset[Channel]
    trackers: list[Tracker]
    unplaced: list[Interval]
    closed_at: int | None
    ended_by: EndedBy | None


_encode = Encoder().encode
_decode = Decoder(_State).decode


def _open(tracker: Tracker, at: int) -> None:
    tracker.started_at = at


def _bridge(tracker: Tracker, at: int) -> None:
    """Open where the snapshot's next id lies inside the chain."""
    snapshot, first, last = tracker.snapshot_id, tracker.chain_first, tracker.last_id
    if snapshot is None or first is None or not isinstance(last, int):
        return
    if first <= snapshot + 1 <= last:
        _open(tracker, at)
        tracker.first_id, tracker.first_time = snapshot, tracker.last_time


def _forget(tracker: Tracker) -> None:
    """Whatever comes next starts anew."""
    tracker.last_id = tracker.last_time = tracker.last_at = tracker.chain_first = tracker.snapshot_id = None


def _interval(tracker: Tracker, ended_at: int | None, ended_by: EndedBy | None) -> Interval:
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
