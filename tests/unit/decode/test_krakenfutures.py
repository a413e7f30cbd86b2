"""Kraken Futures' frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from collectors.decode import BookIds, Control, DecodeError
from collectors.decode.krakenfutures import DECODER as KRAKEN
from collectors.events import BookEvent, Derivative, Liquidation, Trade

MS = 1_795_428_000_123
NS = MS * 1_000_000


def bare(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


TRADE = (
    b'{"feed":"trade","product_id":"PF_XBTUSD","uid":"u-8","side":"sell","type":"fill","seq":88,"time":1795428000123,'
    b'"qty":0.00030,"price":61000.0}'
)
LIQUIDATION = TRADE.replace(b'"fill"', b'"liquidation"')
TRADES = (
    b'{"feed":"trade_snapshot","product_id":"PF_XBTUSD","trades":['
    + TRADE.replace(b"u-8", b"u-7").replace(b'"fill"', b'"liquidation"')
    + b","
    + TRADE.replace(b"u-8", b"u-6").replace(b'"sell"', b'"buy"')
    + b"]}"
)
BOOK = (
    b'{"feed":"book","product_id":"PF_XBTUSD","side":"sell","seq":11,"price":61000.50,"qty":0.0,'
    b'"timestamp":1795428000123}'
)
SNAPSHOT = (
    b'{"feed":"book_snapshot","product_id":"PF_XBTUSD","timestamp":1795428000123,"seq":10,"tickSize":null,'
    b'"bids":[{"price":61000,"qty":6385},{"price":60999.5,"qty":1.50}],"asks":[{"price":61000.50,"qty":2e1}]}'
)
TICKER = (
    b'{"time":1795428000123,"product_id":"PF_XBTUSD","funding_rate":0.31,"relative_funding_rate":2.18013888889e-7,'
    b'"next_funding_rate_time":1795431600000,"feed":"ticker","bid":61000,"ask":61000.5,"bid_size":2,"ask_size":3,'
    b'"index":61001.140,"tag":"perpetual","openInterest":28875946.00,"markPrice":61000.92082724592}'
)
FRAMES = {
    "trade": TRADE,
    "liquidation": LIQUIDATION,
    "trade snapshot": TRADES,
    "update": BOOK,
    "snapshot": SNAPSHOT,
    "ticker": TICKER,
    "info": bare({"event": "info", "version": 1}),
    "acknowledgement": bare({"event": "subscribed", "feed": "book", "product_ids": ["PF_XBTUSD"]}),
    "refusal": bare({"event": "error", "message": "Invalid product id"}),
    "alert": bare({"event": "alert", "message": "Already subscribed to feed, re-requesting"}),
    "heartbeat": bare({"feed": "heartbeat", "time": MS}),
    "ticker_lite": bare({"feed": "ticker_lite", "product_id": "PF_XBTUSD", "bid": 1753.45, "ask": 1760.35}),
}


def test_a_trade() -> None:
    assert list(KRAKEN.decode(TRADE)) == [Trade("PF_XBTUSD", NS, "u-8", False, "61000.0", "0.00030")]


@pytest.mark.parametrize("kind", [b'"liquidation"', b'"termination"'])
def test_a_forced_trade_is_two_events(kind: bytes) -> None:
    assert list(KRAKEN.decode(TRADE.replace(b'"fill"', kind))) == [
        Trade("PF_XBTUSD", NS, "u-8", False, "61000.0", "0.00030"),
        Liquidation("PF_XBTUSD", NS, "u-8", False, "61000.0", "0.00030"),
    ]


def test_trades_sent_again_on_subscribing_are_turned_into_their_order() -> None:
    assert list(KRAKEN.decode(TRADES)) == [
        Trade("PF_XBTUSD", NS, "u-6", True, "61000.0", "0.00030"),
        Trade("PF_XBTUSD", NS, "u-7", False, "61000.0", "0.00030"),
        Liquidation("PF_XBTUSD", NS, "u-7", False, "61000.0", "0.00030"),
    ]


def test_books_chain_by_seq() -> None:
    assert list(KRAKEN.decode(SNAPSHOT)) == [
        BookEvent(
            "PF_XBTUSD", NS, "snapshot", 10, 10, None, [("61000", "6385"), ("60999.5", "1.50")], [("61000.50", "2e1")]
        )
    ]
    assert list(KRAKEN.decode(BOOK)) == [BookEvent("PF_XBTUSD", NS, "update", 11, 11, None, [], [("61000.50", "0.0")])]
    assert list(KRAKEN.decode(BOOK.replace(b'"sell"', b'"buy"'))) == [
        BookEvent("PF_XBTUSD", NS, "update", 11, 11, None, [("61000.50", "0.0")], [])
    ]
    assert list(KRAKEN.book_ids(SNAPSHOT)) == [BookIds("PF_XBTUSD", 10, 10, None, is_snapshot=True)]
    assert list(KRAKEN.book_ids(BOOK)) == [BookIds("PF_XBTUSD", 11, 11, None)]
    assert not KRAKEN.book_ids(TRADE)


def test_a_lost_update_shows_in_the_ids() -> None:
    (one,), (two,) = KRAKEN.book_ids(BOOK), KRAKEN.book_ids(BOOK.replace(b'"seq":11', b'"seq":13'))
    assert one.last is not None
    assert two.first != one.last + 1


def test_the_state_of_a_derivative() -> None:
    whole = Derivative(
        native_id="PF_XBTUSD",
        time=NS,
        funding_rate="2.18013888889e-7",
        funding_time=1_795_431_600_000_000_000,
        open_interest="28875946.00",
        mark_price="61000.92082724592",
        index_price="61001.140",
    )
    assert list(KRAKEN.decode(TICKER)) == [whole]
    zero = TICKER.replace(b'"relative_funding_rate":2.18013888889e-7,', b"")
    (event,) = KRAKEN.decode(zero)
    assert isinstance(event, Derivative)
    assert event.funding_rate == "0", "of a perpetual the exchange leaves out a rate of zero"
    (event,) = KRAKEN.decode(zero.replace(b"perpetual", b"month").replace(b'"markPrice":61000.92082724592', b'"x":1'))
    assert isinstance(event, Derivative)
    assert (event.funding_rate, event.mark_price) == (None, None)


def test_the_layout_does_not_matter() -> None:
    for frame in (TRADE, BOOK, SNAPSHOT, TRADES):
        turned = b"{" + frame[frame.index(b",") + 1 : -1] + b", " + frame[1 : frame.index(b",")] + b"}"
        assert KRAKEN.decode(turned) == KRAKEN.decode(frame)
        assert KRAKEN.control(turned) is None
        assert KRAKEN.book_ids(turned) == KRAKEN.book_ids(frame)


@pytest.mark.parametrize("number", ["0.000000000000000001", "123456789012345678.123456789012345678", "1E-18", "1e+5"])
def test_every_digit_stays_as_it_was_sent(number: str) -> None:
    (trade,) = KRAKEN.decode(TRADE.replace(b"61000.0", number.encode()))
    (book,) = KRAKEN.decode(BOOK.replace(b"61000.50", number.encode()))
    assert isinstance(trade, Trade)
    assert isinstance(book, BookEvent)
    assert (trade.price, book.asks) == (number, [(number, "0.0")])


def test_unknown_products_and_fields_pass() -> None:
    (trade,) = KRAKEN.decode(TRADE.replace(b"PF_XBTUSD", b"PF_NEWUSD").replace(b'"seq"', b'"new":[{}],"seq"'))
    assert trade.native_id == "PF_NEWUSD"


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (FRAMES["info"], Control("other")),
        (FRAMES["acknowledgement"], Control("subscribed", ("PF_XBTUSD",))),
        (
            FRAMES["acknowledgement"].replace(b'"subscribed"', b'"unsubscribed"'),
            Control("unsubscribed", ("PF_XBTUSD",)),
        ),
        (
            FRAMES["acknowledgement"].replace(b'"subscribed"', b'"subscribed_failed"'),
            Control("refused", ("PF_XBTUSD",), "subscribed_failed"),
        ),
        (FRAMES["refusal"], Control("refused", (), "Invalid product id")),
        (bare({"event": "alert", "message": "Bad request"}), Control("refused", (), "Bad request")),
        (FRAMES["alert"], Control("other")),
        (FRAMES["heartbeat"], Control("other")),
        (FRAMES["ticker_lite"], Control("other")),
        (bare({"event": "pong"}), Control("other")),
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
        TRADE.replace(b'"trade"', b'"fills"'),
        TRADE.replace(b"61000.0", b"null"),
        TRADE.replace(b'"uid":"u-8",', b""),
        TRADE.replace(b"sell", b"short"),
        TRADE.replace(b"1795428000123", b"1795428000.123"),
        BOOK.replace(b'"seq":11,', b""),
        BOOK.replace(b'"seq":11,', b'"seq":9223372036854775808,'),
        SNAPSHOT.replace(b'"qty":6385', b'"q":6385'),
        TICKER.replace(b"61001.140", b"[]"),
    ],
)
def test_anything_else_is_an_error(frame: bytes) -> None:
    with pytest.raises(DecodeError):
        KRAKEN.decode(frame)


@pytest.mark.captures
def test_recorded_traffic_decodes_completely(captures: Path) -> None:
    """Traffic of 2021: every frame is still of a known kind, and every book chains from its snapshot on."""
    kinds: Counter[str] = Counter()
    raw: Counter[str] = Counter()
    found: Counter[str] = Counter()
    last: dict[str, int] = {}
    breaks = 0
    with gzip.open(captures / "cryptofeed" / "KRAKEN_FUTURES.ws.1.0.gz", "rt") as lines:
        for line in lines:
            stamp, _, text = line.rstrip("\n").partition(": ")
            if not stamp.replace(".", "").isdigit():
                continue
            said, payload = json.loads(text), text.encode()
            kind = said.get("event") or said["feed"]
            kinds[kind] += 1
            raw["Trade"] += len(said.get("trades", [])) + (kind == "trade")
            raw["levels"] += sum(len(said.get(side, [])) for side in ("bids", "asks")) + (kind == "book")
            events = KRAKEN.decode(payload)
            assert bool(events) is (KRAKEN.control(payload) is None)
            for event in events:
                found[event.kind if isinstance(event, BookEvent) else type(event).__name__] += 1
                if isinstance(event, BookEvent):
                    assert event.first_id is not None
                    found["levels"] += len(event.bids) + len(event.asks)
                    if event.kind == "update":
                        breaks += event.first_id != last[event.native_id] + 1
                    last[event.native_id] = event.first_id
    assert kinds == {
        "book": 7014,
        "ticker_lite": 107,
        "subscribed": 30,
        "book_snapshot": 10,
        "trade_snapshot": 10,
        "trade": 3,
        "info": 1,
    }
    liquidations = found.pop("Liquidation", 0)
    assert found == {"update": 7014, "snapshot": 10} | raw
    assert (breaks, liquidations) == (0, 0)
