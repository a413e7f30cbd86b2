"""BingX's frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from collectors.decode import BookIds, Control, DecodeError
from collectors.decode.bingx import DECODER as BINGX
from collectors.events import BookEvent, Trade

MS = 1_795_500_000_123
NS = MS * 1_000_000


def bare(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def packed(message: Any) -> bytes:
    return gzip.compress(bare(message))


def spot(kind: str, data: Any, symbol: str = "BTC-USDT") -> bytes:
    return packed({"code": 0, "data": data, "dataType": f"{symbol}@{kind}", "success": True, "timestamp": MS})


def swap(kind: str, data: Any, symbol: str = "BTC-USDT") -> bytes:
    return packed({"code": 0, "dataType": f"{symbol}@{kind}", "ts": MS, "data": data})


TRADE = {"E": 1, "T": MS, "e": "trade", "m": True, "p": "61000.10", "q": "0.1868", "s": "BTC-USDT", "t": "57903921"}
OF_SWAP = {"q": "0.0421", "p": "61000.5", "T": MS, "m": False, "s": "BTC-USDT"}
BOOK = {"asks": [["61001", "1"], ["61000.2", "3"]], "bids": [["61000.1", "1.50"]], "lastUpdateId": 135}
OF_SWAPS = {"bids": [["61000.1", "0.1908"]], "asks": []}
COINS = {
    "symbol": "BTC-USD",
    "bids": [{"p": "61000.1", "a": "2.979216", "v": "2485.0"}],
    "asks": [{"p": "61000.2", "a": "0.344671", "v": "304.0"}],
    "timestamp": MS,
}
FRAMES: dict[str, bytes] = {
    "trade": spot("trade", TRADE),
    "trade bought": spot("trade", TRADE | {"m": False, "new": {"deep": [1]}}),
    "swap's trades": swap("trade", [OF_SWAP, OF_SWAP]),
    "coin's trade": swap("trade", TRADE | {"s": "BTC-USD", "q": "1"}, "BTC-USD"),
    "book": spot("depth100", BOOK),
    "swap's book": swap("depth100@500ms", OF_SWAPS),
    "coin's book": swap("depth100", COINS, "BTC-USD"),
    "ack": packed({"id": "d83b", "code": 0, "msg": "SUCCESS", "timestamp": MS}),
    "swap's ack": packed({"id": "2aed", "code": 0, "msg": "", "dataType": "", "data": None}),
    "refused": packed({"id": "d83b", "code": 100400, "msg": "symbol not exist", "timestamp": MS}),
    "ping": packed({"ping": "2177c68e", "time": "2026-11-24T00:00:00.000+0800"}),
    "swap's ping": gzip.compress(b"Ping"),
}


def test_each_frame_is_read_as_it_is_meant() -> None:
    decoded = {name: list(BINGX.decode(payload)) for name, payload in FRAMES.items()}
    assert {name: events for name, events in decoded.items() if events} == {
        "trade": [Trade("BTC-USDT", NS, "57903921", False, "61000.10", "0.1868")],
        "trade bought": [Trade("BTC-USDT", NS, "57903921", True, "61000.10", "0.1868")],
        "swap's trades": [Trade("swap.BTC-USDT", NS, None, True, "61000.5", "0.0421")] * 2,
        "coin's trade": [Trade("BTC-USD", NS, "57903921", False, "61000.10", "1")],
        "book": [
            BookEvent(
                "BTC-USDT",
                NS,
                "snapshot",
                135,
                135,
                None,
                [("61000.1", "1.50")],
                [("61001", "1"), ("61000.2", "3")],
            )
        ],
        "swap's book": [BookEvent("swap.BTC-USDT", NS, "snapshot", None, None, None, [("61000.1", "0.1908")], [])],
        "coin's book": [
            BookEvent("BTC-USD", NS, "snapshot", None, None, None, [("61000.1", "2485.0")], [("61000.2", "304.0")])
        ],
    }


def test_unpacked_frames_are_the_same() -> None:
    for payload in FRAMES.values():
        assert list(BINGX.decode(gzip.decompress(payload))) == list(BINGX.decode(payload))
        assert BINGX.control(gzip.decompress(payload)) == BINGX.control(payload)


def test_replies_are_told_from_data_and_from_each_other() -> None:
    said = {name: BINGX.control(payload) for name, payload in FRAMES.items()}
    assert {name: control for name, control in said.items() if control} == {
        "ack": Control("subscribed"),
        "swap's ack": Control("subscribed"),
        "refused": Control("refused", detail=gzip.decompress(FRAMES["refused"]).decode()),
        "ping": Control("other"),
        "swap's ping": Control("other"),
    }


def test_the_ids_of_spot_s_books_are_seen() -> None:
    frames = [spot("depth100", BOOK | {"lastUpdateId": at}) for at in (135, 136, 140)]
    assert [one for payload in frames for one in BINGX.book_ids(payload)] == [
        BookIds("BTC-USDT", at, at, None, is_snapshot=True) for at in (135, 136, 140)
    ]


@pytest.mark.parametrize("number", ["0.000000000000000001", "9.12E-7", "123456789012345678.123456789012345678", "1e5"])
def test_every_digit_stays_as_it_was_sent(number: str) -> None:
    (trade,) = BINGX.decode(spot("trade", TRADE | {"p": number}))
    (book,) = BINGX.decode(spot("depth100", BOOK | {"bids": [[number, number]]}))
    assert isinstance(trade, Trade)
    assert isinstance(book, BookEvent)
    assert trade.price == number
    assert book.bids == [(number, number)]


def test_an_unknown_symbol_passes_under_its_own_name() -> None:
    (event,) = BINGX.decode(spot("trade", TRADE | {"s": "NEW-USDC"}, "NEW-USDC"))
    assert event.native_id == "NEW-USDC"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        spot("kline_1min", {}),
        spot("ticker", {}),
        spot("trade", TRADE | {"p": 61000.1}),
        spot("trade", None),
        spot("trade", [{"s": "BTC-USDT"}]),
        spot("depth100", BOOK | {"bids": [["1"]]}),
        spot("depth100", COINS),
        spot("depth100", BOOK | {"lastUpdateId": 2**63}),
        swap("depth100", OF_SWAPS | {"bids": [["1", "2"]]}, "BTC-USD"),
        swap("depth100", OF_SWAPS, ""),
        packed({"code": 0}),
        gzip.compress(b"Hello"),
        FRAMES["book"][:-9],
        gzip.decompress(FRAMES["book"])[:-4],
    ],
)
def test_what_is_no_frame_of_the_exchange_raises_and_says_what_was_found(payload: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        BINGX.decode(payload)
    assert str(caught.value)
