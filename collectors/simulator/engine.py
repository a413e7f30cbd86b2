"""One simulated market: the book, its orders, its ids, and the events an exchange publishes. No clock, no socket."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from msgspec import Struct

from collectors.simulator.book import Book, Change
from collectors.simulator.flow import Flow, fill
from collectors.simulator.market import Market, Scale

Level = tuple[str, str]


class TradeEvent(Struct, frozen=True, gc=False):
    """One match. ``time`` is when it happened, ``event_time`` when it was published: ms since 1970, UTC."""

    native_id: str
    trade_id: int
    price: str
    amount: str
    time: int
    event_time: int
    is_buy: bool


class QuoteEvent(Struct, frozen=True, gc=False):
    """Best bid and ask after the book change ``update_id``, at ``time`` (ms since 1970); not all exchanges tell it."""

    native_id: str
    update_id: int
    bid_price: str
    bid_amount: str
    ask_price: str
    ask_amount: str
    time: int


class DepthEvent(Struct, frozen=True, gc=False):
    """All levels changed by the updates ``first_id`` to ``last_id``, with what rests there now; ``time`` in ms."""

    native_id: str
    first_id: int
    last_id: int
    time: int
    bids: list[Level]
    asks: list[Level]


class ChangeEvent(Struct, frozen=True, gc=False):
    """One level changed by one update id. Not published: ground truth, from which any book can be rebuilt."""

    native_id: str
    update_id: int
    is_bid: bool
    price: str
    amount: str


class BookState(Struct, frozen=True, gc=False):
    """A whole book right after the update ``update_id``, best levels first."""

    native_id: str
    update_id: int
    bids: list[Level]
    asks: list[Level]


PublicEvent = TradeEvent | QuoteEvent | DepthEvent
Event = PublicEvent | ChangeEvent


class Engine:
    """A market in motion. ``order`` and ``publish_depth`` return what happened; the same seed gives the same orders.

    Ids are those of Binance spot: every changed level has an update id, one above the last; a quote carries the id of
    the change that made it; a depth event covers all ids since the one before; trade ids are consecutive.
    """

    def __init__(self, market: Market, *, seed: int, levels: int, first_update_id: int, first_trade_id: int) -> None:
        self.market = market
        self.native_id = market.native_id
        self.prices = Scale(market.price_tick, market.wire_digits)
        self.amounts = Scale(market.amount_step, market.wire_digits)
        self.update_id = first_update_id - 1
        self.trade_id = first_trade_id - 1
        self.book = Book()
        self._random = Random(f"{seed} {market.native_id}")  # noqa: S311 - reproducible on purpose
        mean = max(1, self.amounts.steps(market.amount))
        fill(
            self.book,
            self._random,
            price=self.prices.steps(market.price),
            amount=mean,
            levels=levels + levels // 10,
        )
        self._flow = Flow(self.book, self._random, amount=mean, levels=levels)
        self._quote = self._touch()
        self._dirty: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self._first_dirty_id = first_update_id

    def order(self, now_ms: int) -> Iterator[Event]:
        """Carry out one order: its changes and trades, and the quote where the touch moved."""
        for change in self._flow.step():
            yield from self._apply(change, now_ms)
        touch = self._touch()
        if touch != self._quote:
            self._quote = touch
            yield QuoteEvent(self.native_id, self.update_id, *touch, now_ms)

    def publish_depth(self, now_ms: int) -> DepthEvent | None:
        """The changes since the last call as one event; None where nothing changed."""
        if self._first_dirty_id > self.update_id:
            return None
        bids, asks = self._dirty
        event = DepthEvent(
            self.native_id,
            self._first_dirty_id,
            self.update_id,
            now_ms,
            [self._level(price, bids[price]) for price in sorted(bids, reverse=True)],
            [self._level(price, asks[price]) for price in sorted(asks)],
        )
        self._dirty = ({}, {})
        self._first_dirty_id = self.update_id + 1
        return event

    def state(self, limit: int | None = None) -> BookState:
        """The book as it is now, or its best ``limit`` levels a side."""
        bids = self.book.top(limit or len(self.book.bids), is_bid=True)
        asks = self.book.top(limit or len(self.book.asks), is_bid=False)
        return BookState(
            self.native_id, self.update_id, [self._level(*level) for level in bids], [self._level(*x) for x in asks]
        )

    def _apply(self, change: Change, now_ms: int) -> Iterator[Event]:
        self.update_id += 1
        self._dirty[0 if change.is_bid else 1][change.price] = change.amount
        price = self.prices.text(change.price)
        yield ChangeEvent(self.native_id, self.update_id, change.is_bid, price, self.amounts.text(change.amount))
        for part in self._parts(change.filled):
            self.trade_id += 1
            # Published in the millisecond of the match or the one after, as seen at the real exchange.
            published = now_ms + self._random.getrandbits(1)
            yield TradeEvent(
                self.native_id, self.trade_id, price, self.amounts.text(part), now_ms, published, not change.is_bid
            )

    def _parts(self, filled: int) -> Iterator[int]:
        """What was filled at one level, split over the resting orders it met; equal parts do occur."""
        while filled > 0:
            chance = self._random.random()
            part = filled if chance < 0.7 or filled == 1 else max(1, filled // 2) if chance < 0.85 else 1
            yield part
            filled -= part
            if chance >= 0.85 and filled:
                yield filled
                return

    def _touch(self) -> tuple[str, str, str, str]:
        bid, ask = self.book.best_bid, self.book.best_ask
        zero = self.prices.text(0), self.amounts.text(0)
        return (
            *(zero if bid is None else self._level(bid, self.book.bids[bid])),
            *(zero if ask is None else self._level(ask, self.book.asks[ask])),
        )

    def _level(self, price: int, amount: int) -> Level:
        return self.prices.text(price), self.amounts.text(amount)
