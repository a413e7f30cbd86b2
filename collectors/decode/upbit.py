"""Upbit, spot.

Wire: https://docs.upbit.com/kr/reference/websocket-guide (trade and orderbook, format DEFAULT), read 2026-11. Numbers
are JSON numbers, kept digit by digit; times are ms. The same messages come as text or binary frames.

===========  =========  ==================================================  =====================
channel      stream     identity                                            time
===========  =========  ==================================================  =====================
trades       trade      sequential_id, unique but no proof of the order     trade_timestamp
book_events  orderbook  none: each message is a whole book of 30 levels     timestamp
===========  =========  ==================================================  =====================

- ``stream_type`` SNAPSHOT is the state at subscription: of trades the latest one, which may have been seen before.
- A book with a ``level`` other than 0 is grouped by price and no book of the exchange's orders, so it is refused.
- No quotes: the exchange has no stream of the best bid and ask. Nothing acknowledges a subscription.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Final, Literal

from msgspec import Raw, Struct
from msgspec.json import Decoder as Json

from collectors.decode.contract import BookIds, Control, DecodeError, Decoder, Identity, Stream
from collectors.decode.wire import WIRE_ERRORS, number
from collectors.events import BookEvent, Channel, Event, Level, Trade

_START: Final = b'{"type":"'
_FIRST: Final = "0123456789"
"""How the text of a number nearly always begins."""
_MICROSECONDS_FROM: Final = 10**14
"""Read as ms it is the year 5138, read as µs 1973."""


class _Trade(Struct, gc=False):
    code: str
    trade_timestamp: int
    trade_price: Raw
    trade_volume: Raw
    ask_bid: Literal["ASK", "BID"]  # of the taker: BID bought
    sequential_id: int | str


class _Book(Struct, gc=False):
    code: str
    timestamp: int
    orderbook_units: Raw
    level: float = 0


class _Unit(Struct, gc=False):
    ask_price: Raw
    bid_price: Raw
    ask_size: Raw
    bid_size: Raw


class _Code(Struct, gc=False):
    code: str


class _Error(Struct, gc=False):
    name: str = ""
    message: str = ""


class _Probe(Struct, gc=False):
    """What tells one kind of frame from another."""

    type: str = ""
    error: _Error | None = None
    status: str = ""


_trade = Json(_Trade).decode
_book = Json(_Book, strict=False).decode  # Bithumb may send the time as text
_units = Json(list[_Unit]).decode
_rows = Json(list[tuple[str, str, str, str]]).decode
_code = Json(_Code).decode
_probe = Json(_Probe).decode


def _ns(time: int) -> int:
    """Of ms, and of µs, which Bithumb sends in books."""
    return time * (1_000 if time >= _MICROSECONDS_FROM else 1_000_000)


def of_trade(payload: bytes) -> list[Event]:
    """``{"type":"trade","code":"KRW-BTC","trade_price":89888000,"trade_volume":5.673e-05,"ask_bid":"BID",...}``"""
    m = _trade(payload)
    price, amount = str(m.trade_price, "ascii"), str(m.trade_volume, "ascii")
    if price[0] not in _FIRST or amount[0] not in _FIRST:
        price, amount = number(m.trade_price), number(m.trade_volume)
    return [Trade(m.code, _ns(m.trade_timestamp), str(m.sequential_id), m.ask_bid == "BID", price, amount)]


def _sides(units: bytes) -> tuple[list[Level], list[Level]]:
    """Bids and asks of ``[{"ask_price":2.5,"bid_price":2,"ask_size":1e-05,"bid_size":3},...]``.

    The text is turned into rows of strings, read at once; what is laid out otherwise is read number by number.
    """
    rows = (
        units.replace(b'{"ask_price":', b'["')
        .replace(b',"bid_price":', b'","')
        .replace(b',"ask_size":', b'","')
        .replace(b',"bid_size":', b'","')
        .replace(b"}", b'"]')
    )
    rest = rows.translate(None, b"0123456789.eE+-")
    if rest == b"[" + b",".join([b'["","","",""]'] * rest.count(b"[", 1)) + b"]" and b'""' not in rows:
        read = _rows(rows)
        return [(bid, size) for _, bid, _, size in read], [(ask, size) for ask, _, size, _ in read]
    return _sides_slowly(units)


def _sides_slowly(units: bytes) -> tuple[list[Level], list[Level]]:
    read = _units(units)
    return (
        [(number(m.bid_price), number(m.bid_size)) for m in read if bytes(m.bid_price) != b"null"],
        [(number(m.ask_price), number(m.ask_size)) for m in read if bytes(m.ask_price) != b"null"],
    )


def of_book(payload: bytes, ungrouped: tuple[int, ...] = (0,)) -> list[Event]:
    """``{"type":"orderbook","code":"KRW-BTC","timestamp":1,"orderbook_units":[...],"stream_type":"REALTIME","level":0}``"""
    m = _book(payload)
    if m.level not in ungrouped:
        raise DecodeError(f"a book grouped by {m.level}; expected level {ungrouped[0]}")
    bids, asks = _sides(bytes(m.orderbook_units))
    return [BookEvent(m.code, _ns(m.timestamp), "snapshot", None, None, None, bids, asks)]


def _type_of(payload: bytes) -> bytes:
    """The type where the frame is laid out as the exchange writes it, else nothing."""
    return payload[9 : payload.find(b'"', 9, 30)] if payload.startswith(_START) else b""


class Upbit(Decoder):
    """The decoder of Upbit."""

    exchange: ClassVar = "upbit"
    version: ClassVar = "upbit-1"
    documentation: ClassVar = "https://docs.upbit.com/kr/reference/websocket-guide"
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="trade", identity=Identity.ID),
        "book_events": Stream(name="orderbook", identity=Identity.EPOCH, snapshot="always", depth=30),
    }
    handlers: ClassVar[Mapping[bytes, Callable[[bytes], list[Event]]]] = {b"trade": of_trade, b"orderbook": of_book}

    def _usual(self, payload: bytes) -> Sequence[Event] | None:
        known = self.handlers.get(_type_of(payload))
        return None if known is None else known(payload)

    def _events(self, payload: bytes) -> Sequence[Event]:
        probe = _probe(payload)
        known = self.handlers.get(probe.type.encode(errors="replace"))
        if known is not None:
            return known(payload)
        if not probe.type and (probe.error is not None or probe.status):
            return []
        raise DecodeError(f"unknown type {probe.type!r}; expected trade, orderbook or a reply")

    def _control(self, payload: bytes) -> Control | None:
        if _type_of(payload) in self.handlers:
            return None
        probe = _probe(payload)
        if probe.type:
            return None
        if probe.error is not None:
            return Control("refused", detail=f"{probe.error.name}: {probe.error.message}")
        return Control("other") if probe.status else None  # {"status":"UP"} answers a ping

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """The code of a book: there are no ids."""
        try:
            if (_type_of(payload) or _probe(payload).type.encode(errors="replace")) == b"orderbook":
                return (BookIds(_code(payload).code, None, None, None, True),)
        except WIRE_ERRORS:
            pass
        return ()


DECODER: Final = Upbit()
