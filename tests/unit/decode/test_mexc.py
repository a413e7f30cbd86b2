"""MEXC's frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from collectors.decode import BookIds, Control, DecodeError
from collectors.decode.mexc import DECODER as MEXC
from collectors.events import BookEvent, Derivative, Quote, Trade
from tests.unit.decode.test_protobuf import encoded

MS = 1_795_500_000_123
NS = MS * 1_000_000


def bare(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def push(kind: str, number: int, body: bytes, symbol: str = "BTCUSDT") -> bytes:
    """A PushDataV3ApiWrapper."""
    channel = f"spot@public.aggre.{kind}.v3.api.pb@100ms@{symbol}"
    return encoded((1, channel), (3, symbol), (6, MS + 5), (number, body))


def deal(price: str, amount: str, side: int) -> bytes:
    return encoded((1, price), (2, amount), (3, side), (4, MS))


def deals(*items: bytes, **of: str) -> bytes:
    return push("deals", 314, encoded(*((1, item) for item in items), (2, "spot@public.aggre.deals")), **of)


def ticker(*pairs: tuple[int, str]) -> bytes:
    return push("bookTicker", 315, encoded(*pairs))


def depth(asks: list[bytes], bids: list[bytes], first: int, last: int) -> bytes:
    levels = [*((1, one) for one in asks), *((2, one) for one in bids)]
    return push("depth", 313, encoded(*levels, (3, "spot@public"), (4, str(first)), (5, str(last))))


def level(price: str, amount: str) -> bytes:
    return encoded((1, price), (2, amount))


def contract(channel: str, data: Any, symbol: str = "BTC_USDT") -> bytes:
    return bare({"symbol": symbol, "data": data, "channel": channel, "ts": MS + 5})


DEAL = {"p": 61000.1, "v": 4, "T": 2, "O": 3, "M": 2, "t": MS}
DEPTH = {"asks": [[61000.2, 0, 0]], "bids": [[61000.1, 35460, 1], [61000, 7, 2]], "end": 12, "begin": 11, "version": 12}
TICKER = {
    "symbol": "BTC_USDT",
    "lastPrice": 61000.1,
    "fairPrice": 61000.4,
    "indexPrice": 61000.8,
    "holdVol": 95479623,
    "fundingRate": 1e-05,
    "bid1": 61000.1,
    "ask1": 61000.2,
    "timestamp": MS,
}
FUNDING = {"symbol": "BTC_USDT", "rate": -2.1e-05, "nextSettleTime": MS + 1}
LONG = "0." + "1" * 130
UPDATE = depth([level("61000.2", "0"), level("61001", "2.50")], [level("61000.1", "1")], 10, 13)
FRAMES: dict[str, bytes] = {
    "trades": deals(deal("61000.10", "0.5", 1), deal("61000.10", "0.5", 2)),
    "quote": ticker((1, "61000.1"), (2, "1.50"), (3, "61000.2"), (4, "3")),
    "quote one-sided": ticker((1, ""), (2, ""), (3, "61000.2"), (4, "3")),
    "update": UPDATE,
    "update with other fields and lengths": depth(
        [encoded((2, "1"), (1, "61000.2"), (9, 5))], [level(LONG, "0")], 14, 14
    ),
    "contract's trades": contract("push.deal", [DEAL, DEAL | {"T": 1}]),
    "contract's update": contract("push.depth", DEPTH),
    "ticker": contract("push.ticker", TICKER),
    "funding": contract("push.funding.rate", FUNDING),
    "ack": bare({"id": 0, "code": 0, "msg": "spot@public.aggre.deals.v3.api.pb@100ms@BTCUSDT"}),
    "acks": bare(
        {"id": 0, "code": 0, "msg": "spot@public.aggre.bookTicker@BTCUSDT,spot@public.aggre.bookTicker@ETHUSDT"}
    ),
    "refused": bare({"id": 0, "code": 0, "msg": "Not Subscribed successfully! [spot@public.x]. Reason: Blocked!"}),
    "pong": bare({"id": 0, "code": 0, "msg": "PONG"}),
    "contract's ack": bare({"channel": "rs.sub.deal", "data": "success", "ts": MS}),
    "contract's unsubscribed": bare({"channel": "rs.unsub.deal", "data": "success", "ts": MS}),
    "contract's refusal": bare({"channel": "rs.error", "data": "Contract doesn't exist!", "ts": MS}),
    "contract's pong": bare({"channel": "pong", "data": MS, "ts": MS}),
}


def test_each_frame_is_read_as_it_is_meant() -> None:
    decoded = {name: list(MEXC.decode(payload)) for name, payload in FRAMES.items()}
    assert {name: events for name, events in decoded.items() if events} == {
        "trades": [
            Trade("BTCUSDT", NS, None, True, "61000.10", "0.5"),
            Trade("BTCUSDT", NS, None, False, "61000.10", "0.5"),
        ],
        "quote": [Quote("BTCUSDT", NS + 5_000_000, None, "61000.1", "1.50", "61000.2", "3")],
        "quote one-sided": [Quote("BTCUSDT", NS + 5_000_000, None, None, None, "61000.2", "3")],
        "update": [
            BookEvent(
                "BTCUSDT",
                NS + 5_000_000,
                "update",
                10,
                13,
                None,
                [("61000.1", "1")],
                [("61000.2", "0"), ("61001", "2.50")],
            )
        ],
        "update with other fields and lengths": [
            BookEvent("BTCUSDT", NS + 5_000_000, "update", 14, 14, None, [(LONG, "0")], [("61000.2", "1")])
        ],
        "contract's trades": [
            Trade("BTC_USDT", NS, None, False, "61000.1", "4"),
            Trade("BTC_USDT", NS, None, True, "61000.1", "4"),
        ],
        "contract's update": [
            BookEvent(
                "BTC_USDT",
                NS + 5_000_000,
                "update",
                11,
                12,
                None,
                [("61000.1", "35460"), ("61000", "7")],
                [("61000.2", "0")],
            )
        ],
        "ticker": [
            Derivative(
                native_id="BTC_USDT",
                time=NS,
                funding_rate="1e-05",
                open_interest="95479623",
                mark_price="61000.4",
                index_price="61000.8",
            )
        ],
        "funding": [
            Derivative(native_id="BTC_USDT", time=NS + 5_000_000, funding_rate="-2.1e-05", funding_time=NS + 1_000_000)
        ],
    }


def test_a_trade_s_fields_are_read_in_any_order_and_length() -> None:
    reordered = encoded((4, MS), (3, 2), (2, "0.5"), (1, "61000.10"), (9, "other"))
    long = encoded((1, LONG), (2, "0.5"), (3, 1), (4, MS))
    assert list(MEXC.decode(deals(reordered, long))) == [
        Trade("BTCUSDT", NS, None, False, "61000.10", "0.5"),
        Trade("BTCUSDT", NS, None, True, LONG, "0.5"),
    ]


def test_replies_are_told_from_data_and_from_each_other() -> None:
    said = {name: MEXC.control(payload) for name, payload in FRAMES.items()}
    assert {name: control for name, control in said.items() if control} == {
        "ack": Control("subscribed", ("BTCUSDT",)),
        "acks": Control("subscribed", ("BTCUSDT", "ETHUSDT")),
        "refused": Control("refused", detail=FRAMES["refused"].decode()),
        "pong": Control("other"),
        "contract's ack": Control("subscribed"),
        "contract's unsubscribed": Control("unsubscribed"),
        "contract's refusal": Control("refused", detail=FRAMES["contract's refusal"].decode()),
        "contract's pong": Control("other"),
    }


def test_a_break_shows_in_the_ids() -> None:
    spot = [depth([], [], first, last) for first, last in ((10, 13), (14, 14), (16, 20))]
    assert [one for payload in spot for one in MEXC.book_ids(payload)] == [
        BookIds("BTCUSDT", 10, 13, None),
        BookIds("BTCUSDT", 14, 14, None),
        BookIds("BTCUSDT", 16, 20, None),
    ]
    contracts = [contract("push.depth", DEPTH | {"begin": at, "end": at}) for at in (13, 15)]
    assert [one.first for payload in contracts for one in MEXC.book_ids(payload)] == [13, 15]


@pytest.mark.parametrize("number", ["0.000000000000000001", "9.12E-7", "123456789012345678.123456789012345678", "1e5"])
def test_every_digit_stays_as_it_was_sent(number: str) -> None:
    (spot,) = MEXC.decode(deals(deal(number, number, 1)))
    (swap, _) = MEXC.decode(FRAMES["contract's trades"].replace(b"61000.1", number.encode(), 1))
    (book,) = MEXC.decode(FRAMES["contract's update"].replace(b"61000.2,0", f"{number}, {number}".encode()))
    assert isinstance(spot, Trade)
    assert isinstance(swap, Trade)
    assert isinstance(book, BookEvent)
    assert spot.price == spot.amount == swap.price == number
    assert book.asks == [(number, number)]


def test_an_unknown_symbol_passes_under_its_own_name() -> None:
    (event,) = MEXC.decode(deals(deal("1", "2", 1), symbol="NEWUSDC"))
    assert event.native_id == "NEWUSDC"


def test_snapshots_of_spot_and_contracts() -> None:
    reply = bare({"lastUpdateId": 9, "bids": [["61000.1", "1"]], "asks": [["61000.2", "2"]]})
    assert MEXC.decode_snapshot("BTCUSDT", reply) == BookEvent(
        "BTCUSDT", None, "snapshot", 9, 9, None, [("61000.1", "1")], [("61000.2", "2")]
    )
    data = {"asks": [[61000.2, 5, 1]], "bids": [[61000.1, 8, 2]], "version": 10, "timestamp": MS}
    assert MEXC.decode_snapshot("BTC_USDT", bare({"success": True, "code": 0, "data": data})) == BookEvent(
        "BTC_USDT", NS, "snapshot", 10, 10, None, [("61000.1", "8")], [("61000.2", "5")]
    )
    with pytest.raises(DecodeError):
        MEXC.decode_snapshot("BTCUSDT", bare({"code": -1121, "msg": "Invalid symbol."}))
    assert MEXC.snapshot_url("BTCUSDT", "http://x") == "http://x/api/v3/depth?symbol=BTCUSDT&limit=5000"
    assert MEXC.snapshot_url("BTC_USDT") == "https://contract.mexc.com/api/v1/contract/depth/BTC_USDT"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"\n",
        UPDATE[:-1],
        push("kline", 308, b""),
        push("deals", 314, encoded((1, b"\x0a"))),
        push("depth", 313, encoded((1, b"\x0a\x011\x12"), (4, "1"), (5, "1"))),
        deals(deal("1", "2", 3)),
        deals(encoded((1, "1"), (2, "2"), (3, 1))),
        depth([encoded((1, "1"))], [], 1, 2),
        depth([], [], 1, 2**63),
        encoded((1, "spot"), (314, b"")),
        contract("push.kline", {}),
        contract("push.deal", [DEAL | {"T": 0}]),
        contract("push.depth", DEPTH | {"bids": [[1, 2]]}),
        contract("push.ticker", {"timestamp": MS}),
    ],
)
def test_what_is_no_frame_of_the_exchange_raises_and_says_what_was_found(payload: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        MEXC.decode(payload)
    assert str(caught.value)
