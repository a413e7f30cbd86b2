"""Binance USD-M futures' frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from collectors.decode import BookIds, Control, DecodeError, decoder
from collectors.events import BookEvent, Derivative, Event, Liquidation, Quote, Trade

USDM = decoder("binanceusdm")
MS = 1_795_500_000_123
NS = MS * 1_000_000


def bare(data: object) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


TRADE: dict[str, Any] = {
    "e": "trade",
    "E": MS + 3,
    "T": MS,
    "s": "BTCUSDT",
    "t": 77,
    "p": "61000.10",
    "q": "0.010",
    "X": "MARKET",
    "m": True,
}
AGGREGATE: dict[str, Any] = {
    "e": "aggTrade",
    "E": MS + 3,
    "s": "BTCUSDT",
    "a": 5,
    "p": "61000.10",
    "q": "0.010",
    "f": 77,
    "l": 77,
    "T": MS,
    "m": False,
}
QUOTE: dict[str, Any] = {
    "e": "bookTicker",
    "u": 900,
    "s": "BTCUSDT",
    "b": "61000.10",
    "B": "1.500",
    "a": "61000.20",
    "A": "3.000",
    "T": MS,
    "E": MS + 3,
}
DEPTH: dict[str, Any] = {
    "e": "depthUpdate",
    "E": MS + 3,
    "T": MS,
    "s": "BTCUSDT",
    "U": 901,
    "u": 907,
    "pu": 899,
    "b": [["61000.10", "1.500"], ["60000", "0.000"]],
    "a": [],
}
MARK: dict[str, Any] = {
    "e": "markPriceUpdate",
    "E": MS,
    "s": "BTCUSDT",
    "p": "61000.15000000",
    "i": "61000.30",
    "P": "61001",
    "r": "-0.00001200",
    "T": MS + 1,
}
ORDER: dict[str, Any] = {
    "s": "BTCUSDT",
    "S": "SELL",
    "o": "LIMIT",
    "f": "IOC",
    "q": "0.014",
    "p": "60500.10",
    "ap": "60600",
    "X": "FILLED",
    "l": "0.014",
    "z": "0.014",
    "T": MS,
}
FORCED: dict[str, Any] = {"e": "forceOrder", "E": MS + 3, "o": ORDER}
SNAPSHOT: dict[str, Any] = {
    "lastUpdateId": 905,
    "E": MS + 3,
    "T": MS,
    "bids": [["61000.10", "1.500"]],
    "asks": [["61000.20", "3.000"]],
}

FRAMES: dict[str, bytes] = {
    "trade": bare(TRADE),
    "aggregate of one": bare(AGGREGATE),
    "quote": bare(QUOTE),
    "update": bare(DEPTH),
    "mark price": bare(MARK),
    "mark price of a dated future": bare(MARK | {"r": "", "T": 0}),
    "liquidation": bare(FORCED),
    "combined trade": bare({"stream": "btcusdt@trade", "data": TRADE}),
    "combined update": bare({"stream": "btcusdt@depth@100ms", "data": DEPTH}),
    "acknowledged": b'{"result":null,"id":1}',
    "list": b'{"result":["btcusdt@trade"],"id":3}',
    "refused": b'{"error":{"code":2,"msg":"Invalid request"},"id":1}',
}
OF_TRADE: list[Event] = [Trade("BTCUSDT", NS, "77", False, "61000.10", "0.010")]
OF_DEPTH: list[Event] = [
    BookEvent("BTCUSDT", NS, "update", 901, 907, 899, [("61000.10", "1.500"), ("60000", "0.000")], [])
]
EXPECTED: dict[str, list[Event]] = {
    "trade": OF_TRADE,
    "aggregate of one": [Trade("BTCUSDT", NS, "77", True, "61000.10", "0.010")],
    "quote": [Quote("BTCUSDT", NS, 900, "61000.10", "1.500", "61000.20", "3.000")],
    "update": OF_DEPTH,
    "mark price": [
        Derivative(
            native_id="BTCUSDT",
            time=NS,
            funding_rate="-0.00001200",
            funding_time=NS + 1_000_000,
            mark_price="61000.15000000",
            index_price="61000.30",
        )
    ],
    "mark price of a dated future": [
        Derivative(native_id="BTCUSDT", time=NS, mark_price="61000.15000000", index_price="61000.30")
    ],
    "liquidation": [Liquidation("BTCUSDT", NS, None, False, "60500.10", "0.014")],
    "combined trade": OF_TRADE,
    "combined update": OF_DEPTH,
}
CONTROLS = {
    "acknowledged": Control("subscribed"),
    "list": Control("other"),
    "refused": Control("refused", (), '{"error":{"code":2,"msg":"Invalid request"},"id":1}'),
}


@pytest.mark.parametrize("name", FRAMES)
def test_each_frame_is_read_exactly_however_it_is_laid_out(name: str) -> None:
    payload = FRAMES[name]
    turned = json.dumps(dict(reversed(json.loads(payload).items())) | {"new": {"deep": [1]}}, indent=1).encode()
    for one in (payload, turned):
        assert list(USDM.decode(one)) == EXPECTED.get(name, [])
        assert list(USDM.book_ids(one)) == list(USDM.book_ids(payload))
    assert USDM.control(payload) == CONTROLS.get(name)
    assert (USDM.control(turned) is None) == (USDM.control(payload) is None)


def test_a_missing_update_shows_in_the_ids() -> None:
    assert list(USDM.book_ids(FRAMES["update"])) == [BookIds("BTCUSDT", 901, 907, 899)]
    assert list(USDM.book_ids(bare(DEPTH | {"U": 950, "u": 960, "pu": 940}))) == [BookIds("BTCUSDT", 950, 960, 940)]
    assert not USDM.book_ids(FRAMES["quote"])


def test_a_whole_book_comes_by_rest() -> None:
    assert USDM.decode_snapshot("BTCUSDT", bare(SNAPSHOT)) == BookEvent(
        "BTCUSDT", NS, "snapshot", 905, 905, None, [("61000.10", "1.500")], [("61000.20", "3.000")]
    )
    assert USDM.snapshot_url("BTCUSDT") == "https://fapi.binance.com/fapi/v1/depth?symbol=BTCUSDT&limit=1000"
    assert USDM.snapshot_url("X", "http://h:1") == "http://h:1/fapi/v1/depth?symbol=X&limit=1000"
    for reply in (b"{}", b"", bare({"code": -1121, "msg": "Invalid symbol."}), bare(SNAPSHOT)[:-1]):
        with pytest.raises(DecodeError):
            USDM.decode_snapshot("BTCUSDT", reply)


def test_an_id_taken_by_no_trade_yields_nothing() -> None:
    assert list(USDM.decode(bare(TRADE | {"X": "NA", "p": "0", "q": "0.000"}))) == []
    assert list(USDM.decode(bare(TRADE | {"X": "INSURANCE_FUND"}))) == OF_TRADE


@pytest.mark.parametrize("number", ["0.000000000000000001", "123456789012345678.123456789012345678", "1e-18", "1E+5"])
def test_every_digit_stays_as_it_was_sent(number: str) -> None:
    assert list(USDM.decode(bare(TRADE | {"p": number, "q": number}))) == [
        Trade("BTCUSDT", NS, "77", False, number, number)
    ]
    assert list(USDM.decode(bare(DEPTH | {"b": [[number, number]]}))) == [
        BookEvent("BTCUSDT", NS, "update", 901, 907, 899, [(number, number)], [])
    ]


@pytest.mark.parametrize("ms", [0, 10**15])
def test_odd_times_are_kept(ms: int) -> None:
    assert [event.time for event in USDM.decode(bare(TRADE | {"T": ms}))] == [ms * 1_000_000]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[]",
        b"ping",
        bare({"e": "kline", "E": 1}),
        bare({"stream": "btcusdt@kline_1m", "data": {"e": "kline"}}),
        bare({"stream": "btcusdt@trade", "data": TRADE})[:-1],
        bare(AGGREGATE | {"l": 78}),
        bare(TRADE | {"p": 61000.1}),
        bare(TRADE | {"t": 2**63}),
        bare({key: value for key, value in TRADE.items() if key != "q"}),
        bare({key: value for key, value in DEPTH.items() if key != "pu"}),
        bare(DEPTH | {"b": [["1", "2", "3"]]}),
        bare({"e": "forceOrder", "o": ORDER | {"S": "?"}}),
        bare(TRADE)[:-1],
    ],
)
def test_what_is_not_documented_is_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        USDM.decode(payload)


@pytest.mark.captures
def test_recorded_traffic_of_2021_is_read_but_for_candles_and_aggregates(captures: Path) -> None:
    expected: Counter[str] = Counter()
    found: Counter[str] = Counter()
    with gzip.open(captures / "cryptofeed" / "BINANCE_FUTURES.ws.1.0.gz", "rt") as lines:
        for line in lines:
            if line.startswith("wss:"):
                continue
            payload = line.partition(": ")[2].rstrip("\n")
            raw = json.loads(payload)["data"]
            is_aggregate = raw["e"] == "aggTrade" and raw["f"] != raw["l"]
            expected["refused" if is_aggregate or raw["e"] == "kline" else raw["e"]] += 1
            try:
                (event,) = USDM.decode(payload.encode())
            except DecodeError:
                found["refused"] += 1
                continue
            found[{Trade: "aggTrade", Quote: "bookTicker", BookEvent: "depthUpdate"}[type(event)]] += 1
    assert found == expected
    assert expected == {"aggTrade": 64, "refused": 94, "bookTicker": 613, "depthUpdate": 764}
