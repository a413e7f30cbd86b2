"""Kraken spot's frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import json
from typing import Any
from zlib import crc32

import pytest

from collectors.decode import BookIds, Control, DecodeError
from collectors.decode.kraken import DECODER as KRAKEN
from collectors.decode.kraken import book_checksum
from collectors.events import BookEvent, Quote, Trade

AT = "2026-11-23T10:00:00.123456Z"
NS = 1_795_428_000_123_456_000


def bare(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


TRADE = (
    b'{"channel":"trade","type":"update","data":['
    b'{"symbol":"BTC/USD","side":"sell","price":61000.10,"qty":0.00030000,"ord_type":"market","trade_id":88,'
    b'"timestamp":"2026-11-23T10:00:00.123456Z"},'
    b'{"symbol":"BTC/USD","side":"buy","price":61000,"qty":1e-8,"ord_type":"limit","trade_id":89,'
    b'"timestamp":"2026-11-23T10:00:00.123457Z"}]}'
)
TICKER = (
    b'{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","bid":61000.1,"bid_qty":1.50000000,'
    b'"ask":61000.20,"ask_qty":3,"last":61000.1,"volume":1.5,"timestamp":"2026-11-23T10:00:00.123456Z"}]}'
)
SNAPSHOT = (
    b'{"channel":"book","type":"snapshot","data":[{"symbol":"BTC/USD","bids":[{"price":61000.1,"qty":1.50000000},'
    b'{"price":60999.9,"qty":0.10000000}],"asks":[{"price":61000.2,"qty":3.00000000}],"checksum":17}]}'
)
UPDATE = (
    b'{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[{"price":60999.9,"qty":0.00000000}],'
    b'"asks":[],"checksum":4294967295,"timestamp":"2026-11-23T10:00:00.123456Z"}]}'
)
ACK = bare(
    {
        "method": "subscribe",
        "req_id": 1,
        "result": {"channel": "trade", "snapshot": True, "symbol": "BTC/USD"},
        "success": True,
        "time_in": AT,
        "time_out": AT,
    }
)
REFUSAL = bare(
    {
        "error": "Currency pair not supported FOO/BAR",
        "method": "subscribe",
        "req_id": 2,
        "success": False,
        "symbol": "FOO/BAR",
    }
)
FRAMES = {
    "trade": TRADE,
    "ticker": TICKER,
    "snapshot": SNAPSHOT,
    "update": UPDATE,
    "acknowledgement": ACK,
    "refusal": REFUSAL,
    "heartbeat": b'{"channel":"heartbeat"}',
    "status": bare({"channel": "status", "type": "update", "data": [{"system": "online", "version": "2.0.10"}]}),
    "pong": bare({"method": "pong", "req_id": 3, "time_in": AT, "time_out": AT}),
}


def test_a_frame_may_hold_several_trades() -> None:
    assert list(KRAKEN.decode(TRADE)) == [
        Trade("BTC/USD", NS, "88", False, "61000.10", "0.00030000"),
        Trade("BTC/USD", NS + 1000, "89", True, "61000", "1e-8"),
    ]


def test_trades_sent_again_on_subscribing_keep_their_ids() -> None:
    assert KRAKEN.decode(TRADE.replace(b"update", b"snapshot")) == KRAKEN.decode(TRADE)


def test_the_best_bid_and_ask() -> None:
    assert list(KRAKEN.decode(TICKER)) == [Quote("BTC/USD", NS, None, "61000.1", "1.50000000", "61000.20", "3")]


def test_an_empty_side_has_neither_price_nor_amount() -> None:
    frame = TICKER.replace(b'"bid":61000.1,"bid_qty":1.50000000', b'"bid":null,"bid_qty":null')
    assert list(KRAKEN.decode(frame)) == [Quote("BTC/USD", NS, None, None, None, "61000.20", "3")]


def test_books_carry_their_checksum() -> None:
    assert list(KRAKEN.decode(SNAPSHOT)) == [
        BookEvent(
            "BTC/USD",
            None,
            "snapshot",
            None,
            None,
            None,
            [("61000.1", "1.50000000"), ("60999.9", "0.10000000")],
            [("61000.2", "3.00000000")],
            "17",
        )
    ]
    assert list(KRAKEN.decode(UPDATE)) == [
        BookEvent("BTC/USD", NS, "update", None, None, None, [("60999.9", "0.00000000")], [], "4294967295")
    ]
    assert list(KRAKEN.book_ids(SNAPSHOT)) == [BookIds("BTC/USD", None, None, None, is_snapshot=True)]
    assert list(KRAKEN.book_ids(UPDATE)) == [BookIds("BTC/USD", None, None, None)]
    assert not KRAKEN.book_ids(TRADE)


def test_the_order_of_the_fields_does_not_matter() -> None:
    for frame in (TRADE, TICKER, SNAPSHOT, UPDATE):
        turned = b'{"data":' + frame[frame.index(b"[") : -1] + b", " + frame[1 : frame.index(b',"data"')] + b"}"
        assert KRAKEN.decode(turned) == KRAKEN.decode(frame)
        assert KRAKEN.control(turned) is None
        assert list(KRAKEN.book_ids(turned)) == list(KRAKEN.book_ids(frame))


@pytest.mark.parametrize("number", ["0.000000000000000001", "123456789012345678.123456789012345678", "1E-18", "1e+5"])
def test_every_digit_stays_as_it_was_sent(number: str) -> None:
    (trade, _) = KRAKEN.decode(TRADE.replace(b"61000.10", number.encode()))
    (book,) = KRAKEN.decode(UPDATE.replace(b"60999.9", number.encode()))
    assert isinstance(trade, Trade)
    assert isinstance(book, BookEvent)
    assert (trade.price, book.bids) == (number, [(number, "0.00000000")])


def test_unknown_symbols_and_fields_pass() -> None:
    (quote,) = KRAKEN.decode(TICKER.replace(b"BTC/USD", b"N\xc3\x84W/X").replace(b'"last"', b'"new":{"a":[1]},"last"'))
    assert quote.native_id == "NÄW/X"


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (ACK, Control("subscribed", ("BTC/USD",))),
        (ACK.replace(b'"subscribe"', b'"unsubscribe"'), Control("unsubscribed", ("BTC/USD",))),
        (REFUSAL, Control("refused", ("FOO/BAR",), "Currency pair not supported FOO/BAR")),
        (
            bare({"error": "Malformed request", "method": "", "success": False}),
            Control("refused", (), "Malformed request"),
        ),
        (FRAMES["heartbeat"], Control("other")),
        (FRAMES["status"], Control("other")),
        (FRAMES["pong"], Control("other")),
    ],
)
def test_replies_and_heartbeats_are_no_data(frame: bytes, said: Control) -> None:
    assert list(KRAKEN.decode(frame)) == []
    assert KRAKEN.control(frame) == said
    assert not KRAKEN.book_ids(frame)


@pytest.mark.parametrize(
    "frame",
    [
        b"{}",
        b"[]",
        TRADE[:-1],
        TRADE.replace(b'"trade"', b'"ohlc"'),
        TRADE.replace(b"61000.10", b"null"),
        TRADE.replace(b"61000.10", b"[1]"),
        TRADE.replace(b"61000.10", b"1.2.3"),
        TRADE.replace(b'"trade_id":88,', b""),
        TRADE.replace(b"sell", b"SELL"),
        TRADE.replace(b"T10:", b"T25:"),
        UPDATE.replace(b'"update"', b'"resync"'),
        UPDATE.replace(b'"checksum":4294967295,', b""),
        UPDATE.replace(b'"qty":0.00000000', b'"q":0'),
    ],
)
def test_anything_else_is_an_error(frame: bytes) -> None:
    with pytest.raises(DecodeError):
        KRAKEN.decode(frame)


def test_the_checksum_takes_ten_levels_a_side_best_first() -> None:
    asks = [(f"{45285 + i}.2", f"0.0010000{i}") for i in range(11)]
    bids = [(f"{45283 - i}.5", f"{i + 1}.10000000") for i in range(12)]
    text = (
        "452852100000" "452862100001" "452872100002" "452882100003" "452892100004"
        "452902100005" "452912100006" "452922100007" "452932100008" "452942100009"
        "452835110000000" "452825210000000" "452815310000000" "452805410000000" "452795510000000"
        "452785610000000" "452775710000000" "452765810000000" "452755910000000" "4527451010000000"
    )  # fmt: skip
    assert book_checksum(bids, asks) == crc32(text.encode()) == 2488629764
    assert book_checksum([("0.05", "2.0")], []) == crc32(b"520")
