"""Bybit's frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from collectors.decode import BookIds, Control, DecodeError, decoder
from collectors.events import BookEvent, Derivative, Event, Liquidation, Quote, Trade

BYBIT = decoder("bybit")
MS = 1_795_500_000_123
NS = MS * 1_000_000


def frame(topic: str, data: object, type_: str = "snapshot", **others: Any) -> bytes:
    return json.dumps({"topic": topic, "type": type_, "ts": MS + 5, "data": data, **others}).replace(" ", "").encode()


TRADE = {"T": MS, "s": "BTCUSDT", "S": "Buy", "v": "0.010", "p": "61000.10", "L": "PlusTick", "i": "7f-1", "BT": False}
BOOK = {"s": "BTCUSDT", "b": [["61000.10", "1.5"]], "a": [["61000.20", "3"], ["61001", "0.5"]], "u": 900, "seq": 77}
UPDATE = {"s": "BTCUSDT", "b": [], "a": [["61001", "0"]], "u": 901, "seq": 80}
BEST = BOOK | {"a": [["61000.20", "3"]]}
TICKER = {
    "symbol": "BTCUSDT",
    "lastPrice": "61000.1",
    "markPrice": "61000.15",
    "indexPrice": "61000.30",
    "openInterest": "5000.125",
    "fundingRate": "-0.000012",
    "nextFundingTime": str(MS + 1),
    "bid1Price": "61000.10",
}
FORCED = {"T": MS, "s": "BTCUSDT", "S": "Buy", "v": "20", "p": "60000"}

FRAMES: dict[str, bytes] = {
    "trades": frame("publicTrade.BTCUSDT", [TRADE, TRADE | {"S": "Sell", "i": "7f-2", "seq": 9}]),
    "quote": frame("orderbook.1.BTCUSDT", BEST, cts=MS),
    "one-sided quote": frame("orderbook.1.BTCUSDT", BEST | {"b": []}),
    "snapshot": frame("orderbook.1000.BTCUSDT", BOOK, cts=MS),
    "update": frame("orderbook.1000.BTCUSDT", UPDATE, "delta", cts=MS),
    "ticker": frame("tickers.BTCUSDT", TICKER, cs=1),
    "changed ticker": frame("tickers.BTCUSDT", {"symbol": "BTCUSDT", "openInterest": "5000.126"}, "delta", cs=2),
    "liquidations": frame("allLiquidation.BTCUSDT", [FORCED, FORCED | {"S": "Sell", "s": "NEWUSDT"}]),
    "acknowledged": b'{"success":true,"ret_msg":"subscribe","conn_id":"c-1","req_id":"1","op":"subscribe"}',
    "unsubscribed": b'{"success":true,"ret_msg":"","conn_id":"c-1","req_id":"2","op":"unsubscribe"}',
    "refused": b'{"success":false,"ret_msg":"error:handler not found,topic:publicTrade.NOSUCH","op":"subscribe"}',
    "pong": b'{"success":true,"ret_msg":"pong","conn_id":"c-1","req_id":"3","op":"ping"}',
    "other pong": b'{"args":["1795500000123"],"op":"pong"}',
}
EXPECTED: dict[str, list[Event]] = {
    "trades": [
        Trade("BTCUSDT", NS, "7f-1", True, "61000.10", "0.010"),
        Trade("BTCUSDT", NS, "7f-2", False, "61000.10", "0.010"),
    ],
    "quote": [Quote("BTCUSDT", NS, 900, "61000.10", "1.5", "61000.20", "3")],
    "one-sided quote": [Quote("BTCUSDT", NS + 5_000_000, 900, None, None, "61000.20", "3")],
    "snapshot": [
        BookEvent(
            "BTCUSDT", NS, "snapshot", 900, 900, None, [("61000.10", "1.5")], [("61000.20", "3"), ("61001", "0.5")]
        )
    ],
    "update": [BookEvent("BTCUSDT", NS, "update", 901, 901, None, [], [("61001", "0")])],
    "ticker": [
        Derivative(
            native_id="BTCUSDT",
            time=NS + 5_000_000,
            funding_rate="-0.000012",
            funding_time=NS + 1_000_000,
            open_interest="5000.125",
            mark_price="61000.15",
            index_price="61000.30",
        )
    ],
    "changed ticker": [Derivative(native_id="BTCUSDT", time=NS + 5_000_000, open_interest="5000.126")],
    "liquidations": [
        Liquidation("BTCUSDT", NS, None, False, "60000", "20"),
        Liquidation("NEWUSDT", NS, None, True, "60000", "20"),
    ],
}
CONTROLS = {
    "acknowledged": Control("subscribed"),
    "unsubscribed": Control("unsubscribed"),
    "refused": Control("refused", ("NOSUCH",), "error:handler not found,topic:publicTrade.NOSUCH"),
    "pong": Control("other"),
    "other pong": Control("other"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_each_frame_is_read_exactly_however_it_is_laid_out(name: str) -> None:
    payload = FRAMES[name]
    turned = json.dumps(dict(reversed(json.loads(payload).items())) | {"new": {"deep": [1]}}, indent=1).encode()
    for one in (payload, turned):
        assert list(BYBIT.decode(one)) == EXPECTED.get(name, [])
        assert BYBIT.control(one) == CONTROLS.get(name)
        assert list(BYBIT.book_ids(one)) == list(BYBIT.book_ids(payload))


def test_a_missing_update_and_a_new_count_show_in_the_ids() -> None:
    late = frame("orderbook.1000.BTCUSDT", UPDATE | {"u": 903}, "delta")
    anew = frame("orderbook.1000.BTCUSDT", BOOK | {"u": 1})
    assert list(BYBIT.book_ids(FRAMES["snapshot"])) == [BookIds("BTCUSDT", 900, 900, None, is_snapshot=True)]
    assert list(BYBIT.book_ids(FRAMES["update"])) == [BookIds("BTCUSDT", 901, 901, None)]
    assert list(BYBIT.book_ids(late)) == [BookIds("BTCUSDT", 903, 903, None)]
    assert list(BYBIT.book_ids(anew)) == [BookIds("BTCUSDT", 1, 1, None, is_snapshot=True)]
    assert not BYBIT.book_ids(FRAMES["quote"])


def test_a_ticker_without_news_of_ours_yields_nothing() -> None:
    assert list(BYBIT.decode(frame("tickers.BTCUSDT", {"symbol": "BTCUSDT", "bid1Price": "1"}, "delta"))) == []
    assert list(BYBIT.decode(frame("tickers.BTCUSDT", {"symbol": "BTCUSDT", "nextFundingTime": "0"}, "delta"))) == []


@pytest.mark.parametrize("number", ["0.000000000000000001", "123456789012345678.123456789012345678", "1e-18", "1E+5"])
def test_every_digit_stays_as_it_was_sent(number: str) -> None:
    assert list(BYBIT.decode(frame("publicTrade.BTCUSDT", [TRADE | {"p": number, "v": number}]))) == [
        Trade("BTCUSDT", NS, "7f-1", True, number, number)
    ]
    assert list(BYBIT.decode(frame("orderbook.200.BTCUSDT", UPDATE | {"b": [[number, number]]}, "delta", cts=MS))) == [
        BookEvent("BTCUSDT", NS, "update", 901, 901, None, [(number, number)], [("61001", "0")])
    ]


@pytest.mark.parametrize("ms", [0, 10**15])
def test_odd_times_are_kept(ms: int) -> None:
    assert [e.time for e in BYBIT.decode(frame("publicTrade.BTCUSDT", [TRADE | {"T": ms}]))] == [ms * 1_000_000]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[]",
        b"pong",
        frame("kline.1.BTCUSDT", []),
        frame("orderbook.rpi.BTCUSDT", BOOK),
        frame("publicTrade.BTCUSDT", TRADE),
        frame("publicTrade.BTCUSDT", [TRADE | {"S": "None"}]),
        frame("publicTrade.BTCUSDT", [TRADE | {"p": 61000.1}]),
        frame("publicTrade.BTCUSDT", [{key: value for key, value in TRADE.items() if key != "v"}]),
        frame("orderbook.1.BTCUSDT", BEST, "delta"),
        frame("orderbook.1.BTCUSDT", BOOK),
        frame("orderbook.1000.BTCUSDT", BOOK, "other"),
        frame("orderbook.1000.BTCUSDT", BOOK | {"u": 2**63}),
        frame("orderbook.1000.BTCUSDT", BOOK | {"b": [["1", "2", "3"]]}),
        FRAMES["trades"][:-1],
        b'{"op":"new"}',
    ],
)
def test_what_is_not_documented_is_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        BYBIT.decode(payload)
