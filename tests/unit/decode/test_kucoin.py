"""KuCoin spot's frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from collectors.decode import BookIds, Control, DecodeError
from collectors.decode.kucoin import DECODER as KUCOIN
from collectors.events import BookEvent, Quote, Trade

MS = 1_795_500_000_123
NS = MS * 1_000_000


def bare(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def frame(topic: str, subject: str, data: dict[str, Any]) -> bytes:
    return bare({"topic": topic, "type": "message", "subject": subject, "data": data})


MATCH = {
    "makerOrderId": "m1",
    "price": "61000.10",
    "sequence": "88",
    "side": "sell",
    "size": "0.00030",
    "symbol": "BTC-USDT",
    "takerOrderId": "t1",
    "time": str(NS + 7),
    "tradeId": "88",
    "type": "match",
}
LEVEL1 = {"asks": ["61000.2", "3"], "bids": ["61000.1", "1.50"], "timestamp": MS}
LEVEL2 = {
    "changes": {
        "asks": [["61000.2", "0", "11"], ["61001", "2.0", "12"]],
        "bids": [["0", "0", "10"], ["60999.9", "1", "13"]],
    },
    "sequenceStart": 10,
    "sequenceEnd": 13,
    "symbol": "BTC-USDT",
    "time": MS,
}
SNAPSHOT = bare(
    {
        "code": "200000",
        "data": {"time": MS, "sequence": "9", "bids": [["61000.1", "1.50"]], "asks": [["61000.2", "3"]]},
    }
)


def match(**changed: Any) -> bytes:
    return frame("/market/match:BTC-USDT", "trade.l3match", MATCH | changed)


def level1(**changed: Any) -> bytes:
    return frame("/spotMarket/level1:BTC-USDT", "level1", LEVEL1 | changed)


def level2(**changed: Any) -> bytes:
    return frame("/market/level2:BTC-USDT", "trade.l2update", LEVEL2 | changed)


FRAMES: dict[str, bytes] = {
    "trade": match(),
    "trade bought": match(side="buy", unknown={"new": [1]}),
    "quote": level1(),
    "quote one-sided": level1(bids=[]),
    "update": level2(),
    "update that only counts": level2(changes={"asks": [["0", "0", "10"]], "bids": []}),
    "welcome": bare({"id": "public", "type": "welcome"}),
    "ack": bare({"id": "1", "type": "ack"}),
    "pong": bare({"id": "2", "type": "pong", "timestamp": MS}),
    "error": bare({"id": "1", "type": "error", "code": 404, "data": "topic /market/no is not found"}),
}
TRADE = Trade("BTC-USDT", NS + 7, "88", False, "61000.10", "0.00030", "m1", "t1")
UPDATE = BookEvent("BTC-USDT", NS, "update", 10, 13, None, [("60999.9", "1")], [("61000.2", "0"), ("61001", "2.0")])


def test_each_frame_is_read_as_it_is_meant() -> None:
    assert {name: list(KUCOIN.decode(payload)) for name, payload in FRAMES.items()} == {
        "trade": [TRADE],
        "trade bought": [Trade("BTC-USDT", NS + 7, "88", True, "61000.10", "0.00030", "t1", "m1")],
        "quote": [Quote("BTC-USDT", NS, None, "61000.1", "1.50", "61000.2", "3")],
        "quote one-sided": [Quote("BTC-USDT", NS, None, None, None, "61000.2", "3")],
        "update": [UPDATE],
        "update that only counts": [BookEvent("BTC-USDT", NS, "update", 10, 13, None, [], [])],
        "welcome": [],
        "ack": [],
        "pong": [],
        "error": [],
    }


def test_the_order_of_a_frame_s_fields_does_not_matter() -> None:
    reordered = bare({"data": LEVEL2, "subject": "trade.l2update", "topic": "/market/level2:BTC-USDT"})
    assert list(KUCOIN.decode(reordered)) == [UPDATE]
    assert list(KUCOIN.book_ids(reordered)) == [BookIds("BTC-USDT", 10, 13, None)]
    assert KUCOIN.control(reordered) is None


def test_a_break_shows_in_the_ids() -> None:
    ids = [
        KUCOIN.book_ids(level2(sequenceStart=first, sequenceEnd=last)) for first, last in ((10, 13), (14, 14), (16, 17))
    ]
    assert [(one.first, one.last) for (one,) in ids] == [(10, 13), (14, 14), (16, 17)]


def test_replies_are_told_from_data_and_from_each_other() -> None:
    said = {name: KUCOIN.control(payload) for name, payload in FRAMES.items()}
    assert {name for name, control in said.items() if control} == {"welcome", "ack", "pong", "error"}
    assert said["ack"] == Control("subscribed")
    assert said["error"] == Control("refused", detail=FRAMES["error"].decode())
    assert {said["welcome"].kind, said["pong"].kind} == {"other"}  # type: ignore[union-attr]


@pytest.mark.parametrize("number", ["0.000000000000000001", "123456789012345678.123456789012345678", "1e-18", "1E+5"])
def test_every_digit_stays_as_it_was_sent(number: str) -> None:
    (trade,) = KUCOIN.decode(match(price=number))
    (book,) = KUCOIN.decode(level2(changes={"asks": [[number, number, "10"]], "bids": []}))
    assert isinstance(trade, Trade)
    assert isinstance(book, BookEvent)
    assert trade.price == number
    assert book.asks == [(number, number)]


def test_an_unknown_symbol_passes_under_its_own_name() -> None:
    (event,) = KUCOIN.decode(match(symbol="NEW-USDC"))
    assert event.native_id == "NEW-USDC"


def test_a_snapshot_is_the_whole_reply() -> None:
    assert KUCOIN.decode_snapshot("BTC-USDT", SNAPSHOT) == BookEvent(
        "BTC-USDT", NS, "snapshot", 9, 9, None, [("61000.1", "1.50")], [("61000.2", "3")]
    )
    with pytest.raises(DecodeError):
        KUCOIN.decode_snapshot("BTC-USDT", bare({"code": "429000", "msg": "Too Many Requests"}))
    assert (
        KUCOIN.snapshot_url("BTC-USDT", "http://127.0.0.1:1")
        == "http://127.0.0.1:1/api/v1/market/orderbook/level2_100?symbol=BTC-USDT"
    )


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        frame("/market/candles:BTC-USDT_1min", "trade.candles.update", {}),
        bare({"type": "notice"}),
        frame("/spotMarket/level1", "level1", LEVEL1),
        match(side="Buy"),
        match(price=61000.1),
        level1(bids=["1"]),
        level2(changes={"asks": [["1", "2"]], "bids": []}),
        level2(sequenceEnd=2**63),
        level2()[:-1],
        gzip.compress(match())[:-9],
    ],
)
def test_what_is_no_frame_of_the_exchange_raises_and_says_what_was_found(payload: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        KUCOIN.decode(payload)
    assert str(caught.value)


@pytest.mark.captures
def test_recorded_traffic_of_2021_is_counted_as_by_hand(captures: Path) -> None:
    decoded: Counter[str] = Counter()
    raw: Counter[str] = Counter()
    with gzip.open(captures / "cryptofeed" / "KUCOIN.ws.1.0.gz", "rt") as lines:
        for line in lines:
            stamp, _, text = line.rstrip("\n").partition(": ")
            if not stamp.replace(".", "").isdigit():
                continue  # what was sent
            raw[json.loads(text).get("subject", "control")] += 1
            try:
                for event in KUCOIN.decode(text.encode()):
                    decoded[type(event).__name__] += 1
            except DecodeError:
                decoded["refused"] += 1
    assert decoded["Trade"] == raw["trade.l3match"] == 18
    assert decoded["BookEvent"] == raw["trade.l2update"] == 3853
    # Channels that are not recorded: candles, and a ticker that level1 has replaced.
    assert (
        decoded["refused"] == sum(n for subject, n in raw.items() if "candles" in subject or "ticker" in subject) == 836
    )
