"""Books whose exchange sends a checksum: kept as far as that is computed from. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from msgspec import Struct

from collectors.events import BookEvent, Level

Checksum = Callable[[Sequence[Level], Sequence[Level]], int]
"""Of the best bids and asks, best first."""


class Mismatch(Struct, frozen=True):
    """The checksum that was sent, and that of the book as received."""

    expected: int
    found: int


class CheckedBook:
    """One book, texts as sent. ``apply`` gives the first mismatch since the last whole book, then nothing more."""

    __slots__ = ("_asks", "_best", "_bids", "_checksum", "_depth", "_is_good")

    def __init__(self, checksum: Checksum, *, best: int, depth: int | None) -> None:
        """``best`` levels a side go into the checksum; the exchange forgets those behind ``depth``."""
        self._checksum = checksum
        self._best = best
        self._depth = depth
        self._bids = _Side(is_bid=True)
        self._asks = _Side(is_bid=False)
        self._is_good = False

    def apply(self, event: BookEvent) -> Mismatch | None:
        """Follow the next event of the book."""
        if event.kind == "snapshot":
            self._bids.clear()
            self._asks.clear()
            self._is_good = True
        elif not self._is_good:
            return None
        for side, levels in ((self._bids, event.bids), (self._asks, event.asks)):
            side.change(levels)
            if self._depth is not None:
                side.cut(self._depth)
        if event.checksum is None:
            return None
        expected, found = int(event.checksum), self._checksum(self._bids.best(self._best), self._asks.best(self._best))
        if expected == found:
            return None
        self._is_good = False
        return Mismatch(expected, found)


class _Side:
    """Levels in order; keys are prices as floats, which only order them."""

    __slots__ = ("_keys", "_levels", "_sign")

    def __init__(self, *, is_bid: bool) -> None:
        self._sign = -1.0 if is_bid else 1.0
        self._keys: list[float] = []  # best first
        self._levels: dict[float, Level] = {}

    def clear(self) -> None:
        self._keys.clear()
        self._levels.clear()

    def change(self, levels: Sequence[Level]) -> None:
        for level in levels:
            key = self._sign * float(level[0])
            at = bisect_left(self._keys, key)
            is_there = at < len(self._keys) and self._keys[at] == key
            if float(level[1]):
                self._levels[key] = level
                if not is_there:
                    self._keys.insert(at, key)
            elif is_there:
                del self._keys[at], self._levels[key]

    def cut(self, depth: int) -> None:
        for key in self._keys[depth:]:
            del self._levels[key]
        del self._keys[depth:]

    def best(self, count: int) -> list[Level]:
        return [self._levels[key] for key in self._keys[:count]]
