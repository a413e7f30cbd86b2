"""Upbit's frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import json

import pytest

from collectors.decode import BookIds, Control, DecodeError, decoder
from collectors.events import BookEvent, Event, Trade

ONE = decoder("upbit")
TRADE = (
    b'{"type":"trade","code":"KRW-BTC","timestamp":1700000000130,"trade_date":"2023-11-14","trade_time":"22:13:20",'
    b'"trade_timestamp":1700000000122,"trade_price":61685000,"trade_volume":5.673e-05,"ask_bid":"ASK",'
    b'"prev_closing_price":61600000,"change":"RISE","change_price":85000,"sequential_id":17000000001220000,'
    b'"best_ask_price":61686000,"best_bid_price":61685000,"stream_type":"REALTIME"}'
)
BOOK = (
    b'{"type":"orderbook","code":"KRW-BTC","timestamp":1700000000466,"total_ask_size":0.75,"total_bid_size":3.5,'
    b'"orderbook_units":[{"ask_price":61686000,"bid_price":61685000.0,"ask_size":0.25000000,"bid_size":1.5},'
    b'{"ask_price":61687000,"bid_price":61684000,"ask_size":1E-8,"bid_size":2}],"stream_type":"SNAPSHOT","level":0}'
)
FRAMES = {
    "trade": TRADE,
    "trade of a buyer": TRADE.replace(b'"ASK"', b'"BID"').replace(b"17000000001220000", b'"17000000001220001"'),
    "trade laid out anew": json.dumps({"stream_type": "REALTIME"} | json.loads(TRADE), indent=1).encode(),
    "book": BOOK,
    "book laid out anew": BOOK.replace(b",", b", ").replace(b'":', b'": '),
    "book with a missing side": BOOK.replace(b'"ask_price":61687000', b'"ask_price":null'),
    "empty book": BOOK[: BOOK.index(b"[")] + b"[]" + BOOK[BOOK.index(b"]") + 1 :],
    "refused": b'{"error":{"name":"WRONG_FORMAT","message":"Format is wrong"}}',
    "up": b'{"status":"UP"}',
}
WHOLE = BookEvent(
    "KRW-BTC",
    1_700_000_000_466_000_000,
    "snapshot",
    None,
    None,
    None,
    [("61685000.0", "1.5"), ("61684000", "2")],
    [("61686000", "0.25000000"), ("61687000", "1E-8")],
)


@pytest.mark.parametrize(
    ("name", "events"),
    [
        (
            "trade",
            [Trade("KRW-BTC", 1_700_000_000_122_000_000, "17000000001220000", False, "61685000", "5.673e-05")],
        ),
        (
            "trade of a buyer",
            [Trade("KRW-BTC", 1_700_000_000_122_000_000, "17000000001220001", True, "61685000", "5.673e-05")],
        ),
        (
            "trade laid out anew",
            [Trade("KRW-BTC", 1_700_000_000_122_000_000, "17000000001220000", False, "61685000", "5.673e-05")],
        ),
        ("book", [WHOLE]),
        ("book laid out anew", [WHOLE]),
        (
            "book with a missing side",
            [
                BookEvent(
                    "KRW-BTC",
                    1_700_000_000_466_000_000,
                    "snapshot",
                    None,
                    None,
                    None,
                    [("61685000.0", "1.5"), ("61684000", "2")],
                    [("61686000", "0.25000000")],
                )
            ],
        ),
        ("empty book", [BookEvent("KRW-BTC", 1_700_000_000_466_000_000, "snapshot", None, None, None, [], [])]),
        ("refused", []),
        ("up", []),
    ],
)
def test_each_message_yields_its_events(name: str, events: list[Event]) -> None:
    assert list(ONE.decode(FRAMES[name])) == events


@pytest.mark.parametrize(
    "number", [b"0.000000000000000001", b"123456789012345678.123456789012345678", b"1e-18", b"1E+5", b"0", b"-0.0"]
)
def test_every_digit_stays_as_it_was_sent(number: bytes) -> None:
    (trade,) = ONE.decode(TRADE.replace(b"61685000,", number + b",", 1))
    (book,) = ONE.decode(BOOK.replace(b"0.25000000", number))
    assert isinstance(trade, Trade)
    assert isinstance(book, BookEvent)
    assert trade.price == number.decode()
    assert book.asks[0] == ("61686000", number.decode())


def test_unknown_codes_and_fields_pass_through() -> None:
    (trade,) = ONE.decode(TRADE.replace(b"KRW-BTC", b"USDT-NEW").replace(b"{", b'{"new":{"deep":[1]},', 1))
    assert trade.native_id == "USDT-NEW"


def test_books_have_no_ids() -> None:
    assert list(ONE.book_ids(BOOK)) == [BookIds("KRW-BTC", None, None, None, True)]
    assert not ONE.book_ids(TRADE)


@pytest.mark.parametrize(
    ("name", "control"),
    [
        ("refused", Control("refused", detail="WRONG_FORMAT: Format is wrong")),
        ("up", Control("other")),
        ("trade", None),
        ("book laid out anew", None),
    ],
)
def test_replies_are_told_from_data(name: str, control: Control | None) -> None:
    assert ONE.control(FRAMES[name]) == control


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b'{"type":"ticker","code":"KRW-BTC"}',
        b'{"ty":"trade","cd":"KRW-BTC"}',
        TRADE.replace(b"61685000,", b'"much",', 1),
        TRADE.replace(b"61685000,", b"null,", 1),
        TRADE.replace(b'"trade_volume":5.673e-05,', b""),
        TRADE.replace(b'"ASK"', b'"BOTH"'),
        BOOK.replace(b'"level":0', b'"level":1000'),
        BOOK.replace(b"0.25000000", b"{}"),
        BOOK.replace(b"0.25000000", b""),
        BOOK.replace(b'"bid_size":2}', b"}"),
        BOOK.replace(b'"bid_size":2}', b'"size":2}'),
        BOOK[:-1],
    ],
)
def test_what_is_no_frame_of_the_exchange_raises_and_says_what_was_found(payload: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        ONE.decode(payload)
    assert str(caught.value)
