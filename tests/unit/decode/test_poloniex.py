"""Poloniex's frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import json

import pytest

from collectors.decode import BookIds, Control, DecodeError, decoder
from collectors.events import BookEvent, Event, Trade

ONE = decoder("poloniex")
TRADE = {
    "symbol": "BTC_USDT",
    "amount": "6.1685990",
    "quantity": "0.000100",
    "takerSide": "sell",
    "createTime": 1700000000122,
    "price": "61685.99",
    "id": "62486976",
    "ts": 1700000000130,
}
BOOK = {
    "symbol": "BTC_USDT",
    "createTime": 1700000000253,
    "asks": [["61686.01", "0.5"], ["61687.00", "0"]],
    "bids": [],
    "lastId": 100,
    "id": 101,
    "ts": 1700000000300,
}


def bare(data: object) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def framed(channel: str, *data: object, **more: object) -> bytes:
    return bare({"channel": channel, "data": list(data), **more})


FRAMES = {
    "trades": framed("trades", TRADE, TRADE | {"takerSide": "buy", "id": "62486977"}),
    "trade laid out anew": json.dumps({"data": [TRADE], "channel": "trades"}, indent=1).encode(),
    "snapshot": framed("book_lv2", BOOK | {"bids": [["61685.00", "1.5"]], "lastId": 99, "id": 100}, action="snapshot"),
    "update": framed("book_lv2", BOOK, action="update"),
    "update laid out anew": bare({"action": "update", "channel": "book_lv2", "data": [BOOK]}),
    "subscribed": bare({"channel": "trades", "symbols": ["BTC_USDT", "ETH_USDT"], "event": "subscribe"}),
    "unsubscribed": bare({"channel": "trades", "symbols": ["BTC_USDT"], "event": "unsubscribe"}),
    "refused": bare({"event": "error", "message": 'Invalid channel value ["tradess"]'}),
    "pong": bare({"event": "pong"}),
}


@pytest.mark.parametrize(
    ("name", "events"),
    [
        (
            "trades",
            [
                Trade("BTC_USDT", 1_700_000_000_122_000_000, "62486976", False, "61685.99", "0.000100"),
                Trade("BTC_USDT", 1_700_000_000_122_000_000, "62486977", True, "61685.99", "0.000100"),
            ],
        ),
        (
            "trade laid out anew",
            [Trade("BTC_USDT", 1_700_000_000_122_000_000, "62486976", False, "61685.99", "0.000100")],
        ),
        (
            "snapshot",
            [
                BookEvent(
                    "BTC_USDT",
                    1_700_000_000_253_000_000,
                    "snapshot",
                    None,
                    100,
                    None,
                    [("61685.00", "1.5")],
                    [("61686.01", "0.5"), ("61687.00", "0")],
                )
            ],
        ),
        (
            "update",
            [
                BookEvent(
                    "BTC_USDT",
                    1_700_000_000_253_000_000,
                    "update",
                    None,
                    101,
                    100,
                    [],
                    [("61686.01", "0.5"), ("61687.00", "0")],
                )
            ],
        ),
        ("subscribed", []),
        ("refused", []),
        ("pong", []),
    ],
)
def test_each_message_yields_its_events(name: str, events: list[Event]) -> None:
    assert list(ONE.decode(FRAMES[name])) == events


def test_the_layout_changes_nothing() -> None:
    assert list(ONE.decode(FRAMES["update laid out anew"])) == list(ONE.decode(FRAMES["update"]))


@pytest.mark.parametrize("number", ["0.000000000000000001", "123456789012345678.123456789012345678", "1e-18"])
def test_every_digit_stays_as_it_was_sent(number: str) -> None:
    (trade,) = ONE.decode(framed("trades", TRADE | {"price": number}))
    (book,) = ONE.decode(framed("book_lv2", BOOK | {"bids": [[number, number]]}, action="update"))
    assert isinstance(trade, Trade)
    assert isinstance(book, BookEvent)
    assert trade.price == number
    assert book.bids == [(number, number)]


def test_unknown_symbols_and_fields_pass_through() -> None:
    (trade,) = ONE.decode(framed("trades", TRADE | {"symbol": "NEW_COIN", "new": {"deep": [1]}}))
    assert trade.native_id == "NEW_COIN"


def test_a_break_of_the_sequence_shows() -> None:
    assert list(ONE.book_ids(FRAMES["snapshot"])) == [BookIds("BTC_USDT", None, 100, None, True)]
    assert list(ONE.book_ids(FRAMES["update"])) == [BookIds("BTC_USDT", None, 101, 100)]
    (after_a_loss,) = ONE.book_ids(framed("book_lv2", BOOK | {"lastId": 102, "id": 103}, action="update"))
    assert after_a_loss.previous == 102
    assert not ONE.book_ids(FRAMES["trades"])
    assert not ONE.book_ids(FRAMES["pong"])


@pytest.mark.parametrize(
    ("name", "control"),
    [
        ("subscribed", Control("subscribed", ("BTC_USDT", "ETH_USDT"))),
        ("unsubscribed", Control("unsubscribed", ("BTC_USDT",))),
        ("refused", Control("refused", detail='Invalid channel value ["tradess"]')),
        ("pong", Control("other")),
        ("trades", None),
        ("trade laid out anew", None),
        ("update laid out anew", None),
    ],
)
def test_replies_are_told_from_data(name: str, control: Control | None) -> None:
    assert ONE.control(FRAMES[name]) == control


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        framed("ticker", {}),
        framed("book", BOOK),
        bare({"event": "news"}),
        framed("trades", TRADE | {"price": 61685.99}),
        framed("trades", TRADE | {"takerSide": "both"}),
        framed("trades", {key: value for key, value in TRADE.items() if key != "quantity"}),
        framed("book_lv2", BOOK),
        framed("book_lv2", BOOK, action="partial"),
        framed("book_lv2", BOOK | {"id": 2**63}, action="update"),
        framed("book_lv2", BOOK | {"bids": [["1.1"]]}, action="update"),
        FRAMES["update"][:-1],
    ],
)
def test_what_is_no_frame_of_the_exchange_raises_and_says_what_was_found(payload: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        ONE.decode(payload)
    assert str(caught.value)
