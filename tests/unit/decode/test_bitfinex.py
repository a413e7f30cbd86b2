"""Bitfinex's frames: what they mean, whose they are, and that nothing else is taken for one."""

from __future__ import annotations

import json
from typing import Any
from zlib import crc32

import pytest

from collectors.decode import BookIds, Control, DecodeError
from collectors.decode.bitfinex import DECODER, Bitfinex, book_checksum
from collectors.events import BookEvent, Trade

MS = 1_795_428_000_123
NS = MS * 1_000_000


def bare(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


INFO = bare({"event": "info", "version": 2, "serverId": "x", "platform": {"status": 1}})
OF_TRADES = bare({"event": "subscribed", "channel": "trades", "chanId": 17, "symbol": "tBTCUSD", "pair": "BTCUSD"})
OF_BOOK = bare(
    {
        "event": "subscribed",
        "channel": "book",
        "chanId": 18,
        "symbol": "tBTCUSD",
        "prec": "P0",
        "freq": "F0",
        "len": "250",
        "pair": "BTCUSD",
    }
)
TE = b'[17,"te",[88,1795428000123,-0.00030000,61000.10]]'
TRADES = b"[17,[[87,1795428000122,0.5,61000],[86,1795428000121,-1e-8,60999]]]"
SNAPSHOT = b"[18,[[61000,3,1.50],[60999.9,1,0.2],[61000.2,2,-3]]]"
UPDATE = b"[18,[61000.2,2,-3.10]]"
DELETE = b"[18,[61000,0,1]]"
CHECKSUM = b'[18,"cs",-890884919]'
FRAMES = {
    "info": INFO,
    "acknowledgement of trades": OF_TRADES,
    "acknowledgement of a book": OF_BOOK,
    "trade": TE,
    "trade again": TE.replace(b"te", b"tu"),
    "trades": TRADES,
    "snapshot": SNAPSHOT,
    "update": UPDATE,
    "delete": DELETE,
    "checksum": CHECKSUM,
    "numbered": b"[18,[61000.2,2,-3.10],41]",
    "heartbeat": b'[18,"hb"]',
    "refusal": bare(
        {"event": "error", "msg": "symbol: invalid", "code": 10300, "channel": "book", "symbol": "tFOOBAR"}
    ),
    "configuration": bare({"event": "conf", "status": "OK", "flags": 196608}),
    "another's end": bare({"event": "unsubscribed", "status": "OK", "chanId": 19}),
    "stop": bare({"event": "info", "code": 20051, "msg": "Stopping. Please try to reconnect"}),
    "pong": bare({"event": "pong", "ts": MS, "cid": 1}),
}


@pytest.fixture
def connection() -> Bitfinex:
    """One that has subscribed to the trades and the book of a symbol."""
    decoder = DECODER.fork()
    for frame in (INFO, OF_TRADES, OF_BOOK):
        assert not decoder.decode(frame)
    return decoder


def update(bids: list[tuple[str, str]], asks: list[tuple[str, str]], checksum: str | None = None) -> BookEvent:
    return BookEvent("tBTCUSD", None, "update", None, None, None, bids, asks, checksum)


def test_a_trade_sent_twice_is_one_event(connection: Bitfinex) -> None:
    assert list(connection.decode(TE)) == [Trade("tBTCUSD", NS, "88", False, "61000.10", "0.00030000")]
    assert not connection.decode(TE.replace(b"te", b"tu"))


def test_trades_sent_again_on_subscribing_are_turned_into_their_order(connection: Bitfinex) -> None:
    assert list(connection.decode(TRADES)) == [
        Trade("tBTCUSD", NS - 2_000_000, "86", False, "60999", "1e-8"),
        Trade("tBTCUSD", NS - 1_000_000, "87", True, "61000", "0.5"),
    ]
    assert not connection.decode(b"[17,[]]")


def test_books(connection: Bitfinex) -> None:
    bids, asks = [("61000", "1.50"), ("60999.9", "0.2")], [("61000.2", "3")]
    assert list(connection.decode(SNAPSHOT)) == [BookEvent("tBTCUSD", None, "snapshot", None, None, None, bids, asks)]
    assert list(connection.decode(b"[18,[]]")) == [BookEvent("tBTCUSD", None, "snapshot", None, None, None, [], [])]
    assert list(connection.decode(UPDATE)) == [update([], [("61000.2", "3.10")])]
    assert list(connection.decode(DELETE)) == [update([("61000", "0")], [])]
    assert list(connection.decode(b"[18,[61000.2,0,-1]]")) == [update([], [("61000.2", "0")])]
    assert list(connection.decode(CHECKSUM)) == [update([], [], "-890884919")]
    for frame in (SNAPSHOT, b"[18,[]]"):
        assert list(connection.book_ids(frame)) == [BookIds("tBTCUSD", None, None, None, is_snapshot=True)]
    for frame in (UPDATE, DELETE, CHECKSUM):
        assert list(connection.book_ids(frame)) == [BookIds("tBTCUSD", None, None, None)]
    assert not connection.book_ids(TE)


def test_frames_are_numbered_where_the_connection_asked_for_it(connection: Bitfinex) -> None:
    for frame in (TE, TRADES, SNAPSHOT, UPDATE, CHECKSUM, FRAMES["heartbeat"]):
        numbered = frame[:-1] + b",41]"
        assert (connection.frame_number(frame), connection.frame_number(numbered)) == (None, 41)
        assert list(connection.decode(numbered)) == list(connection.decode(frame))
        assert connection.control(numbered) == connection.control(frame)
    assert connection.frame_number(OF_BOOK) is None


def test_each_connection_has_its_own_channels(connection: Bitfinex) -> None:
    other = connection.fork()
    with pytest.raises(DecodeError, match="unknown channel 17"):
        other.decode(TE)
    assert not other.book_ids(UPDATE)
    assert other.control(OF_TRADES.replace(b"tBTCUSD", b"tN\xc3\x84W:USD")) == Control("subscribed", ("tNÄW:USD",))
    assert [event.native_id for event in other.decode(TE)] == ["tNÄW:USD"], "control learns as decode does"
    assert [event.native_id for event in connection.decode(TE)] == ["tBTCUSD"]


def test_a_greeting_or_an_end_forgets_channels(connection: Bitfinex) -> None:
    assert connection.control(bare({"event": "unsubscribed", "status": "OK", "chanId": 17})) == Control(
        "unsubscribed", ("tBTCUSD",)
    )
    with pytest.raises(DecodeError, match="unknown channel 17"):
        connection.decode(TE)
    connection.decode(INFO)
    with pytest.raises(DecodeError, match="unknown channel 18"):
        connection.decode(UPDATE)


def test_white_space_does_not_matter(connection: Bitfinex) -> None:
    for frame in (TE, TRADES, SNAPSHOT, UPDATE, CHECKSUM):
        spaced = frame.replace(b",", b" ,\n ").replace(b"[", b"[ ")
        assert list(connection.decode(spaced)) == list(connection.decode(frame))
        assert connection.control(spaced) is None
        assert connection.book_ids(spaced) == connection.book_ids(frame)


@pytest.mark.parametrize("number", ["0.000000000000000001", "123456789012345678.123456789012345678", "1E-18", "1e+5"])
def test_every_digit_stays_as_it_was_sent(connection: Bitfinex, number: str) -> None:
    (trade,) = connection.decode(TE.replace(b"61000.10", number.encode()))
    assert isinstance(trade, Trade)
    assert trade.price == number
    assert list(connection.decode(UPDATE.replace(b"3.10", number.encode()))) == [update([], [("61000.2", number)])]


def test_further_elements_and_fields_pass(connection: Bitfinex) -> None:
    assert connection.decode(b'[17,"te",[88,1795428000123,-0.00030000,61000.10,"new"]]') == connection.decode(TE)
    assert connection.control(bare({"event": "brand new", "x": 1})) == Control("other")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("info", Control("other")),
        ("acknowledgement of a book", Control("subscribed", ("tBTCUSD",))),
        ("trade again", Control("other")),
        ("heartbeat", Control("other")),
        ("refusal", Control("refused", ("tFOOBAR",), "symbol: invalid")),
        ("configuration", Control("other")),
        ("another's end", Control("unsubscribed")),
        ("stop", Control("other")),
        ("pong", Control("other")),
    ],
)
def test_replies_and_heartbeats_are_no_data(name: str, said: Control) -> None:
    decoder = DECODER.fork()
    assert list(decoder.decode(FRAMES[name])) == []
    assert decoder.control(FRAMES[name]) == said
    assert not decoder.book_ids(FRAMES[name])


@pytest.mark.parametrize(
    "frame",
    [
        b"{}",
        b"[]",
        b"[17]",
        TE[:-1],
        TE.replace(b'"te"', b'"fte"'),
        TE.replace(b"61000.10", b"null"),
        TE.replace(b"88", b"-88"),
        TE.replace(b",61000.10", b""),
        b'[17,"cs",1]',
        b"[17,[88,1795428000123,-0.1,61000]]",
        b'[18,"te",[88,1795428000123,-0.1,61000]]',
        b"[18,[[61000,3]]]",
        b"[18,[61000,1.5,2]]",
        b'[18,"cs","x"]',
        b"[99,[61000,1,2]]",
    ],
)
def test_anything_else_is_an_error(connection: Bitfinex, frame: bytes) -> None:
    with pytest.raises(DecodeError):
        connection.decode(frame)


def test_the_checksum_takes_25_levels_a_side_in_turn() -> None:
    bids = [(f"{100 - i}", f"{i + 1}") for i in range(26)]
    asks = [("101", "1.5"), ("102", "1e-7")]
    rest = ":".join(f"{100 - i}:{i + 1}" for i in range(2, 25))
    assert book_checksum(bids, asks) % 2**32 == crc32(f"100:1:101:-1.5:99:2:102:-1e-7:{rest}".encode())
    assert book_checksum([("1", "2")], []) == crc32(b"1:2")
    assert book_checksum([("10", "2")], []) == crc32(b"10:2") - 2**32
