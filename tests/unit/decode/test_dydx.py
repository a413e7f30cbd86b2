"""dYdX's frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import json

import pytest

from collectors.decode import BookIds, Control, DecodeError, decoder
from collectors.events import BookEvent, Event, Trade

ONE = decoder("dydx")
TRADE = {
    "id": "02b6148d0000000200000005",
    "side": "BUY",
    "size": "0.024",
    "price": "61685",
    "type": "LIMIT",
    "createdAt": "2023-11-14T22:13:20.119Z",
    "createdAtHeight": "45487245",
}
WHOLE = {"bids": [{"price": "61685", "size": "0.1112"}], "asks": [{"price": "61686", "size": "0.0872"}]}
UPDATE = {"asks": [["61686", "0"], ["61687", "1.5"]]}


def framed(kind: str, number: int, channel: str, contents: object, market: str = "BTC-USD") -> bytes:
    frame = {
        "type": kind,
        "connection_id": "9011edff-d8f7-47fc-bbc6-0c7b5ba7dfae",
        "message_id": number,
        "id": market,
        "channel": channel,
        "version": "1.0.0",
        "contents": contents,
    }
    return json.dumps(frame, separators=(",", ":")).encode()


FRAMES = {
    "connected": b'{"type":"connected","connection_id":"9011edff","message_id":0}',
    "recent trades": framed("subscribed", 1, "v4_trades", {"trades": [TRADE]}),
    "no recent trades": framed("subscribed", 1, "v4_trades", {"trades": []}),
    "trades": framed("channel_data", 3, "v4_trades", {"trades": [TRADE, TRADE | {"side": "SELL", "id": "02b7"}]}),
    "trades in a batch": framed("channel_batch_data", 4, "v4_trades", [{"trades": [TRADE]}, {"trades": [TRADE]}]),
    "whole book": framed("subscribed", 2, "v4_orderbook", WHOLE),
    "update": framed("channel_data", 5, "v4_orderbook", UPDATE),
    "update laid out anew": json.dumps(
        dict(reversed(json.loads(framed("channel_data", 5, "v4_orderbook", UPDATE)).items()))
    ).encode(),
    "updates in a batch": framed("channel_batch_data", 6, "v4_orderbook", [UPDATE, {"bids": [["61685", "2"]]}]),
    "unsubscribed": b'{"type":"unsubscribed","message_id":7,"channel":"v4_trades","id":"BTC-USD"}',
    "refused": b'{"type":"error","message":"Invalid id: NONE","connection_id":"9011edff","message_id":8}',
}
BOUGHT = Trade("BTC-USD", 1_700_000_000_119_000_000, "02b6148d0000000200000005", True, "61685", "0.024")
CHANGED = BookEvent("BTC-USD", None, "update", None, None, None, [], [("61686", "0"), ("61687", "1.5")])


@pytest.mark.parametrize(
    ("name", "events"),
    [
        ("connected", []),
        ("recent trades", [BOUGHT]),
        ("no recent trades", []),
        ("trades", [BOUGHT, Trade("BTC-USD", 1_700_000_000_119_000_000, "02b7", False, "61685", "0.024")]),
        ("trades in a batch", [BOUGHT, BOUGHT]),
        (
            "whole book",
            [BookEvent("BTC-USD", None, "snapshot", None, None, None, [("61685", "0.1112")], [("61686", "0.0872")])],
        ),
        ("update", [CHANGED]),
        ("update laid out anew", [CHANGED]),
        (
            "updates in a batch",
            [CHANGED, BookEvent("BTC-USD", None, "update", None, None, None, [("61685", "2")], [])],
        ),
        ("unsubscribed", []),
        ("refused", []),
    ],
)
def test_each_message_yields_its_events(name: str, events: list[Event]) -> None:
    assert list(ONE.decode(FRAMES[name])) == events


@pytest.mark.parametrize("number", ["0.000000000000000001", "123456789012345678.123456789012345678", "1e-18"])
def test_every_digit_stays_as_it_was_sent(number: str) -> None:
    (trade,) = ONE.decode(framed("channel_data", 3, "v4_trades", {"trades": [TRADE | {"price": number}]}))
    (book,) = ONE.decode(framed("channel_data", 5, "v4_orderbook", {"bids": [[number, number]]}))
    assert isinstance(trade, Trade)
    assert isinstance(book, BookEvent)
    assert trade.price == number
    assert book.bids == [(number, number)]


@pytest.mark.parametrize(
    ("sent", "ns"),
    [
        ("2023-11-14T22:13:20.119Z", 1_700_000_000_119_000_000),
        ("2023-11-14T22:13:20Z", 1_700_000_000_000_000_000),
        ("2023-11-14T22:13:20.119456789Z", 1_700_000_000_119_456_789),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000_000_000_000),
    ],
)
def test_times_are_exact_however_they_are_written(sent: str, ns: int) -> None:
    (trade,) = ONE.decode(framed("channel_data", 3, "v4_trades", {"trades": [TRADE | {"createdAt": sent}]}))
    assert trade.time == ns


def test_unknown_markets_and_fields_pass_through() -> None:
    contents = {"trades": [TRADE | {"new": {"deep": [1]}}]}
    (trade,) = ONE.decode(framed("channel_data", 3, "v4_trades", contents, market="NEW-USD"))
    assert trade.native_id == "NEW-USD"


def test_a_lost_frame_shows_in_the_numbers_of_the_connection() -> None:
    assert [ONE.frame_number(FRAMES[name]) for name in ("connected", "recent trades", "whole book")] == [0, 1, 2]
    assert ONE.frame_number(FRAMES["update laid out anew"]) == 5
    assert ONE.frame_number(FRAMES["refused"]) == 8
    assert ONE.frame_number(b'{"type":"channel_data"}') is None


def test_books_have_no_ids_of_their_own() -> None:
    assert list(ONE.book_ids(FRAMES["whole book"])) == [BookIds("BTC-USD", None, None, None, True)]
    assert list(ONE.book_ids(FRAMES["update"])) == [BookIds("BTC-USD", None, None, None)]
    assert not ONE.book_ids(FRAMES["trades"])
    assert not ONE.book_ids(FRAMES["connected"])


@pytest.mark.parametrize(
    ("name", "control"),
    [
        ("connected", Control("other")),
        ("recent trades", Control("subscribed", ("BTC-USD",))),
        ("whole book", Control("subscribed", ("BTC-USD",))),
        ("unsubscribed", Control("unsubscribed", ("BTC-USD",))),
        ("refused", Control("refused", detail="Invalid id: NONE")),
        ("trades", None),
        ("update laid out anew", None),
        ("updates in a batch", None),
    ],
)
def test_replies_are_told_from_data(name: str, control: Control | None) -> None:
    assert ONE.control(FRAMES[name]) == control


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        framed("channel_data", 3, "v4_candles", {}),
        framed("channel_news", 3, "v4_trades", {"trades": [TRADE]}),
        framed("channel_data", 3, "v4_trades", {"trades": [TRADE | {"price": 61685}]}),
        framed("channel_data", 3, "v4_trades", {"trades": [TRADE | {"side": "BOTH"}]}),
        framed("channel_data", 3, "v4_trades", {"trades": [TRADE | {"createdAt": "yesterday"}]}),
        framed("channel_data", 3, "v4_trades", {"trades": [{k: v for k, v in TRADE.items() if k != "size"}]}),
        framed("channel_data", 5, "v4_orderbook", {}),
        framed("channel_data", 5, "v4_orderbook", {"bids": [["1.1"]]}),
        framed("channel_data", 5, "v4_orderbook", [UPDATE]),
        framed("subscribed", 5, "v4_orderbook", UPDATE),
        FRAMES["update"][:-1],
    ],
)
def test_what_is_no_frame_of_the_exchange_raises_and_says_what_was_found(payload: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        ONE.decode(payload)
    assert str(caught.value)
