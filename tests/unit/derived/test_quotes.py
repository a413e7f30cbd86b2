"""Derived quotes against the plain reading of what a book at each event is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from collectors.derived.quotes import Best, Event, Quote, Start, chain_quotes, epoch_quotes

T0 = datetime(2026, 11, 20, tzinfo=UTC)
Side = dict[Decimal, Decimal]
amounts = st.integers(0, 3).map(Decimal)
bids = st.dictionaries(st.integers(95, 100).map(Decimal), amounts, max_size=4)
asks = st.dictionaries(st.integers(101, 106).map(Decimal), amounts, max_size=4)


def event(
    sides: tuple[Side, Side],
    *,
    first: int | None = None,
    last: int | None = None,
    is_snapshot: bool = False,
    second: float = 0,
    ordinal: int = 1,
) -> Event:
    at = T0 + timedelta(seconds=second)
    levels = [list(part) for side in sides for part in (side.keys(), side.values())]
    return Event(at, at, 1, "ing1", ordinal, first, last, is_snapshot, levels[0], levels[1], levels[2], levels[3])


def best_of(bids: Side, asks: Side) -> Best:
    left = {price: amount for price, amount in bids.items() if amount}
    right = {price: amount for price, amount in asks.items() if amount}
    bid, ask = max(left, default=None), min(right, default=None)
    return bid, left[bid] if bid is not None else None, ask, right[ask] if ask is not None else None


def told(bests: Sequence[tuple[Event, Best | None]], before: Best | None) -> list[Quote]:
    """Those that differ from the one before and are known."""
    quotes = []
    for at, best in bests:
        if best is not None and best != before:
            quotes.append(Quote(at, best))
        before = best
    return quotes


def chain_best(events: Sequence[Event], target: int) -> Best | None:
    """By the definition: the newest amounts on top of the newest snapshot, if all ids between are there."""
    snapshots = [e for e in events if e.is_snapshot and e.last_id is not None and e.last_id <= target]
    if not snapshots:
        return None
    base = max(snapshots, key=lambda e: e.last_id or 0)
    assert base.last_id is not None
    sides: tuple[Side, Side] = (
        dict(zip(base.bid_prices, base.bid_amounts, strict=True)),
        dict(zip(base.ask_prices, base.ask_amounts, strict=True)),
    )
    missing = set(range(base.last_id + 1, target + 1))
    for e in events:
        assert e.last_id is not None
        if not e.is_snapshot and base.last_id < e.last_id <= target:
            missing -= set(range(e.first_id if e.first_id is not None else e.last_id + 1, e.last_id + 1))
            sides[0].update(zip(e.bid_prices, e.bid_amounts, strict=True))
            sides[1].update(zip(e.ask_prices, e.ask_amounts, strict=True))
    best = best_of(*sides)
    low, high = min(base.bid_prices, default=None), max(base.ask_prices, default=None)
    is_beyond = (low is not None and (best[0] is None or best[0] < low)) or (
        high is not None and (best[2] is None or best[2] > high)
    )
    return None if missing or is_beyond else best


changes = st.lists(st.tuples(bids, asks), min_size=30, max_size=30)
spans = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 5), st.sampled_from("uuuus")), max_size=30)


@given(changes, spans, st.integers(0, 30))
def test_quotes_of_a_chain_are_those_of_the_book_at_each_id(
    changed: list[tuple[Side, Side]], drawn: list[tuple[int, int, str]], split: int
) -> None:
    books: list[tuple[Side, Side]] = [({Decimal(98): Decimal(1)}, {Decimal(103): Decimal(1)})]
    for sides in changed:
        books.append(({**books[-1][0], **sides[0]}, {**books[-1][1], **sides[1]}))
    books = [tuple({p: a for p, a in side.items() if a} for side in book) for book in books]  # type: ignore[misc]
    events = []
    for last, length, kind in drawn:
        if kind == "s":
            events.append(event(books[last], last=last, is_snapshot=True))
            continue
        first = max(1, last - length)
        merged: tuple[Side, Side] = ({}, {})
        for sides in changed[first - 1 : last]:
            merged[0].update(sides[0])
            merged[1].update(sides[1])
        events.append(event(merged, first=first, last=last))
    events.sort(key=lambda e: (e.last_id, e.is_snapshot, e.first_id or 0))
    groups = [(last or 0, next(group)) for last, group in groupby(events, key=lambda e: e.last_id)]
    bests = [(first, chain_best(events, last)) for last, first in groups]
    assert list(chain_quotes(None, events)) == told(bests, None)
    # Begun in the middle, from what is known there, it goes on the same.
    known = [last for last, _ in groups if last <= split and chain_best(events, last) is not None]
    if known and known[-1] == max((last for last, _ in groups if last <= split), default=0):
        at = known[-1]
        base = max((e for e in events if e.is_snapshot and (e.last_id or 0) <= at), key=lambda e: e.last_id or 0)
        start = Start(
            *books[at], at, base.last_id, min(base.bid_prices, default=None), max(base.ask_prices, default=None)
        )
        later = [e for e in events if (e.last_id or 0) > at]
        rest = [one for last, one in zip((last for last, _ in groups), bests, strict=True) if last > at]
        assert list(chain_quotes(start, later)) == told(rest, chain_best(events, at))


lives = st.lists(
    st.tuples(bids, asks, st.sampled_from("uuuus"), st.none() | st.integers(1, 12), st.sampled_from([0.1, 1, 30, 70])),
    max_size=25,
)


def epoch_best(events: Sequence[Event]) -> Best | None:
    """By the definition, after the last of the events."""
    places = [n for n, e in enumerate(events) if e.is_snapshot]
    if not places:
        return None
    base = events[places[-1]]
    counted = []
    for n, e in enumerate(events):
        if e.is_snapshot:
            continue
        if e.last_id is not None and base.last_id is not None:
            if e.last_id > base.last_id and e.received_at > base.received_at - timedelta(minutes=1):
                counted.append(e)
        elif n > places[-1]:
            counted.append(e)
    sides: tuple[Side, Side] = ({}, {})
    for e in (base, *counted):
        sides[0].update(zip(e.bid_prices, e.bid_amounts, strict=True))
        sides[1].update(zip(e.ask_prices, e.ask_amounts, strict=True))
    return best_of(*sides)


@given(lives, st.integers(0, 25), st.booleans())
def test_quotes_of_a_connection_are_those_of_its_book_after_each_event(
    drawn: list[tuple[Side, Side, str, int | None, float]], split: int, is_new: bool
) -> None:
    events: list[Event] = []
    second = 0.0
    for n, (left, right, kind, last, pause) in enumerate(drawn):
        second += pause
        events.append(event((left, right), last=last, is_snapshot=kind == "s", second=second, ordinal=n))
    bests = [epoch_best(events[: n + 1]) for n in range(len(events))]
    # An update that the snapshot has already is no event of the book.
    pairs = list(zip(events, bests, strict=True))
    assert list(epoch_quotes(None, events, is_new=True)) == told(pairs, None)
    early, late = events[:split], events[split:]
    places = [n for n, e in enumerate(early) if e.is_snapshot]
    if places and late:
        base = early[places[-1]]
        sides: tuple[Side, Side] = ({}, {})
        counted = [
            e
            for n, e in enumerate(early)
            if not e.is_snapshot
            and (
                e.last_id > base.last_id and e.received_at > base.received_at - timedelta(minutes=1)
                if e.last_id is not None and base.last_id is not None
                else n > places[-1]
            )
        ]
        for e in (base, *counted):
            sides[0].update(zip(e.bid_prices, e.bid_amounts, strict=True))
            sides[1].update(zip(e.ask_prices, e.ask_amounts, strict=True))
        left, right = ({p: a for p, a in side.items() if a} for side in sides)
        begun = Start(left, right, snapshot_id=base.last_id)
        rest = pairs[len(early) :]
        expected = told(rest, None if is_new else bests[split - 1])
        assert list(epoch_quotes(begun, late, is_new=is_new, before=early)) == expected


def test_every_digit_of_a_price_survives() -> None:
    price = Decimal("0.1234567890123456789012345678901234")
    start = event(({price: Decimal(1)}, {Decimal(1): Decimal(1)}), last=1, is_snapshot=True)
    (quote,) = chain_quotes(None, [start])
    assert str(quote.best[0]) == str(price)


def test_ids_that_begin_anew_among_older_ones_tell_nothing() -> None:
    book = ({Decimal(1): Decimal(1)}, {Decimal(2): Decimal(1)})
    events = [
        event(book, last=10, is_snapshot=True, second=0),
        event(({Decimal(1): Decimal(2)}, {}), first=11, last=11, second=1),
        event(({Decimal(1): Decimal(3)}, {}), first=12, last=12, second=-500),
        event(({Decimal(1): Decimal(4)}, {}), first=13, last=13, second=2),
    ]
    assert [quote.best[1] for quote in chain_quotes(None, events)] == [1, 2]


def test_whoever_takes_the_lead_tells_its_book_with_its_first_event_whatever_that_changes() -> None:
    start = Start({Decimal(1): Decimal(1)}, {Decimal(2): Decimal(1)})
    nothing = event(({}, {}))
    told = [quote.best for quote in epoch_quotes(start, [nothing], is_new=True)]
    assert told == [(Decimal(1), Decimal(1), Decimal(2), Decimal(1))]
    assert list(epoch_quotes(start, [nothing], is_new=False)) == []
