"""KuCoin futures' frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

from typing import Any

import pytest

from collectors.decode import BookIds, Control, DecodeError
from collectors.decode.kucoinfutures import DECODER as KUCOIN
from collectors.events import BookEvent, Derivative, Quote, Trade
from tests.unit.decode.test_kucoin import MS, NS, bare, frame

EXECUTION = {
    "symbol": "XBTUSDTM",
    "sequence": 5,
    "side": "buy",
    "size": 12,
    "price": "61000.1",
    "takerOrderId": "t1",
    "makerOrderId": "m1",
    "tradeId": "5",
    "ts": NS + 3,
}
TICKER = {
    "symbol": "XBTUSDTM",
    "sequence": 6,
    "bestBidSize": 795,
    "bestBidPrice": "61000.1",
    "bestAskPrice": "61000.2",
    "bestAskSize": 284,
    "ts": NS + 4,
}
FUNDING = {"s": "XBTUSDTM", "fr": "-0.000035", "ft": MS - 1, "nt": MS + 1, "gl": 28800000, "fc": "0.00375"}
MARK = {"s": "XBTUSDTM", "mp": "61000.15", "ip": "61000.87", "oi": "50541824", "ts": MS}


def change(text: str, sequence: int = 20) -> bytes:
    data = {"sequence": sequence, "change": text, "timestamp": MS}
    return frame("/contractMarket/level2:XBTUSDTM", "level2", data)


def pro(kind: str, data: dict[str, Any]) -> bytes:
    return bare({"T": kind, "P": str(NS + 9), "d": data})


FRAMES: dict[str, bytes] = {
    "trade": frame("/contractMarket/execution:XBTUSDTM", "match", EXECUTION),
    "quote": frame("/contractMarket/tickerV2:XBTUSDTM", "tickerV2", TICKER),
    "update": change("61000.1,buy,8"),
    "delete": change("61000.2,sell,0", 21),
    "update that only counts": change("0,sell,0", 22),
    "mark price": pro("mark-price", MARK),
    "funding": pro("funding-fee", FUNDING),
    "welcome": bare({"id": "publicFutures", "type": "welcome"}),
    "ack": bare({"id": "1", "type": "ack"}),
    "pro ack": bare({"id": "1", "result": True}),
    "pro refusal": bare({"id": "1", "result": False, "reason": "missing `symbol`"}),
}


def test_each_frame_is_read_as_it_is_meant() -> None:
    assert {name: list(KUCOIN.decode(payload)) for name, payload in FRAMES.items()} == {
        "trade": [Trade("XBTUSDTM", NS + 3, "5", True, "61000.1", "12", "t1", "m1")],
        "quote": [Quote("XBTUSDTM", NS + 4, 6, "61000.1", "795", "61000.2", "284")],
        "update": [BookEvent("XBTUSDTM", NS, "update", 20, 20, None, [("61000.1", "8")], [])],
        "delete": [BookEvent("XBTUSDTM", NS, "update", 21, 21, None, [], [("61000.2", "0")])],
        "update that only counts": [BookEvent("XBTUSDTM", NS, "update", 22, 22, None, [], [])],
        "mark price": [
            Derivative(
                native_id="XBTUSDTM",
                time=NS,
                open_interest="50541824",
                mark_price="61000.15",
                index_price="61000.87",
            )
        ],
        "funding": [
            Derivative(native_id="XBTUSDTM", time=NS + 9, funding_rate="-0.000035", funding_time=NS + 1_000_000)
        ],
        "welcome": [],
        "ack": [],
        "pro ack": [],
        "pro refusal": [],
    }


def test_a_break_shows_in_the_ids() -> None:
    assert [list(KUCOIN.book_ids(change("1,buy,2", at))) for at in (20, 21, 23)] == [
        [BookIds("XBTUSDTM", at, at, None)] for at in (20, 21, 23)
    ]


def test_replies_are_told_from_data_and_from_each_other() -> None:
    said = {name: KUCOIN.control(payload) for name, payload in FRAMES.items()}
    assert {name for name, one in said.items() if one} == {"welcome", "ack", "pro ack", "pro refusal"}
    assert said["ack"] == said["pro ack"] == Control("subscribed")
    assert said["pro refusal"] == Control("refused", detail=FRAMES["pro refusal"].decode())


@pytest.mark.parametrize("number", ["0.000000000000000001", "1e-18", "123456789012345678.123456789012345678"])
def test_every_digit_of_a_json_number_stays_as_it_was_sent(number: str) -> None:
    payload = FRAMES["trade"].replace(b'"61000.1"', number.encode())
    (trade,) = KUCOIN.decode(payload)
    assert isinstance(trade, Trade)
    assert trade.price == number


def test_a_snapshot_is_the_whole_reply() -> None:
    reply = bare(
        {
            "code": "200000",
            "data": {
                "sequence": 19,
                "symbol": "XBTUSDTM",
                "bids": [[61000.1, 8]],
                "asks": [["61000.2", 3]],
                "ts": NS + 1,
            },
        }
    )
    assert KUCOIN.decode_snapshot("XBTUSDTM", reply) == BookEvent(
        "XBTUSDTM", NS + 1, "snapshot", 19, 19, None, [("61000.1", "8")], [("61000.2", "3")]
    )
    assert KUCOIN.snapshot_url("XBTUSDTM", "http://x") == "http://x/api/v1/level2/snapshot?symbol=XBTUSDTM"


@pytest.mark.parametrize(
    "payload",
    [
        change("61000.1,hold,8"),
        change("61000.1,buy"),
        frame("/contractMarket/level2", "level2", {"sequence": 1, "change": "1,buy,2"}),
        frame("/contractMarket/level2Depth5:XBTUSDTM", "level2", {}),
        frame("/contractMarket/execution:XBTUSDTM", "match", EXECUTION | {"price": None}),
        pro("kline.FUTURES", {}),
        pro("mark-price", {"ts": MS}),
        change("1,buy,2")[:-2],
    ],
)
def test_what_is_no_frame_of_the_exchange_raises_and_says_what_was_found(payload: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        KUCOIN.decode(payload)
    assert str(caught.value)
