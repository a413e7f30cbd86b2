"""Bithumb's frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import json

import pytest

from collectors.decode import BookIds, Control, DecodeError, decoder
from collectors.events import BookEvent, Event, Trade

ONE = decoder("bithumb")
TRADE = (
    b'{"type":"trade","code":"KRW-BTC","trade_price":95539000,"trade_volume":0.00022664,"ask_bid":"BID",'
    b'"prev_closing_price":94201000,"change":"RISE","change_price":1338000,"trade_date":"2023-11-14",'
    b'"trade_time":"22:13:20","trade_timestamp":1700000000138,"sequential_id":862683813820523888,'
    b'"timestamp":1700000000398,"stream_type":"REALTIME"}'
)
BOOK = (
    b'{"type":"orderbook","code":"KRW-BTC","total_ask_size":4.7398,"total_bid_size":0.2889,"orderbook_units":['
    b'{"ask_price":95340000,"bid_price":95339000,"ask_size":0.0007,"bid_size":0.0024},'
    b'{"ask_price":95341000,"bid_price":95338000,"ask_size":7e-05,"bid_size":1.50}],"level":1,'
    b'"timestamp":1700000000348968,"stream_type":"SNAPSHOT"}'
)
FRAMES = {
    "trade": TRADE,
    "trade of a seller": TRADE.replace(b'"BID"', b'"ASK"'),
    "trade laid out anew": json.dumps({"stream_type": "REALTIME"} | json.loads(TRADE), indent=1).encode(),
    "book": BOOK,
    "book with its time as text": BOOK.replace(b"1700000000348968", b'"1700000000348968"'),
    "book laid out anew": BOOK.replace(b'":', b'": '),
    "refused": b'{"error":{"name":"WRONG_FORMAT","message":"Format is wrong"}}',
    "refused by status": b'{"status":"5100","resmsg":"Invalid Filter Syntax"}',
    "connected": b'{"status":"0000","resmsg":"Connected Successfully"}',
    "up": b'{"status":"UP"}',
    "pong": b"PONG",
}
WHOLE = BookEvent(
    "KRW-BTC",
    1_700_000_000_348_968_000,
    "snapshot",
    None,
    None,
    None,
    [("95339000", "0.0024"), ("95338000", "1.50")],
    [("95340000", "0.0007"), ("95341000", "7e-05")],
)
BOUGHT = Trade("KRW-BTC", 1_700_000_000_138_000_000, "862683813820523888", True, "95539000", "0.00022664")


@pytest.mark.parametrize(
    ("name", "events"),
    [
        ("trade", [BOUGHT]),
        ("trade laid out anew", [BOUGHT]),
        (
            "trade of a seller",
            [Trade("KRW-BTC", 1_700_000_000_138_000_000, "862683813820523888", False, "95539000", "0.00022664")],
        ),
        ("book", [WHOLE]),
        ("book with its time as text", [WHOLE]),
        ("book laid out anew", [WHOLE]),
        ("refused", []),
        ("connected", []),
        ("pong", []),
    ],
)
def test_each_message_yields_its_events(name: str, events: list[Event]) -> None:
    assert list(ONE.decode(FRAMES[name])) == events


@pytest.mark.parametrize("number", [b"0.000000000000000001", b"123456789012345678.123456789012345678", b"1e-18"])
def test_every_digit_stays_as_it_was_sent(number: bytes) -> None:
    (trade,) = ONE.decode(TRADE.replace(b"95539000", number))
    (book,) = ONE.decode(BOOK.replace(b"0.0007", number))
    assert isinstance(trade, Trade)
    assert isinstance(book, BookEvent)
    assert trade.price == number.decode()
    assert book.asks[0] == ("95340000", number.decode())


def test_unknown_codes_and_fields_pass_through() -> None:
    (trade,) = ONE.decode(TRADE.replace(b"KRW-BTC", b"BTC-NEW").replace(b"{", b'{"new":{"deep":[1]},', 1))
    assert trade.native_id == "BTC-NEW"


def test_books_have_no_ids() -> None:
    assert list(ONE.book_ids(BOOK)) == [BookIds("KRW-BTC", None, None, None, True)]
    assert not ONE.book_ids(TRADE)


@pytest.mark.parametrize(
    ("name", "control"),
    [
        ("refused", Control("refused", detail="WRONG_FORMAT: Format is wrong")),
        ("refused by status", Control("refused", detail="5100: Invalid Filter Syntax")),
        ("connected", Control("other")),
        ("up", Control("other")),
        ("pong", Control("other")),
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
        b'{"type":"transaction","content":{"list":[]}}',
        b'{"type":"ticker","code":"KRW-BTC"}',
        TRADE.replace(b"95539000", b'"much"'),
        TRADE.replace(b'"trade_volume":0.00022664,', b""),
        BOOK.replace(b'"level":1,', b'"level":1000,'),
        BOOK.replace(b'"timestamp":1700000000348968', b'"timestamp":"now"'),
        BOOK.replace(b"0.0007", b"[]"),
        BOOK[:-1],
    ],
)
def test_what_is_no_frame_of_the_exchange_raises_and_says_what_was_found(payload: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        ONE.decode(payload)
    assert str(caught.value)
