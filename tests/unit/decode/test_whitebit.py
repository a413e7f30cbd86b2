"""WhiteBIT's frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import json

import pytest

from collectors.decode import BookIds, Control, DecodeError, decoder
from collectors.events import BookEvent, Event, Trade

ONE = decoder("whitebit")
TRADES = (
    b'{"method":"trades_update","params":["BTC_USDT",['
    b'{"id":41358531,"time":1700000000.122345,"price":"61685.99","amount":"0.000100","type":"buy","rpi":false},'
    b'{"id":41358530,"time":1700000000.1,"price":"61685.98","amount":"0.5","type":"sell","rpi":true}]],"id":null}'
)
WHOLE = (
    b'{"method":"depth_update","params":[true,{"timestamp":1700000000.448288,"update_id":214399,'
    b'"asks":[["61686.01","0.5"]],"bids":[["61685.00","1.5"]],"event_time":1700000000.512598},"BTC_USDT"],"id":null}'
)
UPDATE = (
    b'{"method":"depth_update","params":[false,{"timestamp":1700000000.548734,"update_id":214403,'
    b'"past_update_id":214399,"asks":[["61686.01","0"],["61687.00","2"]],"event_time":1700000000.55},"BTC_USDT"],'
    b'"id":null}'
)


def started_with_id(frame: bytes) -> bytes:
    """The layout of the exchange's documentation."""
    return b'{"id":null,' + frame[1:-11] + b"}"


FRAMES = {
    "trades": TRADES,
    "trades with id first": started_with_id(TRADES),
    "whole book": WHOLE,
    "update": UPDATE,
    "update with id first": started_with_id(UPDATE),
    "update laid out anew": UPDATE.replace(b'":', b'": '),
    "subscribed": b'{"error":null,"result":{"status":"success"},"id":17}',
    "refused": b'{"error":{"code":1,"message":"invalid argument"},"result":null,"id":17}',
    "pong": b'{"error":null,"result":"pong","id":0}',
}
DECODED_TRADES = [
    Trade("BTC_USDT", 1_700_000_000_122_345_000, "41358531", True, "61685.99", "0.000100"),
    Trade("BTC_USDT", 1_700_000_000_100_000_000, "41358530", False, "61685.98", "0.5"),
]
DECODED_UPDATE = BookEvent(
    "BTC_USDT",
    1_700_000_000_548_734_000,
    "update",
    None,
    214403,
    214399,
    [],
    [("61686.01", "0"), ("61687.00", "2")],
)


@pytest.mark.parametrize(
    ("name", "events"),
    [
        ("trades", DECODED_TRADES),
        ("trades with id first", DECODED_TRADES),
        (
            "whole book",
            [
                BookEvent(
                    "BTC_USDT",
                    1_700_000_000_448_288_000,
                    "snapshot",
                    None,
                    214399,
                    None,
                    [("61685.00", "1.5")],
                    [("61686.01", "0.5")],
                )
            ],
        ),
        ("update", [DECODED_UPDATE]),
        ("update with id first", [DECODED_UPDATE]),
        ("update laid out anew", [DECODED_UPDATE]),
        ("subscribed", []),
        ("refused", []),
        ("pong", []),
    ],
)
def test_each_message_yields_its_events(name: str, events: list[Event]) -> None:
    assert list(ONE.decode(FRAMES[name])) == events


@pytest.mark.parametrize("number", ["0.000000000000000001", "123456789012345678.123456789012345678", "1e-18"])
def test_every_digit_stays_as_it_was_sent(number: str) -> None:
    trade, _ = ONE.decode(TRADES.replace(b"61685.99", number.encode()))
    (book,) = ONE.decode(UPDATE.replace(b'"2"', json.dumps(number).encode()))
    assert isinstance(trade, Trade)
    assert isinstance(book, BookEvent)
    assert trade.price == number
    assert book.asks[1] == ("61687.00", number)


@pytest.mark.parametrize(
    ("sent", "ns"),
    [
        (b"1700000000", 1_700_000_000_000_000_000),
        (b"1700000000.5", 1_700_000_000_500_000_000),
        (b"1700000000.123456789", 1_700_000_000_123_456_789),
        (b"1700000000.1234567899", 1_700_000_000_123_456_789),
        (b"170000000.5", 170_000_000_500_000_000),
    ],
)
def test_times_are_exact_however_many_digits_they_have(sent: bytes, ns: int) -> None:
    trade, _ = ONE.decode(TRADES.replace(b"1700000000.122345", sent))
    assert trade.time == ns


def test_unknown_markets_and_fields_pass_through() -> None:
    trade, _ = ONE.decode(TRADES.replace(b"BTC_USDT", b"NEW_PERP").replace(b'"rpi":false', b'"new":{"deep":[1]}'))
    assert trade.native_id == "NEW_PERP"


def test_a_break_of_the_sequence_shows() -> None:
    assert list(ONE.book_ids(WHOLE)) == [BookIds("BTC_USDT", None, 214399, None, True)]
    assert list(ONE.book_ids(UPDATE)) == [BookIds("BTC_USDT", None, 214403, 214399)]
    (after_a_loss,) = ONE.book_ids(UPDATE.replace(b"214403", b"214409").replace(b"214399", b"214405"))
    assert after_a_loss.previous == 214405
    assert not ONE.book_ids(TRADES)


@pytest.mark.parametrize(
    ("name", "control"),
    [
        ("subscribed", Control("subscribed")),
        ("refused", Control("refused", detail='{"code":1,"message":"invalid argument"}')),
        ("pong", Control("other")),
        ("trades", None),
        ("update with id first", None),
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
        b'{"method":"candles_update","params":[],"id":null}',
        TRADES.replace(b'"61685.99"', b"61685.99"),
        TRADES.replace(b'"buy"', b'"hold"'),
        TRADES.replace(b'"amount":"0.5",', b""),
        TRADES.replace(b"1700000000.122345", b'"soon"'),
        UPDATE.replace(b'"update_id":214403,', b""),
        UPDATE.replace(b"214403", str(2**63).encode()),
        UPDATE.replace(b'"timestamp":1700000000.548734,', b""),
        UPDATE.replace(b'["61687.00","2"]', b'["61687.00"]'),
        UPDATE.replace(b',"BTC_USDT"', b""),
        UPDATE[:-1],
    ],
)
def test_what_is_no_frame_of_the_exchange_raises_and_says_what_was_found(payload: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        ONE.decode(payload)
    assert str(caught.value)
