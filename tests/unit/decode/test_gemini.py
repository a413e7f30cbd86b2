"""Gemini's frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from collectors.decode import BookIds, Control, DecodeError
from collectors.decode.gemini import DECODER as GEMINI
from collectors.events import BookEvent, Trade

MS = 1_795_428_000_123
NS = MS * 1_000_000


def bare(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def change(side: str, price: str, remaining: str, reason: str = "place", symbol: str = "BTCUSD") -> dict[str, str]:
    return {
        "type": "change",
        "symbol": symbol,
        "side": side,
        "price": price,
        "remaining": remaining,
        "delta": "1",
        "reason": reason,
    }


def frame(*events: dict[str, Any], **others: Any) -> bytes:
    head = {"type": "update", "eventId": 36902233362, "timestamp": MS // 1000, "timestampms": MS, "socket_sequence": 7}
    return bare(head | others | {"events": list(events)})


FILL = {
    "type": "trade",
    "symbol": "BTCUSD",
    "tid": 88,
    "price": "61000.10",
    "amount": "0.0003",
    "makerSide": "bid",
}
TRADES = frame(FILL, FILL | {"tid": 89, "makerSide": "ask"}, FILL | {"tid": 90, "makerSide": "auction"})
SNAPSHOT = frame(
    change("bid", "61000.00", "1.50000000", "initial"),
    change("bid", "60999.99", "2", "initial"),
    change("ask", "61000.10", "3.0", "initial"),
)
UPDATE = frame(
    change("bid", "61000.00", "0", "cancel"),
    change("ask", "0.000000001", "4105123935484.817624", symbol="SHIBUSD"),
    change("ask", "61000.20", "1"),
)
HEARTBEAT = bare({"type": "heartbeat", "timestamp": MS // 1000, "timestampms": MS, "socket_sequence": 8})
REFUSAL = bare({"result": "error", "reason": "InvalidSymbol", "message": "Supplied value 'FOOBAR' is not a symbol"})
FRAMES = {"trades": TRADES, "snapshot": SNAPSHOT, "update": UPDATE, "heartbeat": HEARTBEAT, "refusal": REFUSAL}


def test_the_taker_bought_where_the_maker_asked() -> None:
    assert list(GEMINI.decode(TRADES)) == [
        Trade("btcusd", NS, "88", False, "61000.10", "0.0003"),
        Trade("btcusd", NS, "89", True, "61000.10", "0.0003"),
        Trade("btcusd", NS, "90", None, "61000.10", "0.0003"),
    ]


def test_books() -> None:
    assert list(GEMINI.decode(SNAPSHOT)) == [
        BookEvent(
            "btcusd",
            NS,
            "snapshot",
            None,
            None,
            None,
            [("61000.00", "1.50000000"), ("60999.99", "2")],
            [("61000.10", "3.0")],
        )
    ]
    assert list(GEMINI.decode(UPDATE)) == [
        BookEvent("btcusd", NS, "update", None, None, None, [("61000.00", "0")], [("61000.20", "1")]),
        BookEvent("shibusd", NS, "update", None, None, None, [], [("0.000000001", "4105123935484.817624")]),
    ]
    assert list(GEMINI.book_ids(SNAPSHOT)) == [BookIds("btcusd", None, None, None, is_snapshot=True)]
    assert list(GEMINI.book_ids(UPDATE)) == [
        BookIds("btcusd", None, None, None),
        BookIds("shibusd", None, None, None),
    ]
    assert not GEMINI.book_ids(TRADES)


def test_a_book_may_come_without_a_time_but_a_trade_may_not() -> None:
    without = json.loads(SNAPSHOT)
    del without["timestampms"]
    (book,) = GEMINI.decode(bare(without))
    assert book.time is None
    without["events"] = [FILL]
    with pytest.raises(DecodeError, match="timestampms"):
        GEMINI.decode(bare(without))


def test_a_lost_frame_shows_in_the_sequence() -> None:
    assert [GEMINI.frame_number(frame) for frame in (TRADES, HEARTBEAT, REFUSAL)] == [7, 8, None]


def test_the_layout_does_not_matter() -> None:
    for one in (TRADES, SNAPSHOT, UPDATE):
        turned = json.dumps(dict(reversed(json.loads(one).items())), indent=1).encode()
        assert GEMINI.decode(turned) == GEMINI.decode(one)
        assert GEMINI.control(turned) is None
        assert GEMINI.book_ids(turned) == GEMINI.book_ids(one)
        assert GEMINI.frame_number(turned) == 7


@pytest.mark.parametrize("number", ["0.000000000000000001", "123456789012345678.123456789012345678", "1e-18", "1E+5"])
def test_every_digit_stays_as_it_was_sent(number: str) -> None:
    trade, book = GEMINI.decode(frame(FILL | {"price": number}, change("bid", number, number)))
    assert isinstance(trade, Trade)
    assert isinstance(book, BookEvent)
    assert (trade.price, book.bids) == (number, [(number, number)])


def test_unknown_symbols_and_fields_pass() -> None:
    (trade,) = GEMINI.decode(frame(FILL | {"symbol": "NEWUSD", "new": {"deep": [1]}}, trace_id="x"))
    assert trade.native_id == "newusd"


def test_replies_and_heartbeats_are_no_data() -> None:
    refused = Control("refused", (), "InvalidSymbol: Supplied value 'FOOBAR' is not a symbol")
    for one, said in ((HEARTBEAT, Control("other")), (REFUSAL, refused)):
        assert list(GEMINI.decode(one)) == []
        assert GEMINI.control(one) == said
        assert not GEMINI.book_ids(one)


@pytest.mark.parametrize(
    "payload",
    [
        b"{}",
        b"[]",
        TRADES[:-1],
        frame(FILL | {"type": "block_trade"}),
        frame(FILL | {"price": 61000.1}),
        frame(FILL | {"tid": -1}),
        frame(FILL | {"makerSide": "none"}),
        frame(change("hold", "1", "2")),
        frame({key: value for key, value in FILL.items() if key != "amount"}),
        bare({"type": "l2_updates", "symbol": "BTCUSD", "changes": [["buy", "1", "2"]]}),
        bare({"type": "update", "timestampms": MS}),
        bare({"result": "ok"}),
    ],
)
def test_anything_else_is_an_error(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        GEMINI.decode(payload)
