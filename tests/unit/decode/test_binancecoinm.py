"""Binance COIN-M futures: what differs from USD-M, whose decoder they share."""

from __future__ import annotations

import json
from typing import Any

import pytest

from collectors.decode import BookIds, DecodeError, decoder
from collectors.events import BookEvent, Derivative, Event, Liquidation, Quote, Trade

COINM = decoder("binancecoinm")
MS = 1_795_500_000_123
NS = MS * 1_000_000
SYMBOL = {"s": "BTCUSD_PERP", "ps": "BTCUSD"}


def bare(data: object) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


TRADE: dict[str, Any] = {"e": "trade", "E": MS, "T": MS, **SYMBOL, "t": 7, "p": "61000.1", "q": "25", "m": False}
DEPTH: dict[str, Any] = {
    "e": "depthUpdate",
    "E": MS,
    "T": MS,
    **SYMBOL,
    "U": 901,
    "u": 907,
    "pu": 900,
    "b": [],
    "a": [["61000.2", "0"]],
}
ORDER: dict[str, Any] = {**SYMBOL, "S": "BUY", "o": "LIMIT", "q": "1", "p": "62000.1", "ap": "61900", "T": MS}
FRAMES: dict[str, bytes] = {
    "trade": bare(TRADE),
    "quote": bare(
        {"e": "bookTicker", "u": 9, **SYMBOL, "b": "61000.1", "B": "150", "a": "61000.2", "A": "3", "T": MS, "E": MS}
    ),
    "update": bare({"stream": "btcusd_perp@depth@100ms", "data": DEPTH}),
    "mark price": bare(
        {"e": "markPriceUpdate", "E": MS, "s": "BTCUSD_PERP", "p": "61000.15", "P": "61001", "r": "1e-4", "T": MS + 1}
    ),
    "liquidation": bare({"e": "forceOrder", "E": MS, "o": ORDER}),
    "acknowledged": b'{"result":null,"id":1}',
}
EXPECTED: dict[str, list[Event]] = {
    "trade": [Trade("BTCUSD_PERP", NS, "7", True, "61000.1", "25")],
    "quote": [Quote("BTCUSD_PERP", NS, 9, "61000.1", "150", "61000.2", "3")],
    "update": [BookEvent("BTCUSD_PERP", NS, "update", 901, 907, 900, [], [("61000.2", "0")])],
    "mark price": [
        Derivative(
            native_id="BTCUSD_PERP",
            time=NS,
            funding_rate="1e-4",
            funding_time=NS + 1_000_000,
            mark_price="61000.15",
        )
    ],
    "liquidation": [Liquidation("BTCUSD_PERP", NS, None, True, "62000.1", "1")],
}


@pytest.mark.parametrize("name", FRAMES)
def test_each_frame_is_read_exactly(name: str) -> None:
    assert list(COINM.decode(FRAMES[name])) == EXPECTED.get(name, [])


def test_a_missing_update_shows_in_the_ids() -> None:
    assert list(COINM.book_ids(FRAMES["update"])) == [BookIds("BTCUSD_PERP", 901, 907, 900)]


def test_a_whole_book_comes_by_rest() -> None:
    reply = {"lastUpdateId": 905, "symbol": "BTCUSD_PERP", "pair": "BTCUSD", "T": MS, "bids": [["1", "2"]], "asks": []}
    assert COINM.decode_snapshot("BTCUSD_PERP", bare(reply)) == BookEvent(
        "BTCUSD_PERP", NS, "snapshot", 905, 905, None, [("1", "2")], []
    )
    assert COINM.snapshot_url("X") == "https://dapi.binance.com/dapi/v1/depth?symbol=X&limit=1000"


@pytest.mark.parametrize("payload", [b"", bare({"e": "indexPriceUpdate"}), bare(TRADE)[:-1], bare(DEPTH | {"pu": -1})])
def test_what_is_not_documented_is_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        COINM.decode(payload)
