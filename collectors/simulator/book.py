"""A matching order book: limit orders, market orders and cancels against price levels, in whole ticks and steps."""

from __future__ import annotations

from bisect import bisect_left, insort

from msgspec import Struct


class Change(Struct, frozen=True, gc=False):
    """One level after one step of matching: what rests there now, and what was traded away in this step."""

    is_bid: bool
    price: int
    amount: int
    filled: int = 0


class Book:
    """Levels of both sides. Orders at one price are one amount: who was first does not show in public data.

    The book is never crossed, neither between nor inside its methods' changes: a marketable order takes the other
    side level by level and only the rest of it is placed.
    """

    __slots__ = ("_ask_prices", "_bid_prices", "asks", "bids")

    def __init__(self) -> None:
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}
        self._bid_prices: list[int] = []  # both ascending, so the best bid is last and the best ask first
        self._ask_prices: list[int] = []

    @property
    def best_bid(self) -> int | None:
        return self._bid_prices[-1] if self._bid_prices else None

    @property
    def best_ask(self) -> int | None:
        return self._ask_prices[0] if self._ask_prices else None

    def depth(self, *, is_bid: bool) -> int:
        """Number of levels of a side."""
        return len(self._bid_prices if is_bid else self._ask_prices)

    def price_at(self, index: int, *, is_bid: bool) -> int:
        """Price of the level so many places behind the best one; raises IndexError beyond the last."""
        prices = self._bid_prices if is_bid else self._ask_prices
        if not 0 <= index < len(prices):
            raise IndexError(f"level {index} of {len(prices)}")
        return prices[-1 - index] if is_bid else prices[index]

    def top(self, limit: int, *, is_bid: bool) -> list[tuple[int, int]]:
        """The best ``limit`` levels as (price, amount), best first."""
        if is_bid:
            return [(price, self.bids[price]) for price in self._bid_prices[: -limit - 1 : -1]]
        return [(price, self.asks[price]) for price in self._ask_prices[:limit]]

    def limit(self, *, is_buy: bool, price: int, amount: int) -> list[Change]:
        """Match an order up to its price, then place the rest; returns every changed level, in order."""
        changes, rest = self._take(is_buy=is_buy, amount=amount, limit=price)
        if rest:
            changes.append(self._set(is_buy, price, (self.bids if is_buy else self.asks).get(price, 0) + rest))
        return changes

    def market(self, *, is_buy: bool, amount: int) -> list[Change]:
        """Match an order at any price; what finds no other side is gone, as at an exchange."""
        return self._take(is_buy=is_buy, amount=amount, limit=None)[0]

    def cancel(self, *, is_bid: bool, price: int, amount: int) -> list[Change]:
        """Take up to ``amount`` off a level; nothing happens where there is no such level."""
        resting = (self.bids if is_bid else self.asks).get(price, 0)
        if not resting:
            return []
        return [self._set(is_bid, price, resting - min(amount, resting))]

    def _take(self, *, is_buy: bool, amount: int, limit: int | None) -> tuple[list[Change], int]:
        side = self.asks if is_buy else self.bids
        changes: list[Change] = []
        while amount:
            best = self.best_ask if is_buy else self.best_bid
            if best is None or (limit is not None and (best > limit if is_buy else best < limit)):
                break
            filled = min(amount, side[best])
            change = self._set(not is_buy, best, side[best] - filled)
            changes.append(Change(change.is_bid, change.price, change.amount, filled))
            amount -= filled
        return changes, amount

    def _set(self, is_bid: bool, price: int, amount: int) -> Change:
        side, prices = (self.bids, self._bid_prices) if is_bid else (self.asks, self._ask_prices)
        if not amount:
            del side[price]
            del prices[bisect_left(prices, price)]
        else:
            if price not in side:
                insort(prices, price)
            side[price] = amount
        return Change(is_bid, price, amount)
