"""Binance spot's frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.decode import EXCHANGES, BookIds, DecodeError, UnknownExchangeError, decoder
from collectors.events import BookEvent, Quote, Trade

BINANCE = decoder("binance")
TRADE = {
    "e": "trade",
    "E": 1700000000123,
    "s": "BTCUSDT",
    "t": 42,
    "p": "61685.99000000",
    "q": "0.00010000",
    "T": 1700000000122,
    "m": True,
    "M": True,
}
QUOTE = {"u": 7, "s": "BTCUSDT", "b": "1.10", "B": "2.0", "a": "1.20", "A": "3.0"}
DEPTH = {
    "e": "depthUpdate",
    "E": 1700000000123,
    "s": "BTCUSDT",
    "U": 7,
    "u": 9,
    "b": [["1.10", "2.0"], ["1.00", "0.00000000"]],
    "a": [],
}


def bare(data: dict[str, object]) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def wrapped(stream: str, data: dict[str, object]) -> bytes:
    return bare({"stream": stream, "data": data})


def reordered(stream: str, data: dict[str, object]) -> bytes:
    return json.dumps({"data": data, "stream": stream}, indent=1).encode()


@pytest.mark.parametrize("lay_out", [wrapped, reordered, lambda _, data: bare(data)])
def test_each_event_is_read_however_it_is_laid_out(lay_out: Callable[[str, dict[str, object]], bytes]) -> None:
    assert list(BINANCE.decode(lay_out("btcusdt@trade", TRADE))) == [
        Trade("BTCUSDT", 1_700_000_000_122_000_000, "42", False, "61685.99000000", "0.00010000")
    ]
    assert list(BINANCE.decode(lay_out("btcusdt@bookTicker", QUOTE))) == [
        Quote("BTCUSDT", None, 7, "1.10", "2.0", "1.20", "3.0")
    ]
    assert list(BINANCE.decode(lay_out("btcusdt@depth@100ms", DEPTH))) == [
        BookEvent(
            "BTCUSDT",
            1_700_000_000_123_000_000,
            "update",
            7,
            9,
            None,
            [("1.10", "2.0"), ("1.00", "0.00000000")],
            [],
        )
    ]
    assert BINANCE.book_ids(lay_out("btcusdt@depth@100ms", DEPTH)) == (BookIds("BTCUSDT", 7, 9, None),)
    for stream, data, channel in (
        ("btcusdt@trade", TRADE, "trades"),
        ("btcusdt@bookTicker", QUOTE, "quotes"),
        ("btcusdt@depth@100ms", DEPTH, "book_events"),
    ):
        assert BINANCE.control(lay_out(stream, data)) is None
        if channel != "book_events":
            assert not BINANCE.book_ids(lay_out(stream, data))


def test_microseconds_are_told_from_milliseconds() -> None:
    (event,) = BINANCE.decode(bare(TRADE | {"T": 1700000000122345}))
    assert event.time == 1_700_000_000_122_345_000


def test_the_taker_bought_where_the_buyer_was_not_the_maker() -> None:
    (event,) = BINANCE.decode(bare(TRADE | {"m": False}))
    assert isinstance(event, Trade)
    assert event.is_buy is True


def test_order_ids_are_kept_where_the_wire_has_them() -> None:
    (event,) = BINANCE.decode(bare(TRADE | {"b": 88, "a": 50}))
    assert isinstance(event, Trade)
    assert (event.buy_order_id, event.sell_order_id) == ("88", "50")


@pytest.mark.parametrize("number", ["0.000000000000000001", "123456789012345678.123456789012345678", "1e-18", "1E+5"])
def test_every_digit_stays_as_it_was_sent(number: str) -> None:
    (trade,) = BINANCE.decode(bare(TRADE | {"p": number}))
    (book,) = BINANCE.decode(bare(DEPTH | {"a": [[number, number]]}))
    assert isinstance(trade, Trade)
    assert isinstance(book, BookEvent)
    assert trade.price == number
    assert book.asks == [(number, number)]


def test_unknown_fields_are_passed_over() -> None:
    assert list(BINANCE.decode(wrapped("btcusdt@trade", TRADE | {"new": {"deep": [1]}}))) == list(
        BINANCE.decode(bare(TRADE))
    )


@pytest.mark.parametrize(
    "reply",
    [
        {"result": None, "id": 1},
        {"result": ["btcusdt@trade"], "id": 3},
        {"error": {"code": 2, "msg": "Invalid request"}, "id": "x"},
        {"code": -1121, "msg": "Invalid symbol."},
        {"e": "serverShutdown", "E": 1700000000123},
    ],
)
def test_replies_and_notices_yield_nothing(reply: dict[str, object]) -> None:
    assert list(BINANCE.decode(bare(reply))) == []
    assert BINANCE.control(bare(reply)) is not None
    assert not BINANCE.book_ids(bare(reply))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[1]",
        b"null",
        b"\xff\xfe",
        bare({"e": "kline", "E": 1}),
        wrapped("btcusdt@kline_1m", {"e": "kline", "E": 1}),
        wrapped("btcusdt@trade", DEPTH),
        bare(TRADE | {"p": 61685.99}),
        bare(TRADE | {"t": 2**63}),
        bare(TRADE | {"t": -1}),
        bare({key: value for key, value in TRADE.items() if key != "q"}),
        bare(DEPTH | {"b": [["1.1"]]}),
        bare(DEPTH | {"b": [["1.1", "2", "3"]]}),
        bare(TRADE)[:-1],
        b'{"data":' * 5000 + b"1" + b"}" * 5000,
    ],
)
def test_what_is_no_frame_of_the_exchange_raises_and_says_what_was_found(payload: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        list(BINANCE.decode(payload))
    assert str(caught.value)


@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_but_a_decode_error(payload: bytes) -> None:
    for prefix in (b"", b'{"stream":"btcusdt@trade","data":', b'{"e":"depthUpdate",'):
        with contextlib.suppress(DecodeError):
            list(BINANCE.decode(prefix + payload))
        BINANCE.control(prefix + payload)
        BINANCE.book_ids(prefix + payload)
        with pytest.raises(DecodeError):
            BINANCE.decode_snapshot("BTCUSDT", prefix + payload)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from([TRADE, QUOTE, DEPTH]), st.dictionaries(st.sampled_from("esEtTpqmuUbBaA"), _JSON, max_size=3))
def test_wrong_fields_raise_nothing_but_a_decode_error(data: dict[str, object], wrong: dict[str, object]) -> None:
    with contextlib.suppress(DecodeError):
        list(BINANCE.decode(bare(data | wrong)))


def test_a_snapshot_is_the_whole_book() -> None:
    reply = bare({"lastUpdateId": 160, "bids": [["1.1", "2"]], "asks": [["1.2", "3"], ["1.3", "4"]]})
    assert BINANCE.decode_snapshot("BTCUSDT", reply) == BookEvent(
        "BTCUSDT", None, "snapshot", 160, 160, None, [("1.1", "2")], [("1.2", "3"), ("1.3", "4")]
    )
    with pytest.raises(DecodeError):
        BINANCE.decode_snapshot("BTCUSDT", bare({"code": -1003, "msg": "Too many requests."}))


def test_a_snapshot_is_asked_for_where_the_configuration_says() -> None:
    assert (
        BINANCE.snapshot_url("BTCUSDT", "http://127.0.0.1:1")
        == "http://127.0.0.1:1/api/v3/depth?symbol=BTCUSDT&limit=5000"
    )
    assert BINANCE.snapshot_url("BTCUSDT").startswith("https://")


def test_an_unknown_exchange_is_answered_with_those_there_are() -> None:
    assert "binance" in EXCHANGES
    with pytest.raises(UnknownExchangeError, match="'nowhere'; expected one of: binance"):
        decoder("nowhere")


FRAMES = {
    "trade": wrapped("btcusdt@trade", TRADE),
    "trade alone": bare(TRADE),
    "quote": wrapped("btcusdt@bookTicker", QUOTE),
    "book update": wrapped("btcusdt@depth@100ms", DEPTH),
    "book update alone": bare(DEPTH),
    "subscribed": bare({"result": None, "id": 1}),
    "refused": bare({"error": {"code": 2, "msg": "Invalid request"}, "id": "x"}),
}
