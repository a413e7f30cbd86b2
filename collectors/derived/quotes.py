"""Best bid and ask (L1) from a book's events: events in, quotes out; no database.

A quote stands where the best bid or ask, its price or its amount, differs from what it was before, and where it becomes
known. Nothing is told while the book is not known: before its first snapshot, behind a hole of ids, where the best
price lies beyond what the exchange's snapshot told of.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from heapq import heapify, heappop, heappush
from itertools import groupby
from typing import NamedTuple

Best = tuple[Decimal | None, Decimal | None, Decimal | None, Decimal | None]
"""Bid price and amount, ask price and amount; a side's are None where it is empty."""
_BEFORE_SNAPSHOT = timedelta(minutes=1)
_BACK = timedelta(minutes=1)


class Event(NamedTuple):
    """A book event; ``first_id`` is the first id it covers, None where it names none."""

    time: datetime
    received_at: datetime
    epoch: int
    ingestor: str
    ordinal: int
    first_id: int | None
    last_id: int | None
    is_snapshot: bool
    bid_prices: Sequence[Decimal]
    bid_amounts: Sequence[Decimal]
    ask_prices: Sequence[Decimal]
    ask_amounts: Sequence[Decimal]


class Quote(NamedTuple):
    """The best bid and ask right after ``event``."""

    event: Event
    best: Best


class Start(NamedTuple):
    """A book as it is known before the first event; ``snapshot_id`` is that of the snapshot it rests on."""

    bids: dict[Decimal, Decimal]
    asks: dict[Decimal, Decimal]
    last_id: int | None = None
    snapshot_id: int | None = None
    bid_horizon: Decimal | None = None
    ask_horizon: Decimal | None = None


class _Side:
    """One side's levels, and the best of them at hand: a heap in which prices that are gone lie until they come up."""

    def __init__(self, levels: dict[Decimal, Decimal], *, is_bid: bool) -> None:
        self._amounts = {price: amount for price, amount in levels.items() if amount}
        self._is_bid = is_bid
        self._heap: list[Decimal] = []
        self._build()

    def _build(self) -> None:
        # copy_negate is exact; the minus sign would round to the context's digits.
        self._heap = [price.copy_negate() if self._is_bid else price for price in self._amounts]
        heapify(self._heap)

    def apply(self, prices: Sequence[Decimal], amounts: Sequence[Decimal]) -> None:
        for price, amount in zip(prices, amounts, strict=True):
            if not amount:
                self._amounts.pop(price, None)
            else:
                if price not in self._amounts:
                    heappush(self._heap, price.copy_negate() if self._is_bid else price)
                self._amounts[price] = amount
        if len(self._heap) > 2 * len(self._amounts) + 1000:
            self._build()

    def best(self) -> tuple[Decimal, Decimal] | tuple[None, None]:
        while self._heap:
            price = self._heap[0].copy_negate() if self._is_bid else self._heap[0]
            amount = self._amounts.get(price)
            if amount is not None:
                return price, amount
            heappop(self._heap)
        return None, None


class _Book:
    def __init__(self, bids: dict[Decimal, Decimal], asks: dict[Decimal, Decimal]) -> None:
        self.bids = _Side(bids, is_bid=True)
        self.asks = _Side(asks, is_bid=False)

    def apply(self, event: Event) -> None:
        self.bids.apply(event.bid_prices, event.bid_amounts)
        self.asks.apply(event.ask_prices, event.ask_amounts)

    def best(self) -> Best:
        return (*self.bids.best(), *self.asks.best())


def _of_snapshot(event: Event) -> _Book:
    return _Book(
        dict(zip(event.bid_prices, event.bid_amounts, strict=True)),
        dict(zip(event.ask_prices, event.ask_amounts, strict=True)),
    )


class _Chain:
    """A book known by its ids: every id since its snapshot is covered by some event, else it has a hole."""

    def __init__(self, start: Start | None) -> None:
        self._book: _Book | None = None
        self._last_id = 0
        self._holes: list[tuple[int, int]] = []
        self._horizons: tuple[Decimal | None, Decimal | None] = (None, None)
        self._time: datetime | None = None
        if start is not None and start.last_id is not None:
            self._book = _Book(start.bids, start.asks)
            self._last_id = start.last_id
            self._horizons = (start.bid_horizon, start.ask_horizon)

    def take(self, event: Event) -> None:
        assert event.last_id is not None, "events of a chain have ids"
        if self._time is not None and event.time < self._time - _BACK:
            self._book = None  # ids that began anew stand among older ones
        self._time = event.time
        if event.is_snapshot:
            self._book, self._last_id, self._holes = _of_snapshot(event), event.last_id, []
            self._horizons = (min(event.bid_prices, default=None), max(event.ask_prices, default=None))
        elif self._book is not None and event.last_id > self._last_id:
            self._cover(event.first_id, event.last_id)
            self._book.apply(event)
        elif self._book is not None and event.last_id == self._last_id:
            self._cover(event.first_id, event.last_id)

    def _cover(self, first: int | None, last: int) -> None:
        self._holes.append((self._last_id + 1, last))
        self._last_id = last
        if first is not None and first <= last:
            self._holes = [
                part
                for low, high in self._holes
                for part in ((low, min(high, first - 1)), (max(low, last + 1), high))
                if part[0] <= part[1]
            ]
        self._holes = [(low, high) for low, high in self._holes if low <= high]

    def best(self) -> Best | None:
        """None where it is not known."""
        if self._book is None or self._holes:
            return None
        best = self._book.best()
        for price, horizon, is_bid in ((best[0], self._horizons[0], True), (best[2], self._horizons[1], False)):
            if horizon is not None and (price is None or (price < horizon if is_bid else price > horizon)):
                return None
        return best


def chain_quotes(start: Start | None, events: Iterable[Event]) -> Iterator[Quote]:
    """Quotes of events whose ids chain, in the order of last id and, of equal ones, updates before snapshots.

    Of events with one last id the first stands for all. ``start`` is the book at the greatest id before.
    """
    chain = _Chain(start)
    told = chain.best()
    for _, group in groupby(events, key=lambda event: event.last_id):
        of = list(group)
        for event in of:
            chain.take(event)
        best = chain.best()
        if best is not None and best != told:
            yield Quote(of[0], best)
        told = best


def epoch_quotes(
    start: Start | None, events: Iterable[Event], *, is_new: bool, before: Iterable[Event] = ()
) -> Iterator[Quote]:
    """Quotes of one connection's events, in the order in which it received them, while it leads.

    ``start`` is its book before the first; ``is_new`` where its lead begins there, so that the first event is told in
    any case. A snapshot with an id takes in updates with a later one that were received up to a minute before it: for
    those among the first events, ``before`` is what was received in the minute before.
    """
    book = None if start is None else _Book(start.bids, start.asks)
    snapshot_id = None if start is None else start.snapshot_id
    told = None if book is None or is_new else book.best()
    late = deque(event for event in before if not event.is_snapshot)
    for event in events:
        while late and late[0].received_at <= event.received_at - _BEFORE_SNAPSHOT:
            late.popleft()
        if event.is_snapshot:
            book, snapshot_id = _of_snapshot(event), event.last_id
            for update in late:
                if snapshot_id is not None and update.last_id is not None and update.last_id > snapshot_id:
                    book.apply(update)
        else:
            late.append(event)
            is_in_snapshot = snapshot_id is not None and event.last_id is not None and event.last_id <= snapshot_id
            if book is not None and not is_in_snapshot:
                book.apply(event)
        best = None if book is None else book.best()
        if best is not None and best != told:
            yield Quote(event, best)
        told = best
