"""Phemex's frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from collectors.decode import BookIds, Control, DecodeError
from collectors.decode.phemex import DECODER as PHEMEX
from collectors.events import BookEvent, Derivative, Trade

NS = 1_795_500_000_123_456_789


def bare(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


BUY, SELL = [NS, "Buy", "61000.10", "0.455"], [NS + 1, "Sell", "61000.10", "0.455"]
TRADES = {"dts": NS, "sequence": 7, "symbol": "BTCUSDT", "trades_p": [BUY, BUY, SELL], "type": "incremental"}
WHOLE = {
    "depth": 30,
    "orderbook_p": {"asks": [["61000.2", "3"]], "bids": [["61000.1", "1.50"]]},
    "sequence": 900,
    "symbol": "BTCUSDT",
    "timestamp": str(NS),
    "type": "snapshot",
}
NEXT = WHOLE | {
    "orderbook_p": {"asks": [["61000.2", "0"]], "bids": []},
    "sequence": 907,
    "timestamp": NS + 5,
    "type": "incremental",
}
PACK = {
    "data": [
        ["BTCUSDT", "1", "697635", "61000.8", "61000.4", "-0.0001", "0.0001"],
        ["NEWUSDT", "2", "5", "3", "4", "1e-7", "0"],
    ],
    "fields": ["symbol", "openRp", "openInterestRv", "indexRp", "markRp", "fundingRateRr", "predFundingRateRr"],
    "method": "perp_market24h_pack_p.update",
    "timestamp": str(NS),
    "type": "snapshot",
}
FRAMES: dict[str, bytes] = {
    "trades": bare(TRADES),
    "trades of before": bare(TRADES | {"type": "snapshot"}),
    "snapshot": bare(WHOLE),
    "update": bare(NEXT | {"new": {"deep": [1]}}),
    "pack": bare(PACK),
    "ack": bare({"error": None, "id": 1, "result": {"status": "success"}}),
    "refused": bare({"error": {"code": 6001, "message": "invalid argument"}, "id": 2, "result": None}),
    "pong": bare({"error": None, "id": 3, "result": "pong"}),
}


def test_each_frame_is_read_as_it_is_meant() -> None:
    decoded = {name: list(PHEMEX.decode(payload)) for name, payload in FRAMES.items()}
    assert {name: events for name, events in decoded.items() if events} == {
        "trades": [
            Trade("BTCUSDT", NS, None, True, "61000.10", "0.455"),
            Trade("BTCUSDT", NS, None, True, "61000.10", "0.455"),
            Trade("BTCUSDT", NS + 1, None, False, "61000.10", "0.455"),
        ],
        "snapshot": [BookEvent("BTCUSDT", NS, "snapshot", None, 900, None, [("61000.1", "1.50")], [("61000.2", "3")])],
        "update": [BookEvent("BTCUSDT", NS + 5, "update", None, 907, None, [], [("61000.2", "0")])],
        "pack": [
            Derivative(
                native_id="BTCUSDT",
                time=NS,
                funding_rate="-0.0001",
                open_interest="697635",
                mark_price="61000.4",
                index_price="61000.8",
            ),
            Derivative(
                native_id="NEWUSDT", time=NS, funding_rate="1e-7", open_interest="5", mark_price="4", index_price="3"
            ),
        ],
    }


def test_replies_are_told_from_data_and_from_each_other() -> None:
    said = {name: PHEMEX.control(payload) for name, payload in FRAMES.items()}
    assert {name: control for name, control in said.items() if control} == {
        "trades of before": Control("other", detail="trades of before the subscription"),
        "ack": Control("subscribed"),
        "refused": Control("refused", detail=FRAMES["refused"].decode()),
        "pong": Control("other"),
    }


def test_the_ids_of_books_are_seen() -> None:
    frames = [WHOLE, NEXT, NEXT | {"sequence": 950}]
    assert [one for frame in frames for one in PHEMEX.book_ids(bare(frame))] == [
        BookIds("BTCUSDT", None, 900, None, is_snapshot=True),
        BookIds("BTCUSDT", None, 907, None),
        BookIds("BTCUSDT", None, 950, None),
    ]


@pytest.mark.parametrize("number", ["0.000000000000000001", "9.12E-7", "123456789012345678.123456789012345678", "1e5"])
def test_every_digit_stays_as_it_was_sent(number: str) -> None:
    (trade,) = PHEMEX.decode(bare(TRADES | {"trades_p": [[NS, "Buy", number, number]]}))
    (book,) = PHEMEX.decode(bare(NEXT | {"orderbook_p": {"asks": [], "bids": [[number, number]]}}))
    assert isinstance(trade, Trade)
    assert isinstance(book, BookEvent)
    assert trade.price == trade.amount == number
    assert book.bids == [(number, number)]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        bare({"sequence": 1, "symbol": "sBTCUSDT", "trades": [[NS, "Buy", 6100010000000, 455]], "type": "incremental"}),
        bare({"book": {"asks": [], "bids": []}, "symbol": "sBTCUSDT", "sequence": 1, "type": "snapshot"}),
        bare({"kline_p": [], "symbol": "BTCUSDT"}),
        bare(TRADES | {"trades_p": [[NS, "Buy", 61000, "1"]]}),
        bare(TRADES | {"trades_p": [[NS, "buy", "1", "1"]]}),
        bare(TRADES | {"type": "update"}),
        bare(NEXT | {"orderbook_p": {"asks": [["1"]], "bids": []}}),
        bare(NEXT | {"sequence": 2**63}),
        bare(PACK | {"fields": ["symbol"]}),
        bare(PACK | {"data": [["BTCUSDT"]]}),
        bare(NEXT)[:-3],
        gzip.compress(bare(NEXT))[:-9],
    ],
)
def test_what_is_no_frame_of_the_exchange_raises_and_says_what_was_found(payload: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        PHEMEX.decode(payload)
    assert str(caught.value)
