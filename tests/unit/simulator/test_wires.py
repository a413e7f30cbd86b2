"""Every simulated wire format: its messages mean to the exchange's decoder what happened, and nothing else."""

from __future__ import annotations

import pytest
from msgspec import structs

from collectors.decode import DecodeError, decoder
from collectors.events import BookEvent, Event, Quote, Trade
from collectors.simulator.engine import ChangeEvent, DepthEvent, Engine, PublicEvent, QuoteEvent, TradeEvent
from collectors.simulator.market import market_of
from collectors.simulator.wire import SIMULATED, Wire, wire

NOW_MS = 1_795_500_000_123


def made(exchange: str) -> tuple[Wire, Engine]:
    """A wire format and a market in motion behind it."""
    of = wire(exchange)
    engine = Engine(of.market(market_of("BTCUSDT")), seed=1, levels=50, first_update_id=10**15, first_trade_id=10**12)
    of.book = lambda _, limit: engine.state(limit)
    return of, engine


def happened(engine: Engine) -> list[PublicEvent]:
    """What 20 orders lead to, and the update of the book behind them."""
    events = [event for _ in range(20) for event in engine.order(NOW_MS) if not isinstance(event, ChangeEvent)]
    update = engine.publish_depth(NOW_MS + 1)
    return events if update is None else [*events, update]


def as_bytes(payload: str | bytes) -> bytes:
    return payload.encode() if isinstance(payload, str) else payload


def told(of: Wire, event: PublicEvent, number: int) -> Event:
    """What an exchange tells of an event; its book's update is the ``number``-th."""
    match event:
        case TradeEvent():
            trade_id = of.trade_id(event.trade_id)
            return Trade(event.native_id, event.time * 10**6, trade_id, event.is_buy, event.price, event.amount)
        case QuoteEvent():
            time = event.time * 10**6 if of.quote_times else None
            sides = (event.bid_price, event.bid_amount, event.ask_price, event.ask_amount)
            return Quote(event.native_id, time, event.update_id if of.quote_ids else None, *sides)
        case DepthEvent():
            first, last = {
                "changes": (event.first_id, event.last_id),
                "messages": (number, number),
                "none": (None, None),
            }[of.update_ids]
            time = event.time * 10**6
            return BookEvent(event.native_id, time, "update", first, last, None, event.bids, event.asks)


def plain(event: Event) -> Event:
    """Without what the truth does not hold: orders' ids, checksums; the id before an update as its first one."""
    if isinstance(event, Trade):
        return structs.replace(event, buy_order_id=None, sell_order_id=None)
    if isinstance(event, BookEvent):
        first = event.first_id if event.previous_id is None else event.previous_id + 1
        return structs.replace(event, first_id=first, previous_id=None, checksum=None)
    return event


@pytest.mark.parametrize("exchange", SIMULATED)
def test_each_message_means_what_happened(exchange: str) -> None:
    of, engine = made(exchange)
    streams = of.streams([engine.market])
    kinds = set()
    for number in range(1, 40):
        for event in happened(engine):
            sent = of.outgoing(event)
            if not sent.stream:
                continue  # this exchange does not tell of it
            assert sent.stream in streams
            payload = as_bytes(sent.render(0, ""))
            assert [plain(one) for one in decoder(exchange).decode(payload)] == [told(of, event, number)]
            kinds.add(type(event))
    assert DepthEvent in kinds
    assert TradeEvent in kinds


@pytest.mark.parametrize("exchange", [one for one in SIMULATED if wire(one).sends_snapshots or wire(one).answers_late])
def test_a_whole_book_is_the_book(exchange: str) -> None:
    of, engine = made(exchange)
    for event in happened(engine):
        of.outgoing(event)
    state = engine.state(of.depth)
    (stream,) = of.books([engine.market])
    (found,) = decoder(exchange).decode(as_bytes(of.snapshot(state, stream, NOW_MS, "")))
    assert isinstance(found, BookEvent)
    assert (found.native_id, found.kind) == (state.native_id, "snapshot")
    assert (found.bids, found.asks) == (state.bids, state.asks)
    assert found.last_id == {"changes": state.update_id, "messages": 1, "none": None}[of.update_ids]


@pytest.mark.parametrize("exchange", SIMULATED)
def test_a_message_cut_in_half_is_none(exchange: str) -> None:
    of, engine = made(exchange)
    for event in happened(engine):
        sent = of.outgoing(event)
        if sent.stream:
            payload = sent.render(0, "")
            with pytest.raises(DecodeError):
                decoder(exchange).decode(as_bytes(payload[: len(payload) // 2]))


@pytest.mark.parametrize("exchange", SIMULATED)
def test_what_is_no_request_is_answered_and_begins_nothing(exchange: str) -> None:
    of, engine = made(exchange)
    answer = of.answer(of.connect("/", {}), "no request", of.streams([engine.market]))
    assert answer.replies
    assert not answer.subscribe
    (reply,) = answer.replies
    control = decoder(exchange).control(as_bytes(reply))
    assert control is not None
    assert control.kind == "refused"
