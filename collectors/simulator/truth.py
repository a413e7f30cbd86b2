"""Ground truth: what really happened at the simulated exchange, written as it happens and read back by tests.

A folder holds, per symbol, ``<native_id>.{initial,trades,quotes,book_events,changes,snapshots}.jsonl``: JSON lines of
the types below. The book at any update id is the initial book plus the changes up to that id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Struct, field

from collectors.simulator.engine import BookState, ChangeEvent, DepthEvent, Event, Level, QuoteEvent, TradeEvent

T = TypeVar("T")


class TrueTrade(Struct, frozen=True, gc=False):
    """A trade as published; ``sent_ns`` is when it left the engine, ns since 1970, UTC."""

    sent_ns: int
    event: TradeEvent


class TrueQuote(Struct, frozen=True, gc=False):
    """A best bid and ask as published."""

    sent_ns: int
    event: QuoteEvent


class TrueBookEvent(Struct, frozen=True, gc=False):
    """A depth update as published."""

    sent_ns: int
    event: DepthEvent


class Served(Struct, frozen=True, gc=False):
    """A depth snapshot that some client was sent: the best ``limit`` levels of the book at ``update_id``."""

    sent_ns: int
    native_id: str
    listener: str
    update_id: int
    limit: int


class SymbolTruth(Struct):
    """All that happened in one symbol, in order."""

    initial: BookState
    trades: list[TrueTrade] = field(default_factory=list)
    quotes: list[TrueQuote] = field(default_factory=list)
    book_events: list[TrueBookEvent] = field(default_factory=list)
    changes: list[ChangeEvent] = field(default_factory=list)
    snapshots: list[Served] = field(default_factory=list)


class TrueBook(Struct, frozen=True):
    """A book at one update id: price to amount, both the exchange's text."""

    update_id: int
    bids: dict[str, str]
    asks: dict[str, str]

    def best(self, limit: int) -> tuple[list[Level], list[Level]]:
        """The best ``limit`` bids and asks, best first."""
        bids = sorted(self.bids.items(), key=_price, reverse=True)[:limit]
        return bids, sorted(self.asks.items(), key=_price)[:limit]


def _price(level: Level) -> int:
    return int(level[0].replace(".", ""))  # all prices of a market have the same decimals


class Truth:
    """Ground truth in memory, of a simulator of this process or read from a folder."""

    def __init__(self) -> None:
        self.symbols: dict[str, SymbolTruth] = {}

    @classmethod
    def read(cls, folder: Path) -> Truth:
        """Truth written by a ``TruthWriter``; raises FileNotFoundError where the folder holds none."""
        truth = cls()
        for path in sorted(folder.glob("*.initial.jsonl")):
            (initial,) = _read(path, BookState)
            name = _file_name(initial.native_id)
            truth.symbols[initial.native_id] = SymbolTruth(
                initial=initial,
                trades=list(_read(folder / f"{name}.trades.jsonl", TrueTrade)),
                quotes=list(_read(folder / f"{name}.quotes.jsonl", TrueQuote)),
                book_events=list(_read(folder / f"{name}.book_events.jsonl", TrueBookEvent)),
                changes=list(_read(folder / f"{name}.changes.jsonl", ChangeEvent)),
                snapshots=list(_read(folder / f"{name}.snapshots.jsonl", Served)),
            )
        if not truth.symbols:
            raise FileNotFoundError(f"no *.initial.jsonl in {folder}, expected a folder written by simulate --truth")
        return truth

    def start(self, initial: BookState) -> None:
        """Begin a symbol with its whole book."""
        self.symbols[initial.native_id] = SymbolTruth(initial)

    def add(self, event: Event, sent_ns: int) -> None:
        """Append what happened."""
        symbol = self.symbols[event.native_id]
        match event:
            case ChangeEvent():
                symbol.changes.append(event)
            case TradeEvent():
                symbol.trades.append(TrueTrade(sent_ns, event))
            case QuoteEvent():
                symbol.quotes.append(TrueQuote(sent_ns, event))
            case DepthEvent():
                symbol.book_events.append(TrueBookEvent(sent_ns, event))

    def served(self, snapshot: Served) -> None:
        """Append a snapshot that was sent."""
        self.symbols[snapshot.native_id].snapshots.append(snapshot)

    def book_at(self, native_id: str, update_id: int) -> TrueBook:
        """The whole book right after an update id; raises ValueError outside of what happened."""
        return next(self.books_at(native_id, [update_id]))

    def books_at(self, native_id: str, update_ids: Iterable[int]) -> Iterator[TrueBook]:
        """The books at several update ids, in ascending order of id: one pass over the changes."""
        symbol = self.symbols[native_id]
        bids, asks = dict(symbol.initial.bids), dict(symbol.initial.asks)
        at, last = symbol.initial.update_id, symbol.initial.update_id + len(symbol.changes)
        for update_id in sorted(update_ids):
            if not symbol.initial.update_id <= update_id <= last:
                raise ValueError(f"{native_id}: update id {update_id}, expected {symbol.initial.update_id} to {last}")
            # Update ids are consecutive, so an id is a place in the list.
            for change in symbol.changes[at - symbol.initial.update_id : update_id - symbol.initial.update_id]:
                side = bids if change.is_bid else asks
                if change.amount.strip("0.") == "":
                    del side[change.price]
                else:
                    side[change.price] = change.amount
            at = update_id
            yield TrueBook(update_id, dict(bids), dict(asks))


class TruthWriter:
    """Writes ground truth to a folder as it happens; on disk after ``flush`` and ``close``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._files: dict[tuple[str, str], IO[bytes]] = {}
        self._encode = msgspec.json.Encoder().encode

    def start(self, initial: BookState) -> None:
        """Write the whole book a symbol begins with, and make its files."""
        self._write(initial.native_id, "initial", initial)
        for channel in ("trades", "quotes", "book_events", "changes", "snapshots"):
            self._file(initial.native_id, channel)

    def add(self, event: Event, sent_ns: int) -> None:
        """Write what happened."""
        match event:
            case ChangeEvent():
                self._write(event.native_id, "changes", event)
            case TradeEvent():
                self._write(event.native_id, "trades", TrueTrade(sent_ns, event))
            case QuoteEvent():
                self._write(event.native_id, "quotes", TrueQuote(sent_ns, event))
            case DepthEvent():
                self._write(event.native_id, "book_events", TrueBookEvent(sent_ns, event))

    def served(self, snapshot: Served) -> None:
        """Write a snapshot that was sent."""
        self._write(snapshot.native_id, "snapshots", snapshot)

    def flush(self) -> None:
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _file(self, native_id: str, channel: str) -> IO[bytes]:
        key = (native_id, channel)
        if key not in self._files:
            self._files[key] = (self._folder / f"{_file_name(native_id)}.{channel}.jsonl").open("wb", buffering=1 << 20)
        return self._files[key]

    def _write(self, native_id: str, channel: str, value: Struct) -> None:
        self._file(native_id, channel).write(self._encode(value) + b"\n")


def _file_name(native_id: str) -> str:
    return quote(native_id, safe="")


def _read(path: Path, kind: type[T]) -> Iterator[T]:
    decode = msgspec.json.Decoder(kind).decode
    with path.open("rb") as file:
        for line in file:
            yield decode(line)
