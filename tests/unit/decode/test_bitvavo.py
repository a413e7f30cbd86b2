"""Bitvavo's frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from collectors.decode import BookIds, Control, DecodeError
from collectors.decode.bitvavo import DECODER as BITVAVO
from collectors.events import BookEvent, Trade

MS = 1_795_428_000_123
NS = MS * 1_000_000


def bare(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


FILL = {
    "event": "trade",
    "timestamp": MS,
    "market": "BTC-EUR",
    "id": "450c3298-0000-4461-9e2c-a0262cc7cc2e",
    "amount": "0.00030000",
    "price": "61000.10",
    "side": "buy",
}
UPDATE = {
    "event": "book",
    "market": "BTC-EUR",
    "nonce": 11,
    "bids": [["61000.00", "0"], ["60999.99", "1.5"]],
    "asks": [["61000.10", "3.0"]],
}
SNAPSHOT = {key: value for key, value in UPDATE.items() if key != "event"}
ACK = bare({"event": "subscribed", "subscriptions": {"book": ["BTC-EUR"], "trades": ["BTC-EUR"]}})
REFUSAL = bare({"action": "subscribe", "errorCode": 205, "error": "market parameter is invalid.", "market": "FOO-BAR"})
FRAMES = {
    "trade": bare(FILL),
    "update": bare(UPDATE),
    "update with time": bare(UPDATE | {"timestamp": NS + 1}),
    "acknowledgement": ACK,
    "refusal": REFUSAL,
    "ticker": bare({"event": "ticker", "market": "BTC-EUR", "bestBid": "61000"}),
}


def test_a_trade() -> None:
    uuid = "450c3298-0000-4461-9e2c-a0262cc7cc2e"
    assert list(BITVAVO.decode(bare(FILL))) == [Trade("BTC-EUR", NS, uuid, True, "61000.10", "0.00030000")]
    assert list(BITVAVO.decode(bare(FILL | {"side": "sell", "timestampNs": NS + 7}))) == [
        Trade("BTC-EUR", NS + 7, uuid, False, "61000.10", "0.00030000")
    ]


def test_books_chain_by_nonce() -> None:
    bids, asks = [("61000.00", "0"), ("60999.99", "1.5")], [("61000.10", "3.0")]
    assert list(BITVAVO.decode(bare(UPDATE))) == [BookEvent("BTC-EUR", None, "update", 11, 11, None, bids, asks)]
    assert list(BITVAVO.book_ids(bare(UPDATE))) == [BookIds("BTC-EUR", 11, 11, None)]
    assert BITVAVO.decode_snapshot("BTC-EUR", bare(SNAPSHOT)) == BookEvent(
        "BTC-EUR", None, "snapshot", 11, 11, None, bids, asks
    )
    assert BITVAVO.snapshot_url("BTC-EUR") == "https://api.bitvavo.com/v2/BTC-EUR/book?depth=1000"
    assert not BITVAVO.book_ids(bare(FILL))


def test_a_lost_update_shows_in_the_ids() -> None:
    (one,), (two,) = BITVAVO.book_ids(bare(UPDATE)), BITVAVO.book_ids(bare(UPDATE | {"nonce": 13}))
    assert one.last is not None
    assert two.first != one.last + 1


@pytest.mark.parametrize("time", [MS, NS])
def test_milliseconds_are_told_from_nanoseconds(time: int) -> None:
    (update,) = BITVAVO.decode(bare(UPDATE | {"timestamp": time}))
    assert update.time == NS
    assert BITVAVO.decode_snapshot("BTC-EUR", bare(SNAPSHOT | {"timestamp": time})).time == NS


def test_the_layout_does_not_matter() -> None:
    for message in (FILL, UPDATE):
        turned = json.dumps(dict(reversed(message.items())), indent=1).encode()
        assert BITVAVO.decode(turned) == BITVAVO.decode(bare(message))
        assert BITVAVO.control(turned) is None
        assert BITVAVO.book_ids(turned) == BITVAVO.book_ids(bare(message))


@pytest.mark.parametrize("number", ["0.000000000000000001", "123456789012345678.123456789012345678", "1e-18", "1E+5"])
def test_every_digit_stays_as_it_was_sent(number: str) -> None:
    (trade,) = BITVAVO.decode(bare(FILL | {"price": number}))
    (book,) = BITVAVO.decode(bare(UPDATE | {"bids": [[number, number]]}))
    assert isinstance(trade, Trade)
    assert isinstance(book, BookEvent)
    assert (trade.price, book.bids) == (number, [(number, number)])


def test_unknown_markets_and_fields_pass() -> None:
    (trade,) = BITVAVO.decode(bare(FILL | {"market": "NEW-ÄÖ", "new": {"deep": [1]}}))
    assert trade.native_id == "NEW-ÄÖ"


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (ACK, Control("subscribed")),
        (bare({"event": "unsubscribed", "subscriptions": {}}), Control("unsubscribed")),
        (bare({"event": "book", "subscriptions": {"book": ["BTC-EUR"]}}), Control("subscribed")),
        (REFUSAL, Control("refused", ("FOO-BAR",), "market parameter is invalid.")),
        (bare({"errorCode": 110, "error": "Invalid endpoint."}), Control("refused", (), "Invalid endpoint.")),
        (bare({"action": "getTime", "response": {"time": MS}}), Control("other")),
        (FRAMES["ticker"], Control("other")),
    ],
)
def test_replies_and_tickers_are_no_data(frame: bytes, said: Control) -> None:
    assert list(BITVAVO.decode(frame)) == []
    assert BITVAVO.control(frame) == said
    assert not BITVAVO.book_ids(frame)


@pytest.mark.parametrize(
    "payload",
    [
        b"{}",
        b"[]",
        bare(FILL)[:-1],
        bare(FILL | {"event": "fill"}),
        bare(FILL | {"price": 61000.1}),
        bare(FILL | {"side": "hold"}),
        bare(FILL | {"timestamp": "now"}),
        bare({key: value for key, value in FILL.items() if key != "id"}),
        bare({key: value for key, value in UPDATE.items() if key != "nonce"}),
        bare(UPDATE | {"nonce": 2**63}),
        bare(UPDATE | {"bids": [["1"]]}),
    ],
)
def test_anything_else_is_an_error(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        BITVAVO.decode(payload)


@pytest.mark.parametrize("reply", [b"", b"{}", b"[]", bare(SNAPSHOT)[:-2], bare({"errorCode": 205, "error": "x"})])
def test_a_snapshot_that_is_none_is_an_error(reply: bytes) -> None:
    with pytest.raises(DecodeError):
        BITVAVO.decode_snapshot("BTC-EUR", reply)
