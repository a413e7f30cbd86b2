"""Whether the updates of one book form a chain, and whether a snapshot bridges to it. Pure."""

from __future__ import annotations

from msgspec import Struct

from collectors.decode import BookIds


class Break(Struct, frozen=True):
    """An update id that does not follow the one before it."""

    expected: int
    found: int


class BookChain:
    """The chain of one instrument's updates on one connection.

    A snapshot bridges where no update is missing between it and the chain: the chain's first update is not later than
    the one that follows the snapshot. It stays good until the chain breaks.
    """

    def __init__(self) -> None:
        self._first: int | None = None  # of the unbroken chain
        self._last = 0
        self._snapshot: int | None = None
        self.is_bridged = False

    def update(self, ids: BookIds) -> Break | None:
        """Add an update; the break it shows, if any. One that is not new (a duplicate, a late one) changes nothing."""
        broken = None
        if self._first is None:
            self._first, self._last = ids.first, ids.last
        elif ids.last > self._last:
            follows = ids.first == self._last + 1 if ids.previous is None else ids.previous == self._last
            if not follows:
                broken = Break(self._last + 1, ids.first)
                self._first = ids.first
                self._snapshot, self.is_bridged = None, False
            self._last = ids.last
        self._bridge()
        return broken

    def snapshot(self, last_id: int) -> bool | None:
        """Add a snapshot; whether it bridges, None as long as no update shows it.

        One that does not bridge is forgotten, unless an earlier one does already.
        """
        if self.is_bridged:
            return True
        self._snapshot = last_id
        self._bridge()
        return True if self.is_bridged else (None if self._snapshot is not None else False)

    def _bridge(self) -> None:
        if self._snapshot is None or self._first is None:
            return
        if self._first > self._snapshot + 1:
            self._snapshot = None
        elif self._last > self._snapshot:
            self.is_bridged = True

    @property
    def is_waiting(self) -> bool:
        """A snapshot is there, and the update that follows it is not yet."""
        return self._snapshot is not None and not self.is_bridged
