"""Binance US: frames of Binance spot under another name; the whole contract is in test_binance."""

from __future__ import annotations

import json

import pytest

from collectors.decode import BookIds, Control, DecodeError, decoder
from collectors.events import BookEvent, Event, Quote, Trade

BINANCEUS = decoder("binanceus")
MS = 1_795_500_000_123
NS = MS * 1_000_000


def bare(data: object) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


TRADE = {"e": "trade", "E": MS, "s": "BTCUSD", "t": 7, "p": "61000.1000", "q": "1e-18", "T": MS, "m": True, "M": True}
DEPTH = {"e": "depthUpdate", "E": MS, "s": "BTCUSD", "U": 5, "u": 9, "b": [["61000.1", "0"]], "a": []}
FRAMES: dict[str, bytes] = {
    "trade": bare(TRADE),
    "quote": bare({"u": 9, "s": "BTCUSD", "b": "61000.1", "B": "1.5", "a": "61000.2", "A": "3"}),
    "update": bare(DEPTH),
    "combined trade": bare({"stream": "btcusd@trade", "data": TRADE}),
    "acknowledged": b'{"result":null,"id":1}',
    "refused": b'{"code":-1121,"msg":"Invalid symbol."}',
}
EXPECTED: dict[str, list[Event]] = {
    "trade": [Trade("BTCUSD", NS, "7", False, "61000.1000", "1e-18")],
    "quote": [Quote("BTCUSD", None, 9, "61000.1", "1.5", "61000.2", "3")],
    "update": [BookEvent("BTCUSD", NS, "update", 5, 9, None, [("61000.1", "0")], [])],
    "combined trade": [Trade("BTCUSD", NS, "7", False, "61000.1000", "1e-18")],
}


@pytest.mark.parametrize("name", FRAMES)
def test_each_frame_is_read_exactly(name: str) -> None:
    assert list(BINANCEUS.decode(FRAMES[name])) == EXPECTED.get(name, [])
    assert (BINANCEUS.control(FRAMES[name]) is None) == (name in EXPECTED)


def test_replies_are_told_apart() -> None:
    assert BINANCEUS.control(FRAMES["acknowledged"]) == Control("subscribed")
    assert BINANCEUS.control(FRAMES["refused"]) == Control("refused", (), '{"code":-1121,"msg":"Invalid symbol."}')


def test_a_missing_update_shows_in_the_ids() -> None:
    assert list(BINANCEUS.book_ids(FRAMES["update"])) == [BookIds("BTCUSD", 5, 9, None)]


def test_a_whole_book_comes_from_its_own_address() -> None:
    assert BINANCEUS.snapshot_url("BTCUSD") == "https://api.binance.us/api/v3/depth?symbol=BTCUSD&limit=5000"
    assert BINANCEUS.decode_snapshot("BTCUSD", b'{"lastUpdateId":4,"bids":[["1","2"]],"asks":[]}') == BookEvent(
        "BTCUSD", None, "snapshot", 4, 4, None, [("1", "2")], []
    )


@pytest.mark.parametrize("payload", [b"", b"{}", bare(TRADE)[:-1], bare({"e": "kline"}), bare(DEPTH | {"b": [["1"]]})])
def test_what_is_not_documented_is_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        BINANCEUS.decode(payload)
