"""The matching book: never crossed, nothing made or lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from collectors.simulator.book import Book, Change

Order = tuple[str, bool, int, int]
orders = st.lists(
    st.tuples(st.sampled_from(["limit", "market", "cancel"]), st.booleans(), st.integers(90, 110), st.integers(1, 50)),
    max_size=80,
)


def carry_out(book: Book, order: Order) -> list[Change]:
    kind, is_buy, price, amount = order
    if kind == "limit":
        return book.limit(is_buy=is_buy, price=price, amount=amount)
    if kind == "market":
        return book.market(is_buy=is_buy, amount=amount)
    return book.cancel(is_bid=is_buy, price=price, amount=amount)


@given(orders)
def test_a_book_is_never_crossed_not_even_between_two_changes_of_one_order(todo: list[Order]) -> None:
    book = Book()
    seen: tuple[dict[int, int], dict[int, int]] = ({}, {})  # bids, asks as told by the changes alone
    for order in todo:
        for change in carry_out(book, order):
            side = seen[0 if change.is_bid else 1]
            side[change.price] = change.amount
            if not change.amount:
                del side[change.price]
            assert not seen[0] or not seen[1] or max(seen[0]) < min(seen[1])
        assert seen == (book.bids, book.asks)


@given(orders)
def test_amounts_are_conserved(todo: list[Order]) -> None:
    book = Book()
    placed = filled = cancelled = 0
    for order in todo:
        kind, is_buy, price, amount = order
        before = (book.bids if is_buy else book.asks).get(price, 0)
        changes = carry_out(book, order)
        traded = sum(change.filled for change in changes)
        filled += traded
        if kind == "limit":
            placed += amount - traded
        elif kind == "cancel":
            cancelled += min(amount, before)
    assert sum(book.bids.values()) + sum(book.asks.values()) == placed - cancelled - filled


@given(orders)
def test_the_best_levels_come_first_on_both_sides(todo: list[Order]) -> None:
    book = Book()
    for order in todo:
        carry_out(book, order)
    assert book.top(5, is_bid=True) == sorted(book.bids.items(), reverse=True)[:5]
    assert book.top(5, is_bid=False) == sorted(book.asks.items())[:5]
    assert book.best_bid == max(book.bids, default=None)
    assert book.best_ask == min(book.asks, default=None)


def test_an_order_takes_the_other_side_level_by_level_and_rests_with_what_is_left() -> None:
    book = Book()
    book.limit(is_buy=False, price=101, amount=5)
    book.limit(is_buy=False, price=102, amount=5)
    assert book.limit(is_buy=True, price=102, amount=12) == [
        Change(False, 101, 0, 5),
        Change(False, 102, 0, 5),
        Change(True, 102, 2, 0),
    ]
