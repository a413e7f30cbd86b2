"""Whether the updates of one book form a chain, and whether a snapshot bridges to it. Pure."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from collectors.decode import BookIds, Proof

Source = Literal["socket", "rest", "always"]


class Break(Struct, frozen=True):
    """An update id that does not follow the one before it."""

    expected: int
    found: int


class BookChain:
    """The chain of one instrument's updates on one connection.

    A snapshot on the socket bridges by itself; it starts the chain anew, unless its id lies inside of it: a reply to a
    request, which newer updates overtook. One by REST bridges where no update is missing
    between it and the chain: the chain's first update is not later than the one that follows the snapshot. It stays
    good until the chain breaks, which only consecutive and previous ids can show. Where every message is a whole book,
    nothing can break. Where updates carry no ids, a REST snapshot asked for after subscribing is taken to bridge.
    """

    def __init__(self, proof: Proof = Proof.CONSECUTIVE, source: Source | None = "rest") -> None:
        self._is_checked = proof in (Proof.CONSECUTIVE, Proof.PREVIOUS)
        self._by_previous = proof is Proof.PREVIOUS
        self._source = source
        self._first: int | None = None  # of the unbroken chain
        self._last = 0
        self._snapshot: int | None = None
        self.is_bridged = source is None

    def update(self, ids: BookIds) -> Break | None:
        """Add a message; the break it shows, if any. One that is not new (a duplicate, a late one) changes nothing."""
        if ids.is_snapshot or self._source == "always":
            self._whole(ids.last)
            return None
        first, last, previous = ids.first, ids.last, ids.previous
        if last is None:
            return None
        if first is None:
            first = last if previous is None else previous + 1
        broken = None
        is_begun = self._source != "socket" or self.is_bridged  # nothing breaks before the whole book
        if self._first is None:
            self._first, self._last = first, last
        elif last > self._last or (self._by_previous and previous == self._last):
            if self._is_checked and not self._follows(first, previous):
                broken = Break(self._last + 1, first)
                self._first = first
                self._snapshot, self.is_bridged = None, False
            self._last = last
        self._bridge()
        return broken if is_begun else None

    def _whole(self, last: int | None) -> None:
        is_inside = self._is_checked and self._first is not None and last is not None
        if not (is_inside and (self._first or 0) - 1 <= (last or 0) <= self._last):
            self._first, self._last = last, last or 0
        self._snapshot, self.is_bridged = None, True

    def _follows(self, first: int, previous: int | None) -> bool:
        if previous is None:
            return self._by_previous or first == self._last + 1
        return previous == self._last

    def snapshot(self, last_id: int | None) -> bool | None:
        """Add a snapshot by REST; whether it bridges, None as long as no update shows it.

        One that does not bridge is forgotten, unless an earlier one does already.
        """
        if self.is_bridged or last_id is None:
            self.is_bridged = True
            return True
        self._snapshot = last_id
        self._bridge()
        return True if self.is_bridged else (None if self._snapshot is not None else False)

    def _bridge(self) -> None:
        if self._snapshot is None or self._first is None:
            return
        # Without consecutive or previous ids only an update that the snapshot holds already shows that none is missing.
        if self._first > self._snapshot + (1 if self._is_checked else 0):
            self._snapshot = None
        elif self._last > self._snapshot or not self._is_checked:
            self.is_bridged = True

    @property
    def has_begun(self) -> bool:
        """An update was received."""
        return self._first is not None

    @property
    def is_waiting(self) -> bool:
        """A snapshot is there, and the update that follows it is not yet."""
        return self._snapshot is not None and not self.is_bridged
