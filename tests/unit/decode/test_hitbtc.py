"""HitBTC's frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import json

import pytest

from collectors.decode import BookIds, Control, DecodeError, decoder
from collectors.events import BookEvent, Event, Quote, Trade

ONE = decoder("hitbtc")
TRADE = {"t": 1700000000122, "i": 1555634969, "p": "61685.99", "q": "0.00010", "s": "sell"}
TOP = {"t": 1700000000200, "a": "61686.00", "A": "0.02879", "b": "61685.00", "B": "0.00100"}
BOOK = {"t": 1700000000300, "s": 8, "a": [["61686.00", "0"]], "b": [["61685.00", "1.5"], ["61684.00", "2"]]}


def bare(data: object) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def framed(channel: str, kind: str, **data: object) -> bytes:
    return bare({"ch": channel, kind: data})


FRAMES = {
    "recent trades": framed("trades", "snapshot", BTCUSDT=[TRADE]),
    "trades": framed("trades", "update", BTCUSDT=[TRADE, TRADE | {"i": 1555634970, "s": "buy"}], ETHUSDT=[TRADE]),
    "trade laid out anew": json.dumps({"update": {"BTCUSDT": [TRADE]}, "ch": "trades"}, indent=1).encode(),
    "top": framed("orderbook/top/100ms", "data", BTCUSDT=TOP),
    "top of a one-sided book": framed("orderbook/top/100ms", "data", BTCUSDT={"t": 1, "a": "1.5", "A": "2"}),
    "tops": framed("orderbook/top/100ms/batch", "data", BTCUSDT=TOP, ETHUSDT=TOP),
    "whole book": framed("orderbook/full", "snapshot", BTCUSDT=BOOK | {"s": 7}),
    "update": framed("orderbook/full", "update", BTCUSDT=BOOK),
    "subscribed": bare({"result": {"ch": "trades", "subscriptions": ["ETHBTC", "BTCUSDT"]}, "id": 123}),
    "refused": bare(
        {"jsonrpc": "2.0", "error": {"code": 2001, "message": "No such symbol", "description": "NONE"}, "id": 123}
    ),
    "done": bare({"jsonrpc": "2.0", "result": True}),
}
SOLD = Trade("BTCUSDT", 1_700_000_000_122_000_000, "1555634969", False, "61685.99", "0.00010")
BIDS = [("61685.00", "1.5"), ("61684.00", "2")]


@pytest.mark.parametrize(
    ("name", "events"),
    [
        ("recent trades", [SOLD]),
        (
            "trades",
            [
                SOLD,
                Trade("BTCUSDT", 1_700_000_000_122_000_000, "1555634970", True, "61685.99", "0.00010"),
                Trade("ETHUSDT", 1_700_000_000_122_000_000, "1555634969", False, "61685.99", "0.00010"),
            ],
        ),
        ("trade laid out anew", [SOLD]),
        (
            "top",
            [Quote("BTCUSDT", 1_700_000_000_200_000_000, None, "61685.00", "0.00100", "61686.00", "0.02879")],
        ),
        ("top of a one-sided book", [Quote("BTCUSDT", 1_000_000, None, None, None, "1.5", "2")]),
        (
            "tops",
            [
                Quote("BTCUSDT", 1_700_000_000_200_000_000, None, "61685.00", "0.00100", "61686.00", "0.02879"),
                Quote("ETHUSDT", 1_700_000_000_200_000_000, None, "61685.00", "0.00100", "61686.00", "0.02879"),
            ],
        ),
        (
            "whole book",
            [BookEvent("BTCUSDT", 1_700_000_000_300_000_000, "snapshot", 7, 7, None, BIDS, [("61686.00", "0")])],
        ),
        (
            "update",
            [BookEvent("BTCUSDT", 1_700_000_000_300_000_000, "update", 8, 8, None, BIDS, [("61686.00", "0")])],
        ),
        ("subscribed", []),
        ("refused", []),
    ],
)
def test_each_message_yields_its_events(name: str, events: list[Event]) -> None:
    assert list(ONE.decode(FRAMES[name])) == events


@pytest.mark.parametrize("number", ["0.000000000000000001", "123456789012345678.123456789012345678", "1e-18"])
def test_every_digit_stays_as_it_was_sent(number: str) -> None:
    (trade,) = ONE.decode(framed("trades", "update", BTCUSDT=[TRADE | {"p": number}]))
    (book,) = ONE.decode(framed("orderbook/full", "update", BTCUSDT=BOOK | {"a": [[number, number]]}))
    assert isinstance(trade, Trade)
    assert isinstance(book, BookEvent)
    assert trade.price == number
    assert book.asks == [(number, number)]


def test_unknown_symbols_and_fields_pass_through() -> None:
    (trade,) = ONE.decode(framed("trades", "update", NEW_PERP=[TRADE | {"new": {"deep": [1]}}]))
    assert trade.native_id == "NEW_PERP"


def test_a_break_of_the_sequence_shows() -> None:
    assert list(ONE.book_ids(FRAMES["whole book"])) == [BookIds("BTCUSDT", 7, 7, None, True)]
    assert list(ONE.book_ids(FRAMES["update"])) == [BookIds("BTCUSDT", 8, 8, None)]
    (after_a_loss,) = ONE.book_ids(framed("orderbook/full", "update", BTCUSDT=BOOK | {"s": 10}))
    assert after_a_loss.first == 10
    assert not ONE.book_ids(FRAMES["trades"])
    assert not ONE.book_ids(FRAMES["top"])


@pytest.mark.parametrize(
    ("name", "control"),
    [
        ("subscribed", Control("subscribed", ("ETHBTC", "BTCUSDT"))),
        ("refused", Control("refused", detail="No such symbol: NONE")),
        ("done", Control("other")),
        ("trades", None),
        ("trade laid out anew", None),
        ("top", None),
    ],
)
def test_replies_are_told_from_data(name: str, control: Control | None) -> None:
    assert ONE.control(FRAMES[name]) == control


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        framed("ticker/1s", "data", BTCUSDT={}),
        framed("orderbook/D20/100ms", "data", BTCUSDT=BOOK),
        framed("trades", "data", BTCUSDT=[TRADE]),
        framed("orderbook/full", "data", BTCUSDT=BOOK),
        framed("trades", "update", BTCUSDT=[TRADE | {"p": 61685.99}]),
        framed("trades", "update", BTCUSDT=[TRADE | {"s": "both"}]),
        framed("trades", "update", BTCUSDT=[{key: value for key, value in TRADE.items() if key != "q"}]),
        framed("orderbook/full", "update", BTCUSDT=BOOK | {"s": 2**63}),
        framed("orderbook/full", "update", BTCUSDT=BOOK | {"a": [["1.1"]]}),
        FRAMES["update"][:-1],
    ],
)
def test_what_is_no_frame_of_the_exchange_raises_and_says_what_was_found(payload: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        ONE.decode(payload)
    assert str(caught.value)
