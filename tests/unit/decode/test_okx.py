"""OKX's frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from collectors.decode import BookIds, Control, DecodeError, decoder
from collectors.events import BookEvent, Derivative, Event, Liquidation, Quote, Trade

OKX = decoder("okx")
MS = 1_795_500_000_123
NS = MS * 1_000_000


def frame(channel: str, *data: dict[str, Any], of: str = "BTC-USDT", **others: Any) -> bytes:
    arg = {"channel": channel, "instId": of}
    return json.dumps({"arg": arg, **others, "data": data}, separators=(",", ":")).encode()


TRADE = {"instId": "BTC-USDT", "tradeId": "77", "px": "61000.1", "sz": "0.01", "side": "buy", "ts": str(MS)}
SOLD = TRADE | {"tradeId": "78", "side": "sell", "source": "0"}
BEST = {"asks": [["61000.2", "3", "0", "2"]], "bids": [["61000.1", "1.5", "0", "1"]], "ts": str(MS), "seqId": 900}
BOOK = {
    "asks": [["61000.2", "3", "0", "2"], ["61001", "0.5", "0", "1"]],
    "bids": [["61000.1", "1.5", "0", "1"]],
    "ts": str(MS),
    "checksum": 0,
    "seqId": 900,
    "prevSeqId": -1,
}
UPDATE = {
    "asks": [["61001", "0", "0", "0"]],
    "bids": [],
    "ts": str(MS),
    "checksum": -12,
    "seqId": 907,
    "prevSeqId": 900,
}
QUIET = {"asks": [], "bids": [], "ts": str(MS), "checksum": 0, "seqId": 907, "prevSeqId": 907}
FUNDING = {
    "instId": "BTC-USDT-SWAP",
    "instType": "SWAP",
    "fundingRate": "-0.0000123",
    "fundingTime": str(MS + 1),
    "nextFundingRate": "",
    "ts": str(MS),
}
OF_SWAP = {"instType": "SWAP", "instId": "BTC-USDT-SWAP", "ts": str(MS)}
FORCED = {"side": "buy", "posSide": "short", "bkPx": "62000", "sz": "13", "bkLoss": "0", "ccy": "", "ts": str(MS)}
LIQUIDATIONS = {
    "arg": {"channel": "liquidation-orders", "instType": "SWAP"},
    "data": [
        {"instId": "BTC-USDT-SWAP", "instType": "SWAP", "details": [FORCED, FORCED | {"side": "sell", "sz": "1"}]},
        {"instId": "NEW-USDT-SWAP", "instType": "SWAP", "details": [FORCED]},
    ],
}

FRAMES: dict[str, bytes] = {
    "trades": frame("trades-all", TRADE, SOLD),
    "trade of the other channel": frame("trades", TRADE | {"count": "1"}),
    "quote": frame("bbo-tbt", BEST),
    "one-sided quote": frame("bbo-tbt", BEST | {"bids": []}),
    "snapshot": frame("books", BOOK, action="snapshot"),
    "update": frame("books", UPDATE, action="update"),
    "nothing new": frame("books", QUIET, action="update"),
    "funding": frame("funding-rate", FUNDING, of="BTC-USDT-SWAP"),
    "open interest": frame("open-interest", OF_SWAP | {"oi": "5000", "oiCcy": "50"}, of="BTC-USDT-SWAP"),
    "mark price": frame("mark-price", OF_SWAP | {"markPx": "61000.15"}, of="BTC-USDT-SWAP"),
    "index price": frame("index-tickers", {"instId": "BTC-USDT", "idxPx": "61000.3", "ts": str(MS)}),
    "liquidations": json.dumps(LIQUIDATIONS).encode(),
    "acknowledged": b'{"event":"subscribe","arg":{"channel":"books","instId":"BTC-USDT"},"connId":"a4d3ae55"}',
    "unsubscribed": b'{"event":"unsubscribe","arg":{"channel":"books","instId":"BTC-USDT"},"connId":"a4d3ae55"}',
    "acknowledged all": b'{"event":"subscribe","arg":{"channel":"liquidation-orders","instType":"SWAP"}}',
    "refused": b'{"event":"error","code":"60018","msg":"channel:books,instId:NO-SUCH doesn\'t exist"}',
    "notice": b'{"event":"notice","code":"64008","msg":"The connection will soon be closed"}',
    "pong": b"pong",
}
EXPECTED: dict[str, list[Event]] = {
    "trades": [
        Trade("BTC-USDT", NS, "77", True, "61000.1", "0.01"),
        Trade("BTC-USDT", NS, "78", False, "61000.1", "0.01"),
    ],
    "trade of the other channel": [Trade("BTC-USDT", NS, "77", True, "61000.1", "0.01")],
    "quote": [Quote("BTC-USDT", NS, 900, "61000.1", "1.5", "61000.2", "3")],
    "one-sided quote": [Quote("BTC-USDT", NS, 900, None, None, "61000.2", "3")],
    "snapshot": [
        BookEvent(
            "BTC-USDT", NS, "snapshot", None, 900, None, [("61000.1", "1.5")], [("61000.2", "3"), ("61001", "0.5")]
        )
    ],
    "update": [BookEvent("BTC-USDT", NS, "update", None, 907, 900, [], [("61001", "0")], "-12")],
    "nothing new": [BookEvent("BTC-USDT", NS, "update", None, 907, 907, [], [])],
    "funding": [Derivative(native_id="BTC-USDT-SWAP", time=NS, funding_rate="-0.0000123", funding_time=NS + 1_000_000)],
    "open interest": [Derivative(native_id="BTC-USDT-SWAP", time=NS, open_interest="5000")],
    "mark price": [Derivative(native_id="BTC-USDT-SWAP", time=NS, mark_price="61000.15")],
    "index price": [Derivative(native_id="BTC-USDT", time=NS, index_price="61000.3")],
    "liquidations": [
        Liquidation("BTC-USDT-SWAP", NS, None, True, "62000", "13"),
        Liquidation("BTC-USDT-SWAP", NS, None, False, "62000", "1"),
        Liquidation("NEW-USDT-SWAP", NS, None, True, "62000", "13"),
    ],
}
CONTROLS = {
    "acknowledged": Control("subscribed", ("BTC-USDT",)),
    "unsubscribed": Control("unsubscribed", ("BTC-USDT",)),
    "acknowledged all": Control("subscribed"),
    "refused": Control("refused", ("NO-SUCH",), "60018 channel:books,instId:NO-SUCH doesn't exist"),
    "notice": Control("other"),
    "pong": Control("other"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_each_frame_is_read_exactly_however_it_is_laid_out(name: str) -> None:
    payload = FRAMES[name]
    assert list(OKX.decode(payload)) == EXPECTED.get(name, [])
    assert OKX.control(payload) == CONTROLS.get(name)
    if payload.startswith(b"{"):
        fields = json.loads(payload)
        turned = json.dumps(dict(reversed(fields.items())) | {"new": {"deep": [1]}}, indent=1).encode()
        assert list(OKX.decode(turned)) == EXPECTED.get(name, [])
        assert OKX.control(turned) == CONTROLS.get(name)
        assert list(OKX.book_ids(turned)) == list(OKX.book_ids(payload))


def test_a_missing_update_shows_in_the_ids() -> None:
    late = frame("books", UPDATE | {"seqId": 950, "prevSeqId": 940}, action="update")
    assert list(OKX.book_ids(FRAMES["snapshot"])) == [BookIds("BTC-USDT", None, 900, None, is_snapshot=True)]
    assert list(OKX.book_ids(FRAMES["update"])) == [BookIds("BTC-USDT", None, 907, 900)]
    assert list(OKX.book_ids(late)) == [BookIds("BTC-USDT", None, 950, 940)]
    assert not OKX.book_ids(FRAMES["quote"])


def test_a_count_that_begins_anew_is_kept_as_sent() -> None:
    anew = frame("books", UPDATE | {"seqId": 3, "prevSeqId": 907}, action="update")
    assert list(OKX.book_ids(anew)) == [BookIds("BTC-USDT", None, 3, 907)]


@pytest.mark.parametrize("number", ["0.000000000000000001", "123456789012345678.123456789012345678", "1e-18", "1E+5"])
def test_every_digit_stays_as_it_was_sent(number: str) -> None:
    assert list(OKX.decode(frame("trades-all", TRADE | {"px": number, "sz": number}))) == [
        Trade("BTC-USDT", NS, "77", True, number, number)
    ]
    assert list(OKX.decode(frame("books", BOOK | {"asks": [[number, number, "0", "1"]]}, action="snapshot"))) == [
        BookEvent("BTC-USDT", NS, "snapshot", None, 900, None, [("61000.1", "1.5")], [(number, number)])
    ]


@pytest.mark.parametrize("ms", [0, 10**15])
def test_odd_times_are_kept(ms: int) -> None:
    assert [event.time for event in OKX.decode(frame("trades-all", TRADE | {"ts": str(ms)}))] == [ms * 1_000_000]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[]",
        b"ping!",
        frame("candle1m", TRADE),
        frame("trades-all", {key: value for key, value in TRADE.items() if key != "sz"}),
        frame("trades-all", TRADE | {"side": "both"}),
        frame("trades-all", TRADE | {"px": 61000.1}),
        frame("trades-all", TRADE | {"ts": "soon"}),
        frame("trades", TRADE | {"count": "2"}),
        frame("books", BOOK),
        frame("books", BOOK, action="reset"),
        frame("books", BOOK | {"seqId": 2**63}, action="snapshot"),
        frame("books", BOOK | {"bids": [["1"]]}, action="snapshot"),
        FRAMES["trades"][:-1],
        b'{"event":"new","arg":{}}',
    ],
)
def test_what_is_not_documented_is_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        OKX.decode(payload)


@pytest.mark.captures
def test_recorded_traffic_of_2022_is_read_but_for_tickers(captures: Path) -> None:
    """Tickers are a slower best bid and ask than bbo-tbt, which the recorder takes instead."""
    expected: Counter[str] = Counter()
    found: Counter[str] = Counter()
    with gzip.open(captures / "cryptofeed" / "OKX.ws.1.0.gz", "rt") as lines:
        for line in lines:
            if line.startswith("wss:"):
                continue
            payload = line.partition(": ")[2].rstrip("\n")
            raw = json.loads(payload)
            if "event" in raw:
                expected["replies"] += 1
            elif raw["arg"]["channel"] == "tickers":
                expected["refused"] += 1
            else:
                expected[raw["arg"]["channel"]] += len(raw["data"])
            try:
                events = OKX.decode(payload.encode())
            except DecodeError:
                found["refused"] += 1
                continue
            found["replies"] += OKX.control(payload.encode()) is not None
            found["trades"] += sum(isinstance(event, Trade) for event in events)
            found["books"] += sum(isinstance(event, BookEvent) for event in events)
    assert found == expected
    assert expected == {"replies": 18, "refused": 28, "trades": 74, "books": 290}
