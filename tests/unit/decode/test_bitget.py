"""Bitget's frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from collectors.decode import BookIds, Control, DecodeError
from collectors.decode.bitget import DECODER as BITGET
from collectors.events import BookEvent, Derivative, Quote, Trade

MS = 1_795_500_000_123
NS = MS * 1_000_000


def bare(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def frame(topic: str, *data: Any, action: str = "snapshot", kind: str = "spot", symbol: str = "BTCUSDT") -> bytes:
    arg = {"instType": kind, "topic": topic, "symbol": symbol}
    return bare({"action": action, "arg": arg, "data": data, "ts": MS + 5})


def classic(channel: str, *data: Any, action: str = "snapshot", kind: str = "SPOT") -> bytes:
    arg = {"instType": kind, "channel": channel, "instId": "BTCUSDT"}
    return bare({"action": action, "arg": arg, "data": data, "ts": MS + 5})


TRADE = {"T": str(MS), "P": "61000.10", "v": "0.0700", "S": "buy", "L": "1", "i": "1344534089797185549"}
CLASSIC_TRADE = {"ts": str(MS), "price": "61000.1", "size": "0.5", "side": "sell", "tradeId": "77"}
WHOLE = {"a": [["61000.2", "3"]], "b": [["61000.1", "1.50"]], "checksum": 0, "pseq": 0, "seq": "900", "ts": str(MS)}
NEXT = {"a": [["61000.2", "0"]], "b": [], "checksum": 0, "pseq": "900", "seq": "907", "ts": str(MS)}
CLASSIC = {"asks": [["61000.2", "3"]], "bids": [["61000.1", "0"]], "checksum": -136, "seq": 5, "ts": str(MS)}
TICKER = {
    "instId": "BTCUSDT",
    "lastPr": "61000.1",
    "fundingRate": "-0.000096",
    "nextFundingTime": str(MS + 1),
    "markPrice": "61000.4",
    "indexPrice": "61000.8",
    "holdingAmount": "50670.787",
    "ts": str(MS),
}
ACKED = {"instType": "spot", "topic": "books", "symbol": "BTCUSDT"}
FRAMES: dict[str, bytes] = {
    "trades": frame("publicTrade", TRADE, TRADE | {"S": "sell", "i": "2"}, action="update"),
    "futures' trade": frame("publicTrade", TRADE, kind="usdt-futures"),
    "classic trade": classic("trade", CLASSIC_TRADE, action="update"),
    "quote": frame("books1", WHOLE),
    "quote one-sided": frame("books1", WHOLE | {"b": []}),
    "snapshot": frame("books", WHOLE),
    "update": frame("books", NEXT, action="update"),
    "futures' update": frame("books", NEXT, action="update", kind="usdt-futures"),
    "classic update": classic("books", CLASSIC, action="update", kind="USDT-FUTURES"),
    "ticker": classic("ticker", TICKER, kind="USDT-FUTURES"),
    "ack": bare({"event": "subscribe", "arg": ACKED}),
    "unsubscribed": bare({"event": "unsubscribe", "arg": ACKED | {"instType": "usdt-futures"}}),
    "refused": bare({"event": "error", "arg": ACKED | {"symbol": "NO"}, "code": "30001", "msg": "doesn't exist"}),
    "refused without arg": bare({"event": "error", "code": 30006, "msg": "Too many requests"}),
    "login": bare({"event": "login", "code": 0}),
    "pong": b"pong",
}


def test_each_frame_is_read_as_it_is_meant() -> None:
    first = "1344534089797185549"
    decoded = {name: list(BITGET.decode(payload)) for name, payload in FRAMES.items()}
    assert {name: events for name, events in decoded.items() if events} == {
        "trades": [
            Trade("BTCUSDT", NS, first, True, "61000.10", "0.0700"),
            Trade("BTCUSDT", NS, "2", False, "61000.10", "0.0700"),
        ],
        "futures' trade": [Trade("USDT-FUTURES.BTCUSDT", NS, first, True, "61000.10", "0.0700")],
        "classic trade": [Trade("BTCUSDT", NS, "77", False, "61000.1", "0.5")],
        "quote": [Quote("BTCUSDT", NS, 900, "61000.1", "1.50", "61000.2", "3")],
        "quote one-sided": [Quote("BTCUSDT", NS, 900, None, None, "61000.2", "3")],
        "snapshot": [BookEvent("BTCUSDT", NS, "snapshot", None, 900, None, [("61000.1", "1.50")], [("61000.2", "3")])],
        "update": [BookEvent("BTCUSDT", NS, "update", None, 907, 900, [], [("61000.2", "0")])],
        "futures' update": [BookEvent("USDT-FUTURES.BTCUSDT", NS, "update", None, 907, 900, [], [("61000.2", "0")])],
        "classic update": [
            BookEvent(
                "USDT-FUTURES.BTCUSDT", NS, "update", None, 5, None, [("61000.1", "0")], [("61000.2", "3")], "-136"
            )
        ],
        "ticker": [
            Derivative(
                native_id="USDT-FUTURES.BTCUSDT",
                time=NS,
                funding_rate="-0.000096",
                funding_time=NS + 1_000_000,
                open_interest="50670.787",
                mark_price="61000.4",
                index_price="61000.8",
            )
        ],
    }


def test_replies_are_told_from_data_and_from_each_other() -> None:
    said = {name: BITGET.control(payload) for name, payload in FRAMES.items()}
    assert {name: control for name, control in said.items() if control} == {
        "ack": Control("subscribed", ("BTCUSDT",)),
        "unsubscribed": Control("unsubscribed", ("USDT-FUTURES.BTCUSDT",)),
        "refused": Control("refused", ("NO",), FRAMES["refused"].decode()),
        "refused without arg": Control("refused", detail=FRAMES["refused without arg"].decode()),
        "login": Control("other"),
        "pong": Control("other"),
    }


def test_the_order_of_a_frame_s_fields_does_not_matter() -> None:
    payload = bare({"data": [NEXT], "arg": ACKED, "action": "update"})
    assert list(BITGET.decode(payload)) == list(BITGET.decode(FRAMES["update"]))
    assert list(BITGET.book_ids(payload)) == [BookIds("BTCUSDT", None, 907, 900)]
    assert BITGET.control(payload) is None


def test_a_break_shows_in_the_ids() -> None:
    later = [NEXT, NEXT | {"pseq": "907", "seq": "910"}, NEXT | {"pseq": "915", "seq": "920"}]
    frames = [frame("books", WHOLE), *(frame("books", one, action="update") for one in later)]
    assert [one for payload in frames for one in BITGET.book_ids(payload)] == [
        BookIds("BTCUSDT", None, 900, None, is_snapshot=True),
        BookIds("BTCUSDT", None, 907, 900),
        BookIds("BTCUSDT", None, 910, 907),
        BookIds("BTCUSDT", None, 920, 915),
    ]


@pytest.mark.parametrize("number", ["0.000000000000000001", "9.12E-7", "123456789012345678.123456789012345678", "1e5"])
def test_every_digit_stays_as_it_was_sent(number: str) -> None:
    (trade,) = BITGET.decode(frame("publicTrade", TRADE | {"P": number}))
    (book,) = BITGET.decode(frame("books", NEXT | {"b": [[number, number]]}))
    assert isinstance(trade, Trade)
    assert isinstance(book, BookEvent)
    assert trade.price == number
    assert book.bids == [(number, number)]


def test_an_unknown_symbol_passes_under_its_own_name() -> None:
    (event,) = BITGET.decode(frame("publicTrade", TRADE | {"new": {"deep": [1]}}, symbol="NEWUSDC"))
    assert event.native_id == "NEWUSDC"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"ping",
        frame("kline", {}),
        classic("candle1m", []),
        classic("ticker", {"instId": "BTCUSDT", "ts": str(MS)}),
        classic("trade", ["1649290077777", "0.005613", "890.8", "buy"]),
        frame("books", NEXT, action="delta"),
        frame("books", NEXT | {"a": [["1"]]}),
        frame("books", NEXT | {"seq": str(2**63)}),
        frame("books", {"a": [], "b": [], "ts": str(MS)}),
        frame("books", NEXT, symbol=""),
        frame("publicTrade", TRADE | {"S": "hold"}),
        frame("publicTrade", TRADE | {"P": 1.5}),
        frame("books", NEXT)[:-3],
        gzip.compress(frame("books", NEXT))[:-9],
    ],
)
def test_what_is_no_frame_of_the_exchange_raises_and_says_what_was_found(payload: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        BITGET.decode(payload)
    assert str(caught.value)


@pytest.mark.captures
@pytest.mark.parametrize(("connection", "books", "trades", "others"), [(1, 443, 38, 171), (2, 194, 27, 244)])
def test_recorded_traffic_of_2022_is_counted_as_by_hand(
    captures: Path, connection: int, books: int, trades: int, others: int
) -> None:
    decoded: Counter[str] = Counter()
    raw: Counter[str] = Counter()
    with gzip.open(captures / "cryptofeed" / f"BITGET.ws.{connection}.0.gz", "rt") as lines:
        for line in lines:
            stamp, _, text = line.rstrip("\n").partition(": ")
            if not stamp.replace(".", "").isdigit():
                continue  # what was sent
            message = json.loads(text)
            raw["control" if "event" in message else message["arg"]["channel"]] += 1
            try:
                for event in BITGET.decode(text.encode()):
                    decoded[type(event).__name__] += 1
            except DecodeError:
                decoded["refused"] += 1
    assert decoded["BookEvent"] == raw["books"] == books
    assert raw["trade"] == trades, "version 1: trades are arrays without ids, which no decoder reads"
    assert raw["ticker"] + raw["candle1m"] == others, "version 1's ticker, and candles, which are not recorded"
    assert decoded["refused"] == trades + others
    assert decoded["Trade"] == decoded["Derivative"] == 0
