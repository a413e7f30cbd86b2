"""Hyperliquid's frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import json

import pytest

from collectors.decode import BookIds, Control, DecodeError, decoder
from collectors.events import BookEvent, Derivative, Event, Trade

ONE = decoder("hyperliquid")
TRADE = {
    "coin": "BTC",
    "side": "A",
    "px": "61685.0",
    "sz": "0.00010",
    "time": 1700000000122,
    "hash": "0x00ff",
    "tid": 604438142537043,
    "users": ["0x01", "0x02"],
}
BOOK = {
    "coin": "BTC",
    "time": 1700000000500,
    "levels": [
        [{"px": "61685.0", "sz": "1.5", "n": 3}, {"px": "61684.0", "sz": "2.0", "n": 1}],
        [{"px": "61686.0", "sz": "0.25", "n": 2}],
    ],
}
CONTEXT = {
    "funding": "-0.0000125",
    "openInterest": "38485.06546",
    "prevDayPx": "60000.0",
    "dayNtlVlm": "1.5",
    "premium": None,
    "oraclePx": "61680.1",
    "markPx": "61684.0",
    "midPx": None,
}


def bare(data: object) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def framed(channel: str, data: object) -> bytes:
    return bare({"channel": channel, "data": data})


FRAMES = {
    "trades": framed("trades", [TRADE, TRADE | {"side": "B", "tid": 7}]),
    "trade laid out anew": json.dumps({"data": [TRADE], "channel": "trades"}, indent=1).encode(),
    "book": framed("l2Book", BOOK),
    "book laid out anew": json.dumps({"data": BOOK, "channel": "l2Book"}, indent=1).encode(),
    "state": framed("activeAssetCtx", {"coin": "BTC", "ctx": CONTEXT}),
    "subscribed": framed(
        "subscriptionResponse", {"method": "subscribe", "subscription": {"type": "trades", "coin": "BTC"}}
    ),
    "refused": framed("error", 'Invalid subscription {"type":"trades","coin":"NONE"}'),
    "asked twice": framed("error", 'Already subscribed: {"type":"trades","coin":"BTC"}'),
    "pong": bare({"channel": "pong"}),
}


@pytest.mark.parametrize(
    ("name", "events"),
    [
        (
            "trades",
            [
                Trade("BTC", 1_700_000_000_122_000_000, "604438142537043", False, "61685.0", "0.00010"),
                Trade("BTC", 1_700_000_000_122_000_000, "7", True, "61685.0", "0.00010"),
            ],
        ),
        (
            "trade laid out anew",
            [Trade("BTC", 1_700_000_000_122_000_000, "604438142537043", False, "61685.0", "0.00010")],
        ),
        (
            "book",
            [
                BookEvent(
                    "BTC",
                    1_700_000_000_500_000_000,
                    "snapshot",
                    None,
                    None,
                    None,
                    [("61685.0", "1.5"), ("61684.0", "2.0")],
                    [("61686.0", "0.25")],
                )
            ],
        ),
        (
            "state",
            [
                Derivative(
                    native_id="BTC",
                    time=None,
                    funding_rate="-0.0000125",
                    open_interest="38485.06546",
                    mark_price="61684.0",
                    index_price="61680.1",
                )
            ],
        ),
        ("pong", []),
    ],
)
def test_each_message_yields_its_events(name: str, events: list[Event]) -> None:
    assert list(ONE.decode(FRAMES[name])) == events


def test_trade_ids_may_be_text() -> None:
    (trade,) = ONE.decode(framed("trades", [TRADE | {"tid": "604438142537043"}]))
    assert isinstance(trade, Trade)
    assert trade.trade_id == "604438142537043"


@pytest.mark.parametrize("number", ["0.000000000000000001", "123456789012345678.123456789012345678", "1e-18"])
def test_every_digit_stays_as_it_was_sent(number: str) -> None:
    (trade,) = ONE.decode(framed("trades", [TRADE | {"px": number}]))
    (book,) = ONE.decode(framed("l2Book", BOOK | {"levels": [[], [{"px": number, "sz": number, "n": 1}]]}))
    assert isinstance(trade, Trade)
    assert isinstance(book, BookEvent)
    assert trade.price == number
    assert (book.bids, book.asks) == ([], [(number, number)])


def test_spot_pairs_and_unknown_names_pass_through() -> None:
    (trade,) = ONE.decode(framed("trades", [TRADE | {"coin": "@107", "new": {"deep": [1]}}]))
    assert trade.native_id == "@107"


@pytest.mark.parametrize(
    ("name", "control"),
    [
        ("subscribed", Control("subscribed", ("BTC",))),
        ("refused", Control("refused", detail='Invalid subscription {"type":"trades","coin":"NONE"}')),
        ("asked twice", Control("other", detail='Already subscribed: {"type":"trades","coin":"BTC"}')),
        ("pong", Control("other")),
        ("trades", None),
        ("book laid out anew", None),
        ("state", None),
    ],
)
def test_replies_are_told_from_data(name: str, control: Control | None) -> None:
    assert ONE.control(FRAMES[name]) == control


def test_an_unsubscription_is_told() -> None:
    answer = framed(
        "subscriptionResponse", {"method": "unsubscribe", "subscription": {"type": "l2Book", "coin": "ETH"}}
    )
    assert ONE.control(answer) == Control("unsubscribed", ("ETH",))


def test_books_have_no_ids() -> None:
    assert list(ONE.book_ids(FRAMES["book"])) == [BookIds("BTC", None, None, None, True)]
    assert not ONE.book_ids(FRAMES["trades"])


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        bare({"channel": "candle", "data": {}}),
        bare({"channel": "allMids", "data": {}}),
        framed("trades", [TRADE | {"px": 61685.0}]),
        framed("trades", [TRADE | {"side": "C"}]),
        framed("trades", [{key: value for key, value in TRADE.items() if key != "sz"}]),
        framed("l2Book", BOOK | {"levels": [[]]}),
        framed("activeAssetCtx", {"coin": "BTC", "ctx": {"markPx": "1"}}),
        FRAMES["book"][:-1],
    ],
)
def test_what_is_no_frame_of_the_exchange_raises_and_says_what_was_found(payload: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        ONE.decode(payload)
    assert str(caught.value)
