"""Bitstamp's frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from collectors.decode import BookIds, Control, DecodeError
from collectors.decode.bitstamp import DECODER as BITSTAMP
from collectors.events import BookEvent, Derivative, Trade

US = 1_795_428_000_123_456
NS = US * 1_000


def bare(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def frame(channel: str, event: str, data: dict[str, Any]) -> bytes:
    return bare({"data": data, "channel": channel, "event": event})


FILL = {
    "id": 88,
    "timestamp": "1795428000",
    "amount": 0.0003,
    "amount_str": "0.00030000",
    "price": 61000.1,
    "price_str": "61000.10",
    "type": 1,
    "microtimestamp": str(US),
    "buy_order_id": 1443875737346049,
    "sell_order_id": 1443875731320832,
}
DIFF = {
    "timestamp": "1795428000",
    "microtimestamp": str(US),
    "bids": [["61000.00", "1.50000000"], ["60999.99", "0.00000000"]],
    "asks": [["61000.10", "3.0"]],
}
FUNDING = {
    "market": "btcusd-perp",
    "mark_price": "61000.92082724",
    "index_price": "61001.140",
    "funding_rate": "0.00013",
    "timestamp": "1795428000",
    "next_funding_time": "1795431600",
}
TRADE = frame("live_trades_btcusd", "trade", FILL)
UPDATE = frame("diff_order_book_btcusd", "data", DIFF)
STATE = frame("funding_rate_btcusd-perp", "funding_rate_saved", FUNDING)
REFUSAL = bare({"event": "bts:error", "channel": "", "data": {"code": None, "message": "Bad subscription string."}})
FRAMES = {
    "trade": TRADE,
    "update": UPDATE,
    "state": STATE,
    "acknowledgement": bare({"event": "bts:subscription_succeeded", "channel": "live_trades_btcusd", "data": {}}),
    "end": bare({"event": "bts:unsubscription_succeeded", "channel": "diff_order_book_btcusd", "data": {}}),
    "refusal": REFUSAL,
    "reconnect": bare({"event": "bts:request_reconnect", "channel": "", "data": ""}),
    "heartbeat": bare({"event": "bts:heartbeat", "channel": "", "data": {"status": "success"}}),
}


def test_a_trade() -> None:
    sold = Trade("btcusd", NS, "88", False, "61000.10", "0.00030000", "1443875737346049", "1443875731320832")
    assert list(BITSTAMP.decode(TRADE)) == [sold]
    bought = Trade("btcusd", NS, "88", True, "61000.10", "0.00030000")
    without = {key: value for key, value in FILL.items() if "order_id" not in key} | {"type": 0}
    assert list(BITSTAMP.decode(frame("live_trades_btcusd", "trade", without))) == [bought]


def test_books_are_ordered_by_their_microseconds() -> None:
    bids, asks = [("61000.00", "1.50000000"), ("60999.99", "0.00000000")], [("61000.10", "3.0")]
    assert list(BITSTAMP.decode(UPDATE)) == [BookEvent("btcusd", NS, "update", US, US, None, bids, asks)]
    assert list(BITSTAMP.book_ids(UPDATE)) == [BookIds("btcusd", US, US, None)]
    assert BITSTAMP.decode_snapshot("btcusd", bare(DIFF)) == BookEvent(
        "btcusd", NS, "snapshot", US, US, None, bids, asks
    )
    assert BITSTAMP.snapshot_url("btcusd") == "https://www.bitstamp.net/api/v2/order_book/btcusd/?group=1"
    assert not BITSTAMP.book_ids(TRADE)


def test_the_state_of_a_perpetual() -> None:
    assert list(BITSTAMP.decode(STATE)) == [
        Derivative(
            native_id="btcusd-perp",
            time=1_795_428_000 * 10**9,
            funding_rate="0.00013",
            funding_time=1_795_431_600 * 10**9,
            mark_price="61000.92082724",
            index_price="61001.140",
        )
    ]


def test_the_layout_does_not_matter() -> None:
    for one in (TRADE, UPDATE, STATE):
        turned = json.dumps(dict(reversed(json.loads(one).items())), indent=1).encode()
        assert BITSTAMP.decode(turned) == BITSTAMP.decode(one)
        assert BITSTAMP.control(turned) is None
        assert BITSTAMP.book_ids(turned) == BITSTAMP.book_ids(one)


@pytest.mark.parametrize("number", ["0.000000000000000001", "123456789012345678.123456789012345678", "1e-18", "1E+5"])
def test_every_digit_stays_as_it_was_sent(number: str) -> None:
    (trade,) = BITSTAMP.decode(frame("live_trades_btcusd", "trade", FILL | {"price_str": number}))
    (book,) = BITSTAMP.decode(frame("diff_order_book_btcusd", "data", DIFF | {"bids": [[number, number]]}))
    assert isinstance(trade, Trade)
    assert isinstance(book, BookEvent)
    assert (trade.price, book.bids) == (number, [(number, number)])


def test_unknown_pairs_and_fields_pass() -> None:
    (trade,) = BITSTAMP.decode(frame("live_trades_new_ä", "trade", FILL | {"new": {"channel": "diff_order_book_x"}}))
    assert trade.native_id == "new_ä"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("acknowledgement", Control("subscribed", ("btcusd",))),
        ("end", Control("unsubscribed", ("btcusd",))),
        ("refusal", Control("refused", (), "Bad subscription string.")),
        ("reconnect", Control("other", (), "bts:request_reconnect")),
        ("heartbeat", Control("other", (), "bts:heartbeat")),
    ],
)
def test_replies_and_heartbeats_are_no_data(name: str, said: Control) -> None:
    assert list(BITSTAMP.decode(FRAMES[name])) == []
    assert BITSTAMP.control(FRAMES[name]) == said
    assert not BITSTAMP.book_ids(FRAMES[name])


@pytest.mark.parametrize(
    "payload",
    [
        b"{}",
        b"[]",
        TRADE[:-1],
        frame("live_orders_btcusd", "order_created", FILL),
        frame("live_trades_btcusd", "data", FILL),
        frame("diff_order_book_btcusd", "data", FILL),
        frame("live_trades_btcusd", "trade", FILL | {"price_str": 61000.1}),
        frame("live_trades_btcusd", "trade", FILL | {"type": 2}),
        frame("live_trades_btcusd", "trade", FILL | {"microtimestamp": "1795428000.123456"}),
        frame("live_trades_btcusd", "trade", {key: value for key, value in FILL.items() if key != "id"}),
        frame("diff_order_book_btcusd", "data", DIFF | {"bids": [["1"]]}),
        frame("diff_order_book_btcusd", "data", DIFF | {"bids": [["1", "2", "3"]]}),
        frame("funding_rate_btcusd-perp", "funding_rate_saved", FUNDING | {"timestamp": "now"}),
    ],
)
def test_anything_else_is_an_error(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        BITSTAMP.decode(payload)


@pytest.mark.parametrize("reply", [b"", b"{}", b"[]", bare(DIFF)[:-2], bare(DIFF | {"microtimestamp": 1})])
def test_a_snapshot_that_is_none_is_an_error(reply: bytes) -> None:
    with pytest.raises(DecodeError):
        BITSTAMP.decode_snapshot("btcusd", reply)


@pytest.mark.captures
def test_recorded_traffic_decodes_completely(captures: Path) -> None:
    """Traffic of 2022: every frame and every snapshot is still of a known kind, and updates are in order."""
    raw: Counter[str] = Counter()
    found: Counter[str] = Counter()
    last: dict[str, int] = {}
    with gzip.open(captures / "cryptofeed" / "BITSTAMP.ws.1.0.gz", "rt") as lines:
        for line in lines:
            stamp, _, text = line.rstrip("\n").partition(": ")
            if not stamp.replace(".", "").isdigit():
                continue
            said = json.loads(text)
            raw[said["event"]] += 1
            raw["levels"] += sum(len(said["data"].get(side, [])) for side in ("bids", "asks"))
            events = BITSTAMP.decode(text.encode())
            assert bool(events) is (BITSTAMP.control(text.encode()) is None)
            found["bts:subscription_succeeded"] += not events
            for event in events:
                found["data" if isinstance(event, BookEvent) else "trade"] += 1
                if isinstance(event, BookEvent):
                    assert event.last_id is not None
                    found["levels"] += len(event.bids) + len(event.asks)
                    assert event.last_id > last.get(event.native_id, 0)
                    last[event.native_id] = event.last_id
    assert found == raw
    assert (raw["trade"], raw["data"], raw["bts:subscription_succeeded"]) == (10, 717, 20)
    with gzip.open(captures / "cryptofeed" / "BITSTAMP.http.0.0.gz", "rt") as lines:
        replies = [line.split(": ", 1)[1] for line in lines if "/order_book/" in line]
    for reply in replies:
        said = json.loads(reply)
        book = BITSTAMP.decode_snapshot("x", reply.encode())
        assert (len(book.bids), len(book.asks)) == (len(said["bids"]), len(said["asks"]))
    assert len(replies) == 10
