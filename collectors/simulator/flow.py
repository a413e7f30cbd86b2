"""Seeded random order flow: who trades at the simulated exchange."""

from __future__ import annotations

from random import Random

from collectors.simulator.book import Book, Change

_MARKET_SHARE = 0.12
_CANCEL_SHARE = 0.42
_LARGE_SHARE = 0.02
"""Share of market orders large enough to take several levels."""


def fill(book: Book, random: Random, *, price: int, amount: int, levels: int) -> None:
    """Place ``levels`` levels a side around ``price`` (ticks), dense at the touch and thinning out."""
    for is_bid in (True, False):
        distance, gap = 1, 1.0
        for _ in range(levels):
            at = price - distance if is_bid else price + distance
            if at <= 0:
                break
            book.limit(is_buy=is_bid, price=at, amount=draw_amount(random, amount))
            distance += 1 + int(random.expovariate(1 / gap))
            gap = min(gap * 1.001, 8.0)


def draw_amount(random: Random, mean: int) -> int:
    """An order's amount in steps, at least one: most are small, a few large."""
    return 1 + int(random.expovariate(1 / mean))


class Flow:
    """One order after the other on one book: limit orders, cancels, market orders, by chance of a seed.

    Keeps at least ``levels`` levels a side: while a side is short of them, orders behind its touch refill it.
    """

    __slots__ = ("_amount", "_book", "_levels", "_random")

    def __init__(self, book: Book, random: Random, *, amount: int, levels: int) -> None:
        self._book = book
        self._random = random
        self._amount = amount
        self._levels = levels

    def step(self) -> list[Change]:
        """Carry out the next order; returns the changed levels, none where it found nothing to do."""
        random, book = self._random, self._book
        is_bid = random.random() < 0.5
        reserve = self._levels + self._levels // 20
        for side in (is_bid, not is_bid):
            if book.depth(is_bid=side) < reserve:
                return self._behind(is_bid=side, reach=reserve * 4)
        chance = random.random()
        if chance < _MARKET_SHARE:
            mean = self._amount * 6 if random.random() < _LARGE_SHARE else self._amount
            return book.market(is_buy=is_bid, amount=draw_amount(random, mean))
        if chance < _MARKET_SHARE + _CANCEL_SHARE or book.depth(is_bid=is_bid) > reserve + reserve // 10:
            return self._cancel(is_bid=is_bid)
        return self._near(is_bid=is_bid)

    def _cancel(self, *, is_bid: bool) -> list[Change]:
        random, book = self._random, self._book
        index = min(int(random.expovariate(1 / 40)), book.depth(is_bid=is_bid) - 1)
        price = book.price_at(index, is_bid=is_bid)
        resting = (book.bids if is_bid else book.asks)[price]
        amount = resting if random.random() < 0.6 else random.randint(1, resting)
        return book.cancel(is_bid=is_bid, price=price, amount=amount)

    def _near(self, *, is_bid: bool) -> list[Change]:
        """A limit order around the touch: mostly behind it, sometimes into the spread, rarely through it."""
        random, book = self._random, self._book
        own, other = (book.best_bid, book.best_ask) if is_bid else (book.best_ask, book.best_bid)
        if own is None or other is None:
            return []
        spread = abs(other - own)
        toward = 1 if is_bid else -1
        chance = random.random()
        if chance < 0.03:
            price = other + toward * random.randint(0, 2)
        elif chance < 0.35 and spread > 1:
            price = own + toward * random.randint(1, spread - 1)
        else:
            price = own - toward * int(random.expovariate(1 / 60))
        return book.limit(is_buy=is_bid, price=max(price, 1), amount=draw_amount(random, self._amount))

    def _behind(self, *, is_bid: bool, reach: int) -> list[Change]:
        random, book = self._random, self._book
        own, other = (book.best_bid, book.best_ask) if is_bid else (book.best_ask, book.best_bid)
        touch = own if own is not None else (other or 1) + (-1 if is_bid else 1)
        price = touch - (1 if is_bid else -1) * random.randint(0, reach)
        return book.limit(is_buy=is_bid, price=max(price, 1), amount=draw_amount(random, self._amount))
