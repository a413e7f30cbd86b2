"""Books with a checksum: whether what was received is the exchange's book."""

from __future__ import annotations

from random import Random
from typing import Literal

import pytest

from collectors.decode.kraken import book_checksum
from collectors.events import BookEvent, Level
from collectors.record.checked import CheckedBook, Mismatch


def event(kind: Literal["snapshot", "update"], bids: list[Level], asks: list[Level], checksum: int | None) -> BookEvent:
    text = None if checksum is None else str(checksum)
    return BookEvent(
        "BTC/USD", None, "snapshot" if kind == "snapshot" else "update", None, None, None, bids, asks, text
    )


def best(side: dict[str, str], *, is_bid: bool) -> list[Level]:
    return sorted(side.items(), key=lambda level: float(level[0]), reverse=is_bid)


def history(seed: int, count: int) -> list[BookEvent]:
    """A whole book and updates, each with the checksum of what it leaves."""
    random = Random(seed)
    sides: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for distance in range(1, 30):
        sides[0][f"{1000 - distance}.5"] = f"{distance}.250"
        sides[1][f"{1000 + distance}.5"] = f"0.{distance:03d}"
    bids, asks = best(sides[0], is_bid=True), best(sides[1], is_bid=False)
    events = [event("snapshot", bids, asks, book_checksum(bids, asks))]
    for _ in range(count):
        changes: tuple[list[Level], list[Level]] = ([], [])
        for side, changed, sign in zip(sides, changes, (-1, 1), strict=True):
            price = f"{1000 + sign * random.randint(1, 40)}.5"
            amount = random.choice(("0.000", f"{random.randint(1, 9)}.000"))
            changed.append((price, amount))
            side[price] = amount
            if not float(amount):
                del side[price]
        checksum = book_checksum(best(sides[0], is_bid=True), best(sides[1], is_bid=False))
        events.append(event("update", *changes, checksum))
    return events


@pytest.mark.parametrize("seed", range(5))
def test_a_book_received_whole_fits_each_checksum(seed: int) -> None:
    book = CheckedBook(book_checksum, best=10, depth=1000)
    assert [book.apply(one) for one in history(seed, 300)] == [None] * 301


@pytest.mark.parametrize("seed", range(5))
def test_an_update_that_is_missing_shows_once_and_a_whole_book_mends_it(seed: int) -> None:
    events = history(seed, 300)
    prices = [{price for price, _ in one.bids + one.asks} for one in events]
    # One that changes the best levels, and that the next does not change again.
    gone = next(
        at
        for at in range(20, 300)
        if events[at].checksum != events[at - 1].checksum and not prices[at] & prices[at + 1]
    )
    book = CheckedBook(book_checksum, best=10, depth=1000)
    found = [book.apply(one) for one in events[:gone] + events[gone + 1 :]]
    wrong = [one for one in found if one is not None]
    assert len(wrong) == 1
    assert found.index(wrong[0]) >= gone
    assert isinstance(wrong[0], Mismatch)
    assert wrong[0].expected != wrong[0].found
    assert [book.apply(one) for one in events] == [None] * 301


def test_levels_beyond_the_depth_are_forgotten_as_the_exchange_forgets_them() -> None:
    book = CheckedBook(book_checksum, best=10, depth=2)
    asks = [("101", "1"), ("102", "1"), ("103", "1")]
    assert book.apply(event("snapshot", [], asks, book_checksum([], asks[:2]))) is None
    assert book.apply(event("update", [], [("101", "0")], book_checksum([], [("102", "1")]))) is None


def test_a_message_without_a_checksum_is_followed_and_not_judged() -> None:
    book = CheckedBook(book_checksum, best=10, depth=None)
    assert book.apply(event("snapshot", [("9", "1")], [], None)) is None
    assert book.apply(event("update", [("8", "2")], [], book_checksum([("9", "1"), ("8", "2")], []))) is None
