"""Replays recorded frames (lines ``<recv_ns> <raw>``, gzip or plain) through the simulated exchange."""

from __future__ import annotations

import gzip
import heapq
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
from msgspec import Struct

from collectors.simulator.engine import BookState, Level
from collectors.simulator.market import MARKETS, Market, Scale
from collectors.simulator.wire.binance import combined
from collectors.simulator.wire.contract import Kind, Outgoing


class ReplayConfig(Struct, frozen=True):
    """Files to replay together, in order of their receive times.

    ``speed`` 1 is the recorded pace, 0 as fast as clients read; ``lead_s`` passes between the first subscription and
    the first frame, so that clients have all their subscriptions.
    """

    files: list[Path]
    speed: float = 1.0
    lead_s: float = 1.0


class _Data(Struct):
    u: int = 0
    U: int = 0
    t: int = 0
    b: list[Level] | str = ""
    a: list[Level] | str = ""


class _Frame(Struct):
    stream: str
    data: msgspec.Raw


_KINDS: dict[str, Kind] = {"trade": "trade", "bookTicker": "bookTicker", "depth": "depth"}
_frame = msgspec.json.Decoder(_Frame).decode
_data = msgspec.json.Decoder(_Data).decode


def recorded(path: Path) -> Iterator[tuple[int, bytes]]:
    """(recv_ns, payload) of each line; raises ValueError naming the line that is not one."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = line.strip()
            if not text:
                continue
            stamp, space, payload = text.partition(b" ")
            if not space or not stamp.isdigit():
                raise ValueError(f"{path}:{number}: found {text[:40]!r}, expected <recv_ns> <json>")
            yield int(stamp), payload


class Replay:
    """Recorded frames as outgoing events. Depth snapshots are made of the levels seen so far, as files hold none."""

    def __init__(self, config: ReplayConfig) -> None:
        """Raises OSError and ValueError where a file cannot be read as recorded frames."""
        self.config = config
        self.sent = 0
        self.is_done = False
        self.markets = [_market_of(symbol) for symbol in sorted(set(self._symbols()))]
        self._books: dict[str, tuple[int, dict[str, str], dict[str, str]]] = {}

    def _symbols(self) -> Iterator[str]:
        for path in self.config.files:
            for number, (_, payload) in enumerate(recorded(path)):
                if number == 1000:
                    break
                yield _stream_of(payload).partition("@")[0].upper()

    def events(self) -> Iterator[tuple[float | None, Outgoing]]:
        """(seconds after the first frame, event), None for as soon as possible. Frames outside streams are left out."""
        first: int | None = None
        for recv_ns, payload in heapq.merge(*map(recorded, self.config.files)):
            stream = _stream_of(payload)
            if not stream:
                continue
            first = first or recv_ns
            frame = _frame(payload)
            native_id = stream.partition("@")[0].upper()
            data = _data(frame.data)
            self._apply(native_id, data)
            text = bytes(frame.data).decode()
            ids = (data.U or data.u or data.t, data.u or data.t)
            self.sent += 1
            due = (recv_ns - first) / 1e9 / self.config.speed if self.config.speed else None
            kind = _KINDS[stream.partition("@")[2].partition("@")[0]]
            yield due, Outgoing(stream, kind, native_id, ids, partial(_unchanged, stream, text))

    def snapshot(self, native_id: str, limit: int) -> BookState | None:
        """The best levels of what was replayed so far; None before the first depth event."""
        if native_id not in self._books:
            return None
        update_id, bids, asks = self._books[native_id]
        best_bids = sorted(bids.items(), key=lambda level: float(level[0]), reverse=True)[:limit]
        return BookState(native_id, update_id, best_bids, sorted(asks.items(), key=lambda x: float(x[0]))[:limit])

    def _apply(self, native_id: str, data: _Data) -> None:
        if isinstance(data.b, str) or isinstance(data.a, str) or not data.U:
            return
        _, bids, asks = self._books.get(native_id, (0, {}, {}))
        for side, levels in ((bids, data.b), (asks, data.a)):
            for price, amount in levels:
                if amount.strip("0.") == "":
                    side.pop(price, None)
                else:
                    side[price] = amount
        self._books[native_id] = (data.u, bids, asks)


def _unchanged(stream: str, text: str, _skew_ms: int, flavour: str) -> str:
    return combined(stream, text) if flavour == "combined" else text


def _stream_of(payload: bytes) -> str:
    try:
        return _frame(payload).stream
    except msgspec.ValidationError:  # a REST snapshot between the frames
        return ""


def _market_of(native_id: str) -> Market:
    known = MARKETS.get(native_id)
    if known is not None:
        return known
    quote = next((quote for quote in ("USDT", "USDC", "BTC") if native_id.endswith(quote)), native_id[-3:])
    return Market(native_id, native_id.removesuffix(quote), quote, Scale("0.00000001").text(1), "0.00000001")
