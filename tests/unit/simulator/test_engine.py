"""What a market publishes: ids as at the real exchange, and updates that add up to the book."""

from __future__ import annotations

import re
from decimal import Decimal
from itertools import pairwise

import msgspec
import pytest

from collectors.simulator import MARKETS
from collectors.simulator.engine import ChangeEvent, DepthEvent, Engine, Event, QuoteEvent, TradeEvent
from collectors.simulator.market import Market, Scale, market_of
from collectors.simulator.truth import Truth
from collectors.simulator.wire import binance

START_MS = 1_800_000_000_000


def engine(native_id: str = "BTCUSDT", *, seed: int = 1, levels: int = 3000) -> Engine:
    return Engine(market_of(native_id), seed=seed, levels=levels, first_update_id=1000, first_trade_id=500)


def run(market: Engine, orders: int, every: int = 20) -> list[Event]:
    """Carry out orders, publishing depth after ``every`` of them and at the end."""
    events: list[Event] = []
    for number in range(orders):
        events.extend(market.order(START_MS + number))
        if number % every == every - 1 or number == orders - 1:
            depth = market.publish_depth(START_MS + number)
            events.extend([depth] if depth else [])
    return events


def of(events: list[Event], kind: type[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.parametrize("native_id", sorted(MARKETS))
def test_every_change_has_the_next_update_id_and_depth_events_cover_all_of_them(native_id: str) -> None:
    events = run(engine(native_id, levels=200), 2000)
    changes = [event for event in events if isinstance(event, ChangeEvent)]
    assert [change.update_id for change in changes] == list(range(1000, 1000 + len(changes)))
    last = 999
    for depth in (event for event in events if isinstance(event, DepthEvent)):
        assert depth.first_id == last + 1
        last = depth.last_id
    assert last == changes[-1].update_id


def test_depth_events_applied_to_the_first_book_give_the_book() -> None:
    market = engine()
    initial = market.state()
    bids, asks = dict(initial.bids), dict(initial.asks)
    for depth in run(market, 5000):
        if isinstance(depth, DepthEvent):
            for side, levels in ((bids, depth.bids), (asks, depth.asks)):
                for price, amount in levels:
                    if amount == "0.00000000":
                        side.pop(price, None)
                    else:
                        side[price] = amount
    final = market.state()
    assert bids == dict(final.bids)
    assert asks == dict(final.asks)


def test_the_truth_rebuilds_the_book_at_every_update_id() -> None:
    market = engine(levels=50)
    truth = Truth()
    truth.start(market.state())
    states = {market.update_id: market.state()}
    for number in range(500):
        for event in market.order(START_MS + number):
            truth.add(event, 0)
        states[market.update_id] = market.state()
    for book in truth.books_at("BTCUSDT", states):
        assert book.best(10_000) == (states[book.update_id].bids, states[book.update_id].asks)
    with pytest.raises(ValueError, match="expected 999 to"):
        truth.book_at("BTCUSDT", market.update_id + 1)


def test_quotes_are_the_touch_after_their_update_and_never_repeat() -> None:
    market = engine(levels=50)
    truth = Truth()
    truth.start(market.state())
    events = run(market, 2000)
    for event in events:
        truth.add(event, 0)
    quotes = [event for event in events if isinstance(event, QuoteEvent)]
    assert len(quotes) > 100
    assert all(a.update_id < b.update_id for a, b in pairwise(quotes))
    books = truth.books_at("BTCUSDT", [quote.update_id for quote in quotes])
    for quote, book in zip(quotes, books, strict=True):
        (bid,), (ask,) = book.best(1)
        assert (quote.bid_price, quote.bid_amount, quote.ask_price, quote.ask_amount) == (*bid, *ask)


def test_trade_ids_are_consecutive_and_equal_trades_do_occur() -> None:
    trades = [event for event in run(engine(), 20_000) if isinstance(event, TradeEvent)]
    assert [trade.trade_id for trade in trades] == list(range(500, 500 + len(trades)))
    assert {trade.is_buy for trade in trades} == {True, False}
    contents = [(trade.time, trade.is_buy, trade.price, trade.amount) for trade in trades]
    assert len(set(contents)) < len(contents), "without equal trades, a plain DISTINCT would pass the tests"


def test_what_was_traded_left_the_book() -> None:
    market = engine(levels=50)
    truth = Truth()
    truth.start(market.state())
    for number in range(300):
        before = market.state()
        events = list(market.order(START_MS + number))
        traded = sum(Decimal(event.amount) for event in events if isinstance(event, TradeEvent))
        taken = Decimal(0)
        for event in events:
            if isinstance(event, ChangeEvent) and any(
                isinstance(e, TradeEvent) and e.price == event.price for e in events
            ):
                side = dict(before.bids if event.is_bid else before.asks)
                taken += max(Decimal(side.get(event.price, "0")) - Decimal(event.amount), Decimal(0))
        assert taken == traded


@pytest.mark.parametrize("seed", range(3))
def test_books_keep_their_levels(seed: int) -> None:
    market = engine(seed=seed)
    for number in range(5000):
        list(market.order(START_MS + number))
        assert min(market.book.depth(is_bid=True), market.book.depth(is_bid=False)) >= 3000


def test_the_same_seed_gives_the_same_market_and_another_seed_another() -> None:
    assert run(engine(seed=7), 500) == run(engine(seed=7), 500)
    assert run(engine(seed=7), 500) != run(engine(seed=8), 500)


def test_numbers_on_the_wire_are_exact_and_have_eight_decimals() -> None:
    amount = re.compile(r"\d+\.\d{8}")
    for event in run(engine("XRPUSDT", levels=100), 1000):
        if isinstance(event, ChangeEvent):
            assert amount.fullmatch(event.price)
            assert amount.fullmatch(event.amount)
    scale = Scale("0.00001")
    assert scale.text(123_456_789) == "1234.56789000"
    assert scale.steps("1234.56789000") == 123_456_789
    with pytest.raises(ValueError, match="not a multiple"):
        scale.steps("0.000001")
    assert Scale("1").text(7) == "7.00000000"
    with pytest.raises(ValueError, match="power of ten"):
        Scale("0.05")


def test_events_have_the_shape_of_the_real_exchange() -> None:
    events = run(engine(levels=100), 500)
    keys: dict[str, set[str]] = {}
    for event in events:
        if not isinstance(event, ChangeEvent):
            data = msgspec.json.decode(binance.payload(event, skew_ms=250))
            keys.setdefault(binance.stream_kind(event), set()).update(data)
            assert data["s"] == "BTCUSDT"
            if isinstance(event, TradeEvent):
                assert (data["T"], data["m"]) == (event.time + 250, not event.is_buy)
    assert keys == {
        "trade": set("eEstpqTmM"),
        "bookTicker": set("usbBaA"),
        "depth@100ms": set("eEsUuba"),
    }


def test_an_unknown_symbol_is_told_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"NOPEUSDT.*BTCUSDT"):
        market_of("NOPEUSDT")
    assert isinstance(market_of("ETHUSDT"), Market)
