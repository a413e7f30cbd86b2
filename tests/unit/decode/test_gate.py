"""Gate's frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from collectors.decode import BookIds, Control, DecodeError
from collectors.decode.gate import DECODER as GATE
from collectors.events import BookEvent, Derivative, Quote, Trade

MS = 1_795_500_000_123
NS = MS * 1_000_000


def bare(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def frame(channel: str, result: Any, event: str = "update", **others: Any) -> bytes:
    head = {"time": MS // 1000, "time_ms": MS, "channel": channel, "event": event}
    return bare(head | others | {"result": result})


TRADE = {
    "id": 77,
    "id_market": 5,
    "create_time": MS // 1000,
    "create_time_ms": f"{MS}.2642",
    "side": "sell",
    "currency_pair": "BTC_USDT",
    "amount": "0.0100",
    "price": "61000.10",
    "range": "5-5",
}
OF_FUTURES = {
    "size": "-108",
    "id": 27,
    "create_time": 1,
    "create_time_ms": MS,
    "price": "61000.1",
    "contract": "BTC_USDT",
}
BEST = {"t": MS, "u": 90, "s": "BTC_USDT", "b": "61000.1", "B": "1.5", "a": "61000.2", "A": "3"}
FULL = {"t": MS, "full": True, "s": "ob.BTC_USDT.50", "u": 90, "b": [["61000.1", "1.5"]], "a": [["61000.2", "3"]]}
NEXT = {"t": MS, "s": "ob.BTC_USDT.50", "U": 91, "u": 95, "a": [["61000.2", "0"], ["61001", "2.50"]]}
UPDATE = {"t": MS, "e": "depthUpdate", "E": 1, "s": "BTC_USDT", "U": 91, "u": 95, "b": [["61000.1", "0"]], "a": []}
SIZES = {
    "t": MS,
    "s": "BTC_USDT",
    "U": 91,
    "u": 95,
    "b": [{"p": "61000.1", "s": 0}],
    "a": [{"p": "61000.2", "s": "1.5"}],
}
TICKER = {
    "contract": "BTC_USDT",
    "last": "61000.1",
    "funding_rate": "-0.000010",
    "mark_price": "61000.4",
    "index_price": "61000.8",
    "total_size": "73648",
}
DENIED = {"code": 2, "message": "unknown currency pair NO_USDT"}
FRAMES: dict[str, bytes] = {
    "trade": frame("spot.trades", TRADE),
    "trades": frame("spot.trades", [TRADE | {"side": "buy", "id": 78}, TRADE]),
    "futures' trades": frame("futures.trades", [OF_FUTURES, OF_FUTURES | {"size": 7, "id": 28}]),
    "quote": frame("spot.book_ticker", BEST),
    "quote one-sided": frame("spot.book_ticker", BEST | {"b": "", "B": ""}),
    "futures' quote": frame("futures.book_ticker", BEST | {"B": 37000, "A": 47061}),
    "snapshot": bare({"channel": "spot.obu", "result": FULL, "time_ms": MS, "event": "update"}),
    "update": bare({"channel": "spot.obu", "result": NEXT, "time_ms": MS, "event": "update"}),
    "update of the older kind": frame("spot.order_book_update", UPDATE),
    "snapshot of the older kind": frame("spot.order_book_update", UPDATE | {"full": True}),
    "futures' update": frame("futures.order_book_update", SIZES),
    "futures' snapshot": frame("futures.order_book_update", SIZES | {"full": True}),
    "tickers": frame("futures.tickers", [TICKER]),
    "ack": frame("spot.trades", {"status": "success"}, "subscribe", payload=["BTC_USDT", "ETH_USDT"], id=1),
    "ack of a book": frame("spot.obu", {"status": "success"}, "subscribe", payload=["ob.BTC_USDT.50"]),
    "ack of futures' book": frame("futures.order_book_update", {}, "subscribe", payload=["BTC_USDT", "100ms", "100"]),
    "ack of 2021": frame("spot.trades", {"status": "success"}, "subscribe"),
    "unsubscribed": frame("spot.trades", {"status": "success"}, "unsubscribe", payload=["BTC_USDT"]),
    "refused": frame("spot.trades", {"status": "fail"}, "subscribe", payload=["NO_USDT"], error=DENIED),
    "pong": frame("spot.pong", None, ""),
}


def test_each_frame_is_read_as_it_is_meant() -> None:
    time = NS + 264_200
    both = [("61000.1", "0")], [("61000.2", "1.5")]
    decoded = {name: list(GATE.decode(payload)) for name, payload in FRAMES.items()}
    assert {name: events for name, events in decoded.items() if events} == {
        "trade": [Trade("BTC_USDT", time, "77", False, "61000.10", "0.0100")],
        "trades": [
            Trade("BTC_USDT", time, "78", True, "61000.10", "0.0100"),
            Trade("BTC_USDT", time, "77", False, "61000.10", "0.0100"),
        ],
        "futures' trades": [
            Trade("futures.BTC_USDT", NS, "27", False, "61000.1", "108"),
            Trade("futures.BTC_USDT", NS, "28", True, "61000.1", "7"),
        ],
        "quote": [Quote("BTC_USDT", NS, 90, "61000.1", "1.5", "61000.2", "3")],
        "quote one-sided": [Quote("BTC_USDT", NS, 90, None, None, "61000.2", "3")],
        "futures' quote": [Quote("futures.BTC_USDT", NS, 90, "61000.1", "37000", "61000.2", "47061")],
        "snapshot": [BookEvent("BTC_USDT", NS, "snapshot", 90, 90, None, [("61000.1", "1.5")], [("61000.2", "3")])],
        "update": [BookEvent("BTC_USDT", NS, "update", 91, 95, None, [], [("61000.2", "0"), ("61001", "2.50")])],
        "update of the older kind": [BookEvent("BTC_USDT", NS, "update", 91, 95, None, [("61000.1", "0")], [])],
        "snapshot of the older kind": [BookEvent("BTC_USDT", NS, "snapshot", 95, 95, None, [("61000.1", "0")], [])],
        "futures' update": [BookEvent("futures.BTC_USDT", NS, "update", 91, 95, None, *both)],
        "futures' snapshot": [BookEvent("futures.BTC_USDT", NS, "snapshot", 95, 95, None, *both)],
        "tickers": [
            Derivative(
                native_id="futures.BTC_USDT",
                time=NS,
                funding_rate="-0.000010",
                open_interest="73648",
                mark_price="61000.4",
                index_price="61000.8",
            )
        ],
    }


def test_replies_are_told_from_data_and_from_each_other() -> None:
    said = {name: GATE.control(payload) for name, payload in FRAMES.items()}
    assert {name: control for name, control in said.items() if control} == {
        "ack": Control("subscribed", ("BTC_USDT", "ETH_USDT")),
        "ack of a book": Control("subscribed", ("BTC_USDT",)),
        "ack of futures' book": Control("subscribed", ("futures.BTC_USDT",)),
        "ack of 2021": Control("subscribed"),
        "unsubscribed": Control("unsubscribed", ("BTC_USDT",)),
        "refused": Control("refused", ("NO_USDT",), FRAMES["refused"].decode()),
        "pong": Control("other"),
    }


def test_the_order_of_a_frame_s_fields_does_not_matter() -> None:
    payload = bare({"result": BEST | {"note": "x" * 100}, "event": "update", "channel": "spot.book_ticker"})
    assert list(GATE.decode(payload)) == list(GATE.decode(FRAMES["quote"]))
    assert GATE.control(payload) is None
    assert not GATE.book_ids(payload)


def test_a_break_shows_in_the_ids() -> None:
    books = [FULL, NEXT, NEXT | {"U": 96, "u": 96}, NEXT | {"U": 99, "u": 101}]
    assert [one for book in books for one in GATE.book_ids(frame("spot.obu", book))] == [
        BookIds("BTC_USDT", 90, 90, None, is_snapshot=True),
        BookIds("BTC_USDT", 91, 95, None),
        BookIds("BTC_USDT", 96, 96, None),
        BookIds("BTC_USDT", 99, 101, None),
    ]


@pytest.mark.parametrize("number", ["0.000000000000000001", "9.12E-7", "123456789012345678.123456789012345678", "1e5"])
def test_every_digit_stays_as_it_was_sent(number: str) -> None:
    (trade,) = GATE.decode(frame("spot.trades", TRADE | {"price": number}))
    (quote,) = GATE.decode(FRAMES["futures' quote"].replace(b"37000", number.encode()))
    (book,) = GATE.decode(frame("spot.obu", NEXT | {"b": [[number, number]]}))
    assert isinstance(trade, Trade)
    assert isinstance(quote, Quote)
    assert isinstance(book, BookEvent)
    assert trade.price == quote.bid_amount == number
    assert book.bids == [(number, number)]


def test_an_unknown_symbol_passes_under_its_own_name() -> None:
    (event,) = GATE.decode(frame("spot.trades", TRADE | {"currency_pair": "NEW_USDC"}))
    assert event.native_id == "NEW_USDC"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        frame("spot.candlesticks", {}),
        frame("options.trades", []),
        frame("spot.trades", TRADE, "all"),
        frame("spot.trades", TRADE | {"price": 1.5}),
        frame("spot.trades", TRADE | {"create_time_ms": "soon"}),
        frame("spot.obu", {"t": MS, "s": "ob.BTC_USDT.50", "u": 95}),
        frame("spot.obu", NEXT | {"s": "BTC_USDT"}),
        frame("spot.obu", NEXT | {"a": [["1"]]}),
        frame("spot.obu", NEXT | {"U": 2**63}),
        frame("futures.order_book_update", SIZES | {"b": [{"p": "1"}]}),
        frame("futures.tickers", [{"contract": "BTC_USDT"}]),
        frame("spot.obu", NEXT)[:-3],
        gzip.compress(frame("spot.obu", NEXT))[:-9],
    ],
)
def test_what_is_no_frame_of_the_exchange_raises_and_says_what_was_found(payload: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        GATE.decode(payload)
    assert str(caught.value)


@pytest.mark.captures
def test_recorded_traffic_of_2021_is_counted_as_by_hand(captures: Path) -> None:
    decoded: Counter[str] = Counter()
    raw: Counter[str] = Counter()
    with gzip.open(captures / "cryptofeed" / "GATEIO.ws.1.0.gz", "rt") as lines:
        for line in lines:
            stamp, _, text = line.rstrip("\n").partition(": ")
            if not stamp.replace(".", "").isdigit():
                continue  # what was sent
            message = json.loads(text)
            raw[message["channel"] if message["event"] == "update" else "control"] += 1
            try:
                for event in GATE.decode(text.encode()):
                    decoded[type(event).__name__] += 1
            except DecodeError:
                decoded["refused"] += 1
    assert decoded["Trade"] == raw["spot.trades"] == 9
    assert decoded["BookEvent"] == raw["spot.order_book_update"] == 172
    # Channels that are not recorded: candles and spot's ticker.
    assert decoded["refused"] == raw["spot.candlesticks"] + raw["spot.tickers"] == 36
