"""Coinbase Exchange's frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from collectors.decode import BookIds, Control, DecodeError
from collectors.decode.coinbaseexchange import DECODER as COINBASE
from collectors.events import BookEvent, Trade

AT = "2026-11-23T10:00:00.123456Z"
NS = 1_795_428_000_123_456_000
MATCH = {
    "type": "match",
    "trade_id": 88,
    "maker_order_id": "m-1",
    "taker_order_id": "t-1",
    "side": "sell",
    "size": "0.00030000",
    "price": "61000.10",
    "product_id": "BTC-USD",
    "sequence": 5000000001,
    "time": AT,
}
UPDATE = {
    "type": "l2update",
    "product_id": "BTC-USD",
    "changes": [["buy", "61000.00", "1.50000000"], ["sell", "61000.10", "0.00000000"], ["buy", "60999.99", "0"]],
    "time": AT,
}
SNAPSHOT = {
    "type": "snapshot",
    "product_id": "BTC-USD",
    "asks": [["61000.10", "3.0"], ["61001", "2"]],
    "bids": [["61000.00", "1.50000000"]],
}


def bare(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


ACK = bare({"type": "subscriptions", "channels": [{"name": "matches", "product_ids": ["BTC-USD"]}]})
REFUSAL = bare({"type": "error", "message": "Failed to subscribe", "reason": "FOO-BAR is not a valid product"})
FRAMES = {
    "match": bare(MATCH),
    "last match": bare(MATCH | {"type": "last_match"}),
    "snapshot": bare(SNAPSHOT),
    "snapshot with time": bare(SNAPSHOT | {"time": AT}),
    "update": bare(UPDATE),
    "acknowledgement": ACK,
    "refusal": REFUSAL,
    "heartbeat": bare({"type": "heartbeat", "sequence": 9, "last_trade_id": 88, "product_id": "BTC-USD", "time": AT}),
    "ticker": bare({"type": "ticker", "product_id": "BTC-USD", "price": "61000.1", "best_bid": "61000.0", "time": AT}),
}


@pytest.mark.parametrize("kind", ["match", "last_match"])
def test_the_taker_bought_where_the_maker_sold(kind: str) -> None:
    assert list(COINBASE.decode(bare(MATCH | {"type": kind}))) == [
        Trade("BTC-USD", NS, "88", True, "61000.10", "0.00030000", "t-1", "m-1")
    ]
    assert list(COINBASE.decode(bare(MATCH | {"type": kind, "side": "buy"}))) == [
        Trade("BTC-USD", NS, "88", False, "61000.10", "0.00030000", "m-1", "t-1")
    ]


def test_books() -> None:
    bids, asks = [("61000.00", "1.50000000")], [("61000.10", "3.0"), ("61001", "2")]
    assert list(COINBASE.decode(bare(SNAPSHOT))) == [
        BookEvent("BTC-USD", None, "snapshot", None, None, None, bids, asks)
    ]
    assert list(COINBASE.decode(FRAMES["snapshot with time"])) == [
        BookEvent("BTC-USD", NS, "snapshot", None, None, None, bids, asks)
    ]
    assert list(COINBASE.decode(bare(UPDATE))) == [
        BookEvent(
            "BTC-USD",
            NS,
            "update",
            None,
            None,
            None,
            [("61000.00", "1.50000000"), ("60999.99", "0")],
            [("61000.10", "0.00000000")],
        )
    ]
    assert list(COINBASE.book_ids(bare(SNAPSHOT))) == [BookIds("BTC-USD", None, None, None, is_snapshot=True)]
    assert list(COINBASE.book_ids(bare(UPDATE))) == [BookIds("BTC-USD", None, None, None)]
    assert not COINBASE.book_ids(bare(MATCH))


def test_the_layout_does_not_matter() -> None:
    for message in (MATCH, UPDATE, SNAPSHOT):
        turned = json.dumps(dict(reversed(message.items())), indent=1).encode()
        assert COINBASE.decode(turned) == COINBASE.decode(bare(message))
        assert COINBASE.control(turned) is None
        assert COINBASE.book_ids(turned) == COINBASE.book_ids(bare(message))


@pytest.mark.parametrize("number", ["0.000000000000000001", "123456789012345678.123456789012345678", "1e-18", "1E+5"])
def test_every_digit_stays_as_it_was_sent(number: str) -> None:
    (trade,) = COINBASE.decode(bare(MATCH | {"price": number}))
    (book,) = COINBASE.decode(bare(UPDATE | {"changes": [["buy", number, number]]}))
    assert isinstance(trade, Trade)
    assert isinstance(book, BookEvent)
    assert (trade.price, book.bids) == (number, [(number, number)])


def test_unknown_products_and_fields_pass() -> None:
    (trade,) = COINBASE.decode(bare(MATCH | {"product_id": "NEW-ÄÖ", "new": {"deep": [1]}}))
    assert trade.native_id == "NEW-ÄÖ"


@pytest.mark.parametrize("time", ["2026-11-23T10:00:00Z", "2026-11-23T10:00:00.5Z", "2026-11-23T10:00:00.000000001Z"])
def test_times_of_any_precision(time: str) -> None:
    (trade,) = COINBASE.decode(bare(MATCH | {"time": time}))
    fraction = int(time[20:-1].ljust(9, "0")) if "." in time else 0
    assert trade.time == 1_795_428_000_000_000_000 + fraction


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (ACK, Control("subscribed")),
        (REFUSAL, Control("refused", (), "Failed to subscribe: FOO-BAR is not a valid product")),
        (FRAMES["heartbeat"], Control("other")),
        (FRAMES["ticker"], Control("other")),
    ],
)
def test_replies_and_heartbeats_are_no_data(frame: bytes, said: Control) -> None:
    assert list(COINBASE.decode(frame)) == []
    assert COINBASE.control(frame) == said
    assert not COINBASE.book_ids(frame)


@pytest.mark.parametrize(
    "frame",
    [
        b"{}",
        b"[]",
        bare(MATCH)[:-1],
        bare(MATCH | {"type": "received"}),
        bare(MATCH | {"price": 61000.1}),
        bare(MATCH | {"trade_id": "88"}),
        bare(MATCH | {"side": "SELL"}),
        bare(MATCH | {"time": "yesterday"}),
        bare({key: value for key, value in MATCH.items() if key != "size"}),
        bare(UPDATE | {"changes": [["hold", "1", "2"]]}),
        bare(UPDATE | {"changes": [["buy", "1"]]}),
        bare(SNAPSHOT | {"bids": [["1"]]}),
    ],
)
def test_anything_else_is_an_error(frame: bytes) -> None:
    with pytest.raises(DecodeError):
        COINBASE.decode(frame)


@pytest.mark.captures
def test_recorded_traffic_decodes_completely(captures: Path) -> None:
    """Traffic of 2021: every frame is still of a known kind."""
    kinds: Counter[str] = Counter()
    levels: Counter[str] = Counter()
    found: Counter[str] = Counter()
    with gzip.open(captures / "cryptofeed" / "COINBASE.ws.28.0.gz", "rt") as lines:
        for line in lines:
            stamp, _, payload = line.rstrip("\n").partition(": ")
            if not stamp.replace(".", "").isdigit():
                continue
            said = json.loads(payload)
            kinds[said["type"]] += 1
            levels["bids"] += len(said.get("bids", [])) + sum(c[0] == "buy" for c in said.get("changes", []))
            levels["asks"] += len(said.get("asks", [])) + sum(c[0] == "sell" for c in said.get("changes", []))
            events = COINBASE.decode(payload.encode())
            assert bool(events) is (COINBASE.control(payload.encode()) is None)
            for event in events:
                found[type(event).__name__ if isinstance(event, Trade) else event.kind] += 1  # type: ignore[union-attr]
                if isinstance(event, BookEvent):
                    found["bids"] += len(event.bids)
                    found["asks"] += len(event.asks)
    assert kinds == {"l2update": 9719, "ticker": 107, "match": 97, "snapshot": 10, "last_match": 10, "subscriptions": 3}
    assert found == {"Trade": 107, "update": 9719, "snapshot": 10} | levels
