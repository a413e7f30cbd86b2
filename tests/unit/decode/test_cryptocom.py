"""Crypto.com's frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from collectors.decode import BookIds, Control, DecodeError, decoder
from collectors.events import BookEvent, Derivative, Event, Quote, Trade

CRYPTOCOM = decoder("cryptocom")
MS = 1_795_500_000_123
NS = MS * 1_000_000


def frame(channel: str, subscription: str, *data: dict[str, Any], of: str = "BTC_USD", **others: Any) -> bytes:
    result = {"instrument_name": of, "subscription": subscription, "channel": channel, **others, "data": data}
    return json.dumps({"id": -1, "method": "subscribe", "code": 0, "result": result}, separators=(",", ":")).encode()


TRADE: dict[str, Any] = {"d": "77", "t": MS, "p": "61000.10", "q": "0.01000", "s": "BUY", "i": "BTC_USD", "m": "4"}
TICKER: dict[str, Any] = {
    "h": "62000",
    "l": "60000",
    "a": "61000.10",
    "b": "61000.10",
    "bs": "1.5",
    "k": "61000.20",
    "ks": "3",
    "i": "BTCUSD-PERP",
    "oi": "5000.125",
    "t": MS,
}
WHOLE: dict[str, Any] = {
    "asks": [["61000.20", "3", "2"], ["61001", "0.5", "1"]],
    "bids": [["61000.10", "1.5", "1"]],
    "t": MS + 7,
    "tt": MS,
    "u": "900",
    "cs": 1985787755,
}
UPDATE: dict[str, Any] = {
    "update": {"asks": [["61001", "0", "0"]], "bids": []},
    "t": MS + 7,
    "tt": MS,
    "u": 907,
    "pu": 900,
    "cs": -78,
}
QUIET: dict[str, Any] = {"update": {"asks": [], "bids": []}, "t": MS, "u": 907, "pu": 907}
FRAMES: dict[str, bytes] = {
    "trades": frame("trade", "trade.BTC_USD", TRADE, TRADE | {"d": "78", "s": "SELL"}),
    "ticker": frame("ticker", "ticker.BTCUSD-PERP", TICKER, of="BTCUSD-PERP"),
    "one-sided ticker of spot": frame("ticker", "ticker.BTC_USD", TICKER | {"i": "BTC_USD", "b": None, "oi": "0"}),
    "snapshot": frame("book", "book.BTC_USD.50", WHOLE, depth=50),
    "update": frame("book.update", "book.BTC_USD.50", UPDATE, depth=50),
    "nothing new": frame("book.update", "book.BTC_USD.50", QUIET, depth=50),
    "first": frame("trade", "trade.BTC_USD", TRADE).replace(b'"id":-1', b'"id":-9223372036854775808'),
    "acknowledged": b'{"id":1,"method":"subscribe","code":0}',
    "unsubscribed": b'{"id":2,"method":"unsubscribe","code":0}',
    "refused": b'{"id":1,"code":10004,"method":"subscribe","message":"invalid channel {\\"channels\\":[\\"trade.NO_SUCH'
    b'\\"]}"}',
    "heartbeat": b'{"id":1795500000123,"method":"public/heartbeat","code":0}',
}
EXPECTED: dict[str, list[Event]] = {
    "trades": [
        Trade("BTC_USD", NS, "77", True, "61000.10", "0.01000"),
        Trade("BTC_USD", NS, "78", False, "61000.10", "0.01000"),
    ],
    "first": [Trade("BTC_USD", NS, "77", True, "61000.10", "0.01000")],
    "ticker": [
        Quote("BTCUSD-PERP", NS, None, "61000.10", "1.5", "61000.20", "3"),
        Derivative(native_id="BTCUSD-PERP", time=NS, open_interest="5000.125"),
    ],
    "one-sided ticker of spot": [Quote("BTC_USD", NS, None, None, None, "61000.20", "3")],
    "snapshot": [
        BookEvent(
            "BTC_USD",
            NS,
            "snapshot",
            None,
            900,
            None,
            [("61000.10", "1.5")],
            [("61000.20", "3"), ("61001", "0.5")],
            "1985787755",
        )
    ],
    "update": [BookEvent("BTC_USD", NS, "update", None, 907, 900, [], [("61001", "0")], "-78")],
    "nothing new": [BookEvent("BTC_USD", NS, "update", None, 907, 907, [], [])],
}
CONTROLS = {
    "acknowledged": Control("subscribed"),
    "unsubscribed": Control("unsubscribed"),
    "refused": Control("refused", ("NO_SUCH",), '10004 invalid channel {"channels":["trade.NO_SUCH"]}'),
    "heartbeat": Control("other"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_each_frame_is_read_exactly_however_it_is_laid_out(name: str) -> None:
    payload = FRAMES[name]
    turned = json.dumps(dict(reversed(json.loads(payload).items())) | {"new": {"deep": [1]}}, indent=1).encode()
    for one in (payload, turned):
        assert list(CRYPTOCOM.decode(one)) == EXPECTED.get(name, [])
        assert CRYPTOCOM.control(one) == CONTROLS.get(name)
        assert list(CRYPTOCOM.book_ids(one)) == list(CRYPTOCOM.book_ids(payload))


def test_a_missing_update_shows_in_the_ids() -> None:
    late = frame("book.update", "book.BTC_USD.50", UPDATE | {"u": 950, "pu": 940}, depth=50)
    assert list(CRYPTOCOM.book_ids(FRAMES["snapshot"])) == [BookIds("BTC_USD", None, 900, None, is_snapshot=True)]
    assert list(CRYPTOCOM.book_ids(FRAMES["update"])) == [BookIds("BTC_USD", None, 907, 900)]
    assert list(CRYPTOCOM.book_ids(late)) == [BookIds("BTC_USD", None, 950, 940)]
    assert not CRYPTOCOM.book_ids(FRAMES["trades"])


@pytest.mark.parametrize("number", ["0.000000000000000001", "123456789012345678.123456789012345678", "1e-18", "1E+5"])
def test_every_digit_stays_as_it_was_sent(number: str) -> None:
    assert list(CRYPTOCOM.decode(frame("trade", "trade.BTC_USD", TRADE | {"p": number, "q": number}))) == [
        Trade("BTC_USD", NS, "77", True, number, number)
    ]
    whole = frame("book", "book.BTC_USD.50", WHOLE | {"asks": [[number, number, "1"]], "cs": None})
    assert list(CRYPTOCOM.decode(whole)) == [
        BookEvent("BTC_USD", NS, "snapshot", None, 900, None, [("61000.10", "1.5")], [(number, number)])
    ]


@pytest.mark.parametrize("ms", [0, 10**15])
def test_odd_times_are_kept(ms: int) -> None:
    payload = frame("trade", "trade.BTC_USD", TRADE | {"t": ms})
    assert [event.time for event in CRYPTOCOM.decode(payload)] == [ms * 1_000_000]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[]",
        b"ping",
        frame("candlestick", "candlestick.1m.BTC_USD"),
        frame("trade", "trade.BTC_USD", TRADE | {"s": "OTHER"}),
        frame("trade", "trade.BTC_USD", TRADE | {"p": 61000.1}),
        frame("trade", "trade.BTC_USD", {key: value for key, value in TRADE.items() if key != "q"}),
        frame("book.update", "book.BTC_USD.50", {key: value for key, value in UPDATE.items() if key != "pu"}),
        frame("book", "book.BTC_USD.50", WHOLE | {"u": str(2**63)}),
        frame("book", "book.BTC_USD.50", WHOLE | {"bids": [["1"]]}),
        FRAMES["trades"][:-1],
        b'{"id":1,"method":"new","code":0}',
    ],
)
def test_what_is_not_documented_is_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        CRYPTOCOM.decode(payload)
