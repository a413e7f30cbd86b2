"""HTX's frames: what they mean, and that nothing else is taken for one."""

from __future__ import annotations

import ast
import gzip
import json
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from collectors.decode import BookIds, Control, DecodeError
from collectors.decode.htx import DECODER as HTX
from collectors.events import BookEvent, Quote, Trade

MS = 1_795_500_000_123
NS = MS * 1_000_000


def bare(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def packed(message: Any) -> bytes:
    return gzip.compress(bare(message))


def tick(topic: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"ch": topic, "ts": MS + 5, "tick": data}


SPOT = {"id": "10001", "ts": MS, "tradeId": 77, "amount": 0.25, "price": 61000.1, "direction": "sell", "new": [1]}
CONTRACT = {"id": 500001, "ts": MS, "amount": 12, "quantity": 0.012, "price": 61000.1, "direction": "buy"}
BBO = {
    "seqId": 900,
    "ask": 61000.2,
    "askSize": 3,
    "bid": 61000.1,
    "bidSize": 1.5,
    "quoteTime": MS,
    "symbol": "btcusdt",
}
CONTRACT_BBO = {"mrid": 1, "id": 9, "bid": [61000.1, 20], "ask": [61000.2, 5], "ts": MS, "version": 9}
MBP = {"seqNum": 907, "prevSeqNum": 900, "bids": [[61000.1, 0], [61000, 2.5]], "asks": []}
HIGH_FREQ = {"event": "update", "version": 31, "id": 31, "mrid": 31, "ts": MS, "bids": [], "asks": [[61000.2, 0]]}
WHOLE = {"event": "snapshot", "version": 30, "ts": MS, "bids": [[61000.1, 20]], "asks": [[61000.2, 5], [61001, 7]]}
OF_SPOT, OF_CONTRACT = "market.btcusdt.mbp.150", "market.BTC-USDT.depth.size_150.high_freq"
REPLY = {
    "id": "5",
    "rep": OF_SPOT,
    "status": "ok",
    "ts": MS,
    "data": {"seqNum": 900, "bids": [[61000.1, 2]], "asks": [[61000.2, 3], [61001, 4]]},
}
FRAMES: dict[str, bytes] = {
    "trades": packed(tick("market.btcusdt.trade.detail", {"id": 1, "ts": MS, "data": [SPOT, SPOT | {"tradeId": 78}]})),
    "contract's trade": packed(tick("market.BTC-USDT.trade.detail", {"id": 2, "ts": MS, "data": [CONTRACT]})),
    "quote": packed(tick("market.btcusdt.bbo", BBO)),
    "contract's quote": packed(tick("market.BTC-USDT.bbo", CONTRACT_BBO)),
    "quote one-sided": packed(tick("market.btcusdt.bbo", BBO | {"bid": None, "bidSize": None})),
    "contract's quote one-sided": packed(tick("market.BTC-USDT.bbo", CONTRACT_BBO | {"ask": []})),
    "update": packed(tick(OF_SPOT, MBP)),
    "snapshot": packed(REPLY),
    "contract's snapshot": packed(tick(OF_CONTRACT, WHOLE)),
    "contract's update": packed(tick(OF_CONTRACT, HIGH_FREQ)),
    "ack": packed({"id": "1", "status": "ok", "subbed": OF_SPOT, "ts": MS}),
    "unsubscribed": packed({"id": "2", "status": "ok", "unsubbed": OF_CONTRACT, "ts": MS}),
    "refused": packed({"ts": MS, "status": "error", "err-code": "bad-request", "err-msg": "invalid symbol", "id": "3"}),
    "ping": packed({"ping": MS}),
    "ping of contracts' notifications": packed({"action": "ping", "data": {"ts": MS}}),
}
LEVEL = ("61000.2", "3")
UPDATE = BookEvent("btcusdt", NS + 5_000_000, "update", None, 907, 900, [("61000.1", "0"), ("61000", "2.5")], [])


def test_each_frame_is_read_as_it_is_meant() -> None:
    assert {name: list(HTX.decode(payload)) for name, payload in FRAMES.items()} == {
        "trades": [
            Trade("btcusdt", NS, "77", False, "61000.1", "0.25"),
            Trade("btcusdt", NS, "78", False, "61000.1", "0.25"),
        ],
        "contract's trade": [Trade("BTC-USDT", NS, "500001", True, "61000.1", "12")],
        "quote": [Quote("btcusdt", NS, 900, "61000.1", "1.5", *LEVEL)],
        "contract's quote": [Quote("BTC-USDT", NS, 9, "61000.1", "20", "61000.2", "5")],
        "quote one-sided": [Quote("btcusdt", NS, 900, None, None, *LEVEL)],
        "contract's quote one-sided": [Quote("BTC-USDT", NS, 9, "61000.1", "20", None, None)],
        "update": [UPDATE],
        "snapshot": [
            BookEvent("btcusdt", NS, "snapshot", None, 900, None, [("61000.1", "2")], [LEVEL, ("61001", "4")])
        ],
        "contract's snapshot": [
            BookEvent(
                "BTC-USDT", NS, "snapshot", None, 30, None, [("61000.1", "20")], [("61000.2", "5"), ("61001", "7")]
            )
        ],
        "contract's update": [BookEvent("BTC-USDT", NS, "update", None, 31, 30, [], [("61000.2", "0")])],
        "ack": [],
        "unsubscribed": [],
        "refused": [],
        "ping": [],
        "ping of contracts' notifications": [],
    }


def test_unpacked_frames_in_another_order_are_the_same() -> None:
    payload = bare({"tick": MBP, "ts": MS + 5, "ch": OF_SPOT})
    assert list(HTX.decode(payload)) == [UPDATE]
    assert list(HTX.book_ids(payload)) == [BookIds("btcusdt", None, 907, 900)]
    assert HTX.control(payload) is None


def test_a_break_shows_in_the_ids() -> None:
    spot = [MBP | {"prevSeqNum": before, "seqNum": at} for before, at in ((900, 907), (907, 910), (915, 920))]
    assert [one for data in spot for one in HTX.book_ids(packed(tick(OF_SPOT, data)))] == [
        BookIds("btcusdt", None, 907, 900),
        BookIds("btcusdt", None, 910, 907),
        BookIds("btcusdt", None, 920, 915),
    ]
    contract = [WHOLE, HIGH_FREQ, HIGH_FREQ | {"version": 33}]
    assert [one for data in contract for one in HTX.book_ids(packed(tick(OF_CONTRACT, data)))] == [
        BookIds("BTC-USDT", None, 30, None, is_snapshot=True),
        BookIds("BTC-USDT", None, 31, 30),
        BookIds("BTC-USDT", None, 33, 32),
    ]


def test_replies_are_told_from_data_and_from_each_other() -> None:
    said = {name: HTX.control(payload) for name, payload in FRAMES.items()}
    assert {name: control.kind for name, control in said.items() if control} == {
        "ack": "subscribed",
        "unsubscribed": "unsubscribed",
        "refused": "refused",
        "ping": "other",
        "ping of contracts' notifications": "other",
    }
    assert said["ack"] == Control("subscribed", ("btcusdt",))
    assert said["unsubscribed"] == Control("unsubscribed", ("BTC-USDT",))
    assert "invalid symbol" in said["refused"].detail  # type: ignore[union-attr]


@pytest.mark.parametrize("number", ["0.000000000000000001", "9.12E-7", "123456789012345678.123456789012345678", "1e5"])
def test_every_digit_of_a_json_number_stays_as_it_was_sent(number: str) -> None:
    (trade, _) = HTX.decode(gzip.decompress(FRAMES["trades"]).replace(b"61000.1", number.encode(), 1))
    (book,) = HTX.decode(bare(tick(OF_SPOT, MBP)).replace(b"61000.1,0", f" {number},\t{number}".encode()))
    assert isinstance(trade, Trade)
    assert isinstance(book, BookEvent)
    assert trade.price == number
    assert book.bids == [(number, number), ("61000", "2.5")]


def test_an_unknown_symbol_passes_under_its_own_name() -> None:
    (event,) = HTX.decode(packed(tick("market.newusdc.bbo", BBO)))
    assert event.native_id == "newusdc"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        packed(tick("market.btcusdt.kline.1min", {})),
        packed(tick("market.btcusdt.depth.step0", MBP)),
        packed(tick("market..mbp.150", MBP)),
        packed(tick("accounts.update", {})),
        packed(REPLY | {"rep": "market.btcusdt.kline.1min"}),
        packed(tick(OF_SPOT, MBP | {"bids": [[1, 2, 3]]})),
        packed(tick(OF_SPOT, MBP | {"bids": [["1", "2"]]})),
        packed(tick(OF_SPOT, MBP | {"bids": [{"a": [1, 2]}]})),
        packed(tick(OF_SPOT, MBP | {"prevSeqNum": None})),
        packed(tick(OF_CONTRACT, HIGH_FREQ | {"event": "delta"})),
        packed(tick("market.btcusdt.bbo", {"bid": 1, "ask": 2})),
        packed(tick("market.btcusdt.trade.detail", {"data": [SPOT | {"direction": "up"}]})),
        packed(tick(OF_SPOT, MBP))[:-6],
        FRAMES["trades"][:40],
    ],
)
def test_what_is_no_frame_of_the_exchange_raises_and_says_what_was_found(payload: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        HTX.decode(payload)
    assert str(caught.value)


@pytest.mark.captures
def test_recorded_traffic_of_2021_is_counted_as_by_hand(captures: Path) -> None:
    decoded: Counter[str] = Counter()
    raw: Counter[str] = Counter()
    with gzip.open(captures / "cryptofeed" / "HUOBI.ws.44.0.gz", "rt") as lines:
        for line in lines:
            stamp, _, text = line.rstrip("\n").partition(": ")
            if not stamp.replace(".", "").isdigit():
                continue  # what was sent
            payload = ast.literal_eval(text)
            message = json.loads(zlib.decompress(payload, 31))
            kind = message["ch"].split(".")[2] if "ch" in message else "control"
            raw[kind] += len(message["tick"]["data"]) if kind == "trade" else 1
            try:
                for event in HTX.decode(payload):
                    decoded[type(event).__name__] += 1
            except DecodeError:
                decoded["refused"] += 1
    assert decoded["Trade"] == raw["trade"] > 0
    # A channel that is not recorded: books of 150 levels without ids, each whole.
    assert decoded["refused"] == raw["depth"] == 292
    assert raw["control"] == 26
