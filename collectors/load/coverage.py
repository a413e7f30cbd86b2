"""From when to when an epoch was provably listening: a state machine over marks and ids. Pure, no clock, no I/O.

The whole contract, all times being receive times (ns):

* trades, quotes: an interval opens at the ``subscribed`` mark, or at the first event of the instrument if that comes
  earlier (a frame proves the subscription better than a mark). It reaches to the connection's ``alive``.
* channels with consecutive ids: a jump ends the interval at the last event before it (``sequence``) and opens the next
  at the event behind it. Ids not above the last are copies or latecomers and change nothing.
* book_events: an interval opens once a snapshot and the update that bridges it (first <= id + 1 <= last) are both
  there, at the later of the two; a break of the chain ends it at the last good update, and the next bridged snapshot
  opens another. Only the ends of the unbroken chain are kept: where it is unbroken, first of chain <= id + 1 <= last
  of chain says that one of its updates bridges. Updates that name only the id before them (previous) chain by it, and
  first is then previous + 1.
* where whole books come on the socket, one opens the interval at once: all that the exchange sends on that connection
  comes behind it. One inside the chain (a reply to a request of ours) changes nothing but that. One with another id
  than the last, while an interval is open, is the exchange starting anew (ids too): the interval ends at the last
  update before it (``venue``) and the next opens at the snapshot.
* books without a chain (no ids, or ids that need not follow each other): an interval opens at the first whole book, or
  by REST at one that is not older than the first update, and reaches to ``alive``; its proof is the heartbeat.
* a ``gap`` mark tells what ids do not: a checksum that fails, a jump in a connection's frame numbers, a frame that
  cannot be read where only the connection vouches for the next. The interval ends at the last event received before it
  (``sequence``); the next opens at the mark, of a book at the next whole one. Where ids chain the mark changes nothing.
* an event that is heard and cannot be loaded (dated absurdly, a number that is none) ends the interval at the last
  event received before it (``sequence``), whatever its ids; the next opens at the next event, of a book at the next
  whole one.
* damage of the journal ends everything at the last ``alive`` before it (``disk``); what comes behind opens anew.
* the close mark ends everything at ``alive`` with its reason; a dead writer without one, with ``crash``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct, field, msgpack

from collectors.decode.contract import Decoder, Proof
from collectors.events import Channel
from collectors.load.tracker import (
    EndedBy,
    Id,
    Interval,
    Tracker,
    bridge,
    forget,
    heard,
    interval_of,
    last_before,
    open_at,
)

__all__ = ["Coverage", "EndedBy", "Id", "Interval", "Tracker"]
Snapshots = Literal["socket", "rest", "always"]


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
    snapshots: Snapshots | None = None
    """Where whole books come from; None in states written before this was kept, whose epochs end by REST's rule."""
    is_chained: bool = True
    """Whether ids show that no book update is missing."""
    _by_key: dict[str, Tracker] = field(default_factory=dict)
    _ended: list[Interval] = field(default_factory=list)

    @classmethod
    def begin(cls, epoch: int, decoder: Decoder) -> Coverage:
        """The state of an epoch (ns) of which nothing has been read yet."""
        book = decoder.streams.get("book_events")
        return cls(
            epoch,
            epoch,
            epoch,
            decoder.consecutive,
            snapshots=None if book is None else book.snapshot,
            is_chained=book is None or book.proof in {Proof.CONSECUTIVE, Proof.PREVIOUS},
        )

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
                self.snapshots,
                self.is_chained,
            )
        )

    @classmethod
    def load(cls, dumped: bytes) -> Coverage:
        """The state that ``dump`` gave."""
        s = _decode(dumped)
        self = cls(
            s.epoch,
            s.opened_at,
            s.alive,
            s.consecutive,
            s.trackers,
            s.unplaced,
            s.closed_at,
            s.ended_by,
            s.snapshots,
            s.is_chained,
        )
        self._by_key = {tracker.channel + tracker.native_id: tracker for tracker in self.trackers}
        return self

    def tracker(self, channel: Channel, native_id: str) -> Tracker:
        """The tracker of an instrument and channel, made where there is none."""
        key = channel + native_id
        found = self._by_key.get(key)
        if found is None:
            found = self._by_key[key] = Tracker(
                native_id, channel, channel in self.consecutive, is_chained=self.is_chained
            )
            self.trackers.append(found)
        return found

    def subscribed(self, channel: Channel, native_ids: Iterable[str], at: int) -> None:
        """The exchange acknowledged."""
        for native_id in native_ids:
            tracker = self.tracker(channel, native_id)
            tracker.is_unsubscribed = False
            if channel != "book_events" and tracker.started_at is None:
                open_at(tracker, at)

    def unsubscribed(self, channel: Channel, native_ids: Iterable[str], at: int) -> None:
        """The exchange stopped sending on our word; frames still under way open nothing."""
        for native_id in native_ids:
            tracker = self.tracker(channel, native_id)
            self._end(tracker, at, "shutdown")
            forget(tracker)
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
            open_at(tracker, at)
        if tracker.first_id is None:
            tracker.first_id, tracker.first_time = event_id, time
        tracker.last_id, tracker.last_time = event_id, time
        heard(tracker, at)

    def update(  # noqa: PLR0917
        self, tracker: Tracker, first: int | None, last: int | None, previous: int | None, at: int, time: int | None
    ) -> None:
        """A book update was received; without ``previous`` the update before it ended at ``first`` - 1."""
        if tracker.is_unsubscribed:
            return
        if not tracker.is_chained:
            self._unchained(tracker, last, at, time)
            return
        before = first - 1 if previous is None and first is not None else previous
        if before is None or last is None:
            return
        first = before + 1 if first is None else first
        known = tracker.last_id
        if isinstance(known, int):
            # An exchange that lets its ids fall (OKX in maintenance) still names the last one before.
            is_lowered = last < known and previous == known
            if last <= known and not is_lowered:
                return
            # The first update behind a whole book on the socket may reach back over it.
            is_behind = tracker.chain_first is None and before < known
            if is_lowered:
                tracker.chain_first = last + 1
            elif before != known and not is_behind:
                assert tracker.last_at is not None
                self._end(tracker, tracker.last_at, "sequence")
                tracker.chain_first = first
        if tracker.chain_first is None:
            tracker.chain_first = first
        tracker.last_id, tracker.last_time, tracker.last_at = last, time, at
        if tracker.started_at is None:
            bridge(tracker, at)
        elif tracker.first_time is None:
            tracker.first_time = time

    def snapshot(self, tracker: Tracker, snapshot_id: int | None, at: int) -> None:
        """The whole book was received."""
        if tracker.is_unsubscribed:
            return
        if self.snapshots in {"socket", "always"}:
            self._socket_snapshot(tracker, snapshot_id, at)
        elif tracker.started_at is None and snapshot_id is not None:
            tracker.snapshot_id = snapshot_id
            bridge(tracker, at)

    def _socket_snapshot(self, tracker: Tracker, snapshot_id: int | None, at: int) -> None:
        last, first = tracker.last_id, tracker.chain_first
        if not tracker.is_chained or snapshot_id is None:
            if tracker.started_at is None and not tracker.is_chained:
                open_at(tracker, at)
            return
        if tracker.started_at is not None:
            if snapshot_id == last:
                return
            assert tracker.last_at is not None
            self._end(tracker, tracker.last_at, "venue")
        elif first is not None and isinstance(last, int) and first - 1 <= snapshot_id <= last:
            open_at(tracker, at)
            tracker.first_id, tracker.first_time = snapshot_id, tracker.last_time
            return
        forget(tracker)
        tracker.last_id, tracker.last_at = snapshot_id, at
        open_at(tracker, at)
        tracker.first_id = snapshot_id

    def _unchained(self, tracker: Tracker, last: int | None, at: int, time: int | None) -> None:
        """An update whose place only its connection vouches for."""
        if tracker.started_at is None:
            if self.snapshots != "rest" or last is None:
                return
            if tracker.chain_first is None:
                tracker.chain_first = last
            tracker.last_id, tracker.last_time = last, time
            heard(tracker, at)
            bridge(tracker, at)
            return
        if tracker.first_id is None:
            tracker.first_id, tracker.first_time = last, time
        tracker.last_id, tracker.last_time = last, time
        heard(tracker, at)

    def lost(self, channel: Channel, native_id: str, at: int) -> None:
        """The recorder found at ``at`` that something before it is missing."""
        tracker = self.tracker(channel, native_id)
        if tracker.is_sequence or tracker.started_at is None:
            return
        self.missed(channel, native_id, at)
        if channel != "book_events":
            open_at(tracker, at)

    def missed(self, channel: Channel, native_id: str, at: int) -> None:
        """An event received at ``at`` is not among the rows."""
        tracker = self.tracker(channel, native_id)
        if tracker.started_at is not None:
            before = last_before(tracker, at)
            self._end(tracker, tracker.started_at if before is None else before, "sequence")
        forget(tracker)

    def reaches(self, alive: int) -> None:
        """A commit: the connection was alive until then."""
        self.alive = max(self.alive, alive)

    def damaged(self) -> None:
        """Nobody knows what came between the last commit and the next."""
        for tracker in self.trackers:
            self._end(tracker, self.alive, "disk")
            forget(tracker)

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
                out.append(interval_of(tracker, None, None))
                tracker.is_written = True
                tracker.is_first_written = tracker.first_id is not None
        return out

    def _end(self, tracker: Tracker, at: int, reason: EndedBy) -> None:
        if tracker.started_at is None:
            return
        self._ended.append(interval_of(tracker, max(at, tracker.started_at), reason))
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
    # Newer fields stand last and have defaults: an array's place is its meaning, and older states lack them.
    snapshots: Snapshots | None = None
    is_chained: bool = True


_encode = msgpack.Encoder().encode
_decode = msgpack.Decoder(_State).decode
