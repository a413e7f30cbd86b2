"""Deribit's frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from collectors.decode import BookIds, Control, DecodeError, decoder
from collectors.events import BookEvent, Derivative, Event, Liquidation, Quote, Trade

DERIBIT = decoder("deribit")
MS = 1_795_500_000_123
NS = MS * 1_000_000


def frame(channel: str, data: str) -> bytes:
    """Numbers are part of the text, as they are sent."""
    params = f'"params":{{"channel":"{channel}","data":{data}}}'
    return f'{{"jsonrpc":"2.0","method":"subscription",{params}}}'.encode()


def trade(price: str = "61000.5", amount: str = "10.0", more: str = "") -> str:
    return (
        f'{{"trade_seq":9,"trade_id":"77","timestamp":{MS},"tick_direction":2,"price":{price},"mark_price":61000.1,'
        f'"instrument_name":"BTC-PERPETUAL","index_price":61001.2,"direction":"buy","amount":{amount}{more}}}'
    )


def book(kind: str, ids: str, bids: str, asks: str) -> bytes:
    return frame(
        "book.BTC-PERPETUAL.100ms",
        f'{{"type":"{kind}","timestamp":{MS},"instrument_name":"BTC-PERPETUAL",{ids},"bids":{bids},"asks":{asks}}}',
    )


QUOTE = (
    f'{{"timestamp":{MS},"instrument_name":"BTC-PERPETUAL","best_bid_price":61000.5,"best_bid_amount":10.0,'
    '"best_ask_price":61001.0,"best_ask_amount":30}'
)
TICKER = (
    f'{{"timestamp":{MS},"stats":{{"volume":1.5,"low":null}},"state":"open","open_interest":5000.125,'
    '"mark_price":61000.15,"instrument_name":"BTC-PERPETUAL","index_price":61000.3,"funding_8h":2.1e-5,'
    '"current_funding":-1.2E-5,"best_bid_price":61000.5}'
)
FRAMES: dict[str, bytes] = {
    "trade": frame("trades.BTC-PERPETUAL.100ms", f"[{trade()}]"),
    "liquidated both": frame("trades.BTC-PERPETUAL.100ms", "[" + trade(more=',"liquidation":"MT"') + "]"),
    "quote": frame("quote.BTC-PERPETUAL", QUOTE),
    "one-sided quote": frame("quote.BTC-PERPETUAL", QUOTE.replace("61000.5", "null").replace(":10.0", ":0.0")),
    "snapshot": book("snapshot", '"change_id":900', '[["new",61000.5,10.0]]', '[["new",61001.0,30.0],["new",6.1E4,5]]'),
    "update": book("change", '"prev_change_id":900,"change_id":907', "[]", '[["delete",61001.0,0.0]]'),
    "ticker": frame("ticker.BTC-PERPETUAL.100ms", TICKER),
    "ticker of an option": frame(
        "ticker.BTC-25DEC26-100000-C.100ms",
        f'{{"timestamp":{MS},"mark_price":0.01,"instrument_name":"BTC-25DEC26-100000-C","index_price":null}}',
    ),
    "acknowledged": b'{"jsonrpc":"2.0","id":1,"result":["book.BTC-PERPETUAL.100ms","quote.ETH_USDC"],"usIn":1}',
    "refused": b'{"jsonrpc":"2.0","id":1,"error":{"message":"Invalid params","data":{"reason":"wrong format"},'
    b'"code":-32602}}',
    "heartbeat": b'{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"test_request"}}',
    "other reply": b'{"jsonrpc":"2.0","id":2,"result":"ok"}',
}
TRADE = Trade("BTC-PERPETUAL", NS, "77", True, "61000.5", "10.0")
EXPECTED: dict[str, list[Event]] = {
    "trade": [TRADE],
    "liquidated both": [
        TRADE,
        Liquidation("BTC-PERPETUAL", NS, "77", False, "61000.5", "10.0"),
        Liquidation("BTC-PERPETUAL", NS, "77", True, "61000.5", "10.0"),
    ],
    "quote": [Quote("BTC-PERPETUAL", NS, None, "61000.5", "10.0", "61001.0", "30")],
    "one-sided quote": [Quote("BTC-PERPETUAL", NS, None, None, None, "61001.0", "30")],
    "snapshot": [
        BookEvent(
            "BTC-PERPETUAL",
            NS,
            "snapshot",
            None,
            900,
            None,
            [("61000.5", "10.0")],
            [("61001.0", "30.0"), ("6.1E4", "5")],
        )
    ],
    "update": [BookEvent("BTC-PERPETUAL", NS, "update", None, 907, 900, [], [("61001.0", "0.0")])],
    "ticker": [
        Derivative(
            native_id="BTC-PERPETUAL",
            time=NS,
            funding_rate="-1.2E-5",
            open_interest="5000.125",
            mark_price="61000.15",
            index_price="61000.3",
        )
    ],
    "ticker of an option": [Derivative(native_id="BTC-25DEC26-100000-C", time=NS, mark_price="0.01")],
}
CONTROLS = {
    "acknowledged": Control("subscribed", ("BTC-PERPETUAL", "ETH_USDC")),
    "refused": Control("refused", (), "-32602 Invalid params: wrong format"),
    "heartbeat": Control("other"),
    "other reply": Control("other"),
}


def laid_out_otherwise(payload: bytes) -> bytes:
    """Other spaces, an unknown field, the constant ones last; numbers untouched."""
    text = payload.decode().replace('"jsonrpc":"2.0",', "", 1)
    return (text.replace(",", " , ").replace('":', '" : ')[:-1] + ', "new": {"deep": [1]}, "jsonrpc": "2.0"}').encode()


@pytest.mark.parametrize("name", FRAMES)
def test_each_frame_is_read_exactly_however_it_is_laid_out(name: str) -> None:
    payload = FRAMES[name]
    for one in (payload, laid_out_otherwise(payload)):
        assert list(DERIBIT.decode(one)) == EXPECTED.get(name, [])
        assert DERIBIT.control(one) == CONTROLS.get(name)
        assert list(DERIBIT.book_ids(one)) == list(DERIBIT.book_ids(payload))


@pytest.mark.parametrize(("mark", "is_buy"), [("T", True), ("M", False)])
def test_the_side_of_a_liquidation_is_that_of_who_was_liquidated(mark: str, is_buy: bool) -> None:
    of_mark = frame("trades.BTC-PERPETUAL.100ms", "[" + trade(more=f',"liquidation":"{mark}"') + "]")
    assert list(DERIBIT.decode(of_mark)) == [
        TRADE,
        Liquidation("BTC-PERPETUAL", NS, "77", is_buy, "61000.5", "10.0"),
    ]


def test_a_missing_update_shows_in_the_ids() -> None:
    late = book("change", '"prev_change_id":940,"change_id":950', "[]", "[]")
    assert list(DERIBIT.book_ids(FRAMES["snapshot"])) == [BookIds("BTC-PERPETUAL", None, 900, None, is_snapshot=True)]
    assert list(DERIBIT.book_ids(FRAMES["update"])) == [BookIds("BTC-PERPETUAL", None, 907, 900)]
    assert list(DERIBIT.book_ids(late)) == [BookIds("BTC-PERPETUAL", None, 950, 940)]
    assert not DERIBIT.book_ids(FRAMES["quote"])


@pytest.mark.parametrize("number", ["0.000000000000000001", "123456789012345678.123456789012345678", "1e-18", "1E+5"])
def test_every_digit_stays_as_it_was_sent(number: str) -> None:
    assert list(DERIBIT.decode(frame("trades.BTC-PERPETUAL.100ms", f"[{trade(number, number)}]"))) == [
        Trade("BTC-PERPETUAL", NS, "77", True, number, number)
    ]
    assert list(DERIBIT.decode(book("snapshot", '"change_id":1', f'[["new",{number},{number}]]', "[]"))) == [
        BookEvent("BTC-PERPETUAL", NS, "snapshot", None, 1, None, [(number, number)], [])
    ]


@pytest.mark.parametrize("ms", [0, 10**15])
def test_odd_times_are_kept(ms: int) -> None:
    payload = FRAMES["trade"].replace(str(MS).encode(), str(ms).encode())
    assert [event.time for event in DERIBIT.decode(payload)] == [ms * 1_000_000]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[]",
        b"pong",
        frame("perpetual.BTC-PERPETUAL.100ms", "{}"),
        frame("trades.BTC-PERPETUAL.100ms", trade()),
        frame("trades.BTC-PERPETUAL.100ms", f"[{trade('null')}]"),
        frame("trades.BTC-PERPETUAL.100ms", f"[{trade()}]".replace('"amount"', '"other"')),
        frame("trades.BTC-PERPETUAL.100ms", f"[{trade()}]".replace("buy", "zero")),
        book("change", '"change_id":907', "[]", "[]"),
        book("other", '"change_id":907', "[]", "[]"),
        book("snapshot", '"change_id":9223372036854775808', "[]", "[]"),
        book("snapshot", '"change_id":1', '[["move",1,1]]', "[]"),
        book("snapshot", '"change_id":1', "[[1,1]]", "[]"),
        FRAMES["trade"][:-1],
        b'{"jsonrpc":"2.0","method":"new"}',
    ],
)
def test_what_is_not_documented_is_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        DERIBIT.decode(payload)


@pytest.mark.captures
def test_recorded_traffic_of_2021_is_read_completely(captures: Path) -> None:
    """It holds no trades."""
    expected: Counter[str] = Counter()
    found: Counter[str] = Counter()
    with gzip.open(captures / "cryptofeed" / "DERIBIT.ws.1.0.gz", "rt") as lines:
        for line in lines:
            if line.startswith("wss:") or not line.strip():
                continue
            payload = line.partition(": ")[2].rstrip("\n")
            raw: dict[str, Any] = json.loads(payload)
            expected["reply" if "id" in raw else raw["params"]["channel"].split(".")[0]] += 1
            for side in ("bids", "asks"):
                expected["levels"] += len(raw.get("params", {}).get("data", {}).get(side, []))
            for event in DERIBIT.decode(payload.encode()):
                found["book" if isinstance(event, BookEvent) else "ticker"] += 1
                if isinstance(event, BookEvent):
                    found["levels"] += len(event.bids) + len(event.asks)
            found["reply"] += DERIBIT.control(payload.encode()) is not None
    assert found == expected
    assert {kind: expected[kind] for kind in ("book", "ticker", "reply")} == {"book": 46, "ticker": 89, "reply": 1}
