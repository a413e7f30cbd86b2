"""HitBTC, spot and perpetuals.

Wire: https://api.hitbtc.com/#socket-market-data (trades, top of book and full order book), read 2026-11. Times are ms.

===========  ===================  =====================================================  ===============
channel      stream               identity                                               time
===========  ===================  =====================================================  ===============
trades       trades               i; no page says that they are consecutive              t, of the trade
quotes       orderbook/top/100ms  none                                                   t
book_events  orderbook/full       s, one more than that of the message before it within  t
                                  a symbol, a whole book's included
===========  ===================  =====================================================  ===============

- The first message of ``trades`` and ``orderbook/full`` is a ``snapshot``, what follows an ``update``.
- Levels with the amount 0 also occur in a whole book; they stand for nothing.
- One message may hold several symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.json import Decoder as Json

from collectors.decode.contract import BookIds, Control, DecodeError, Decoder, Identity, Proof, Stream
from collectors.decode.wire import WIRE_ERRORS
from collectors.events import BookEvent, Channel, Event, Level, Quote, Trade

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_START: Final = b'{"ch":"'


class _Trade(Struct, gc=False):
    t: int
    i: int
    p: str
    q: str
    s: Literal["buy", "sell"]


class _Trades(Struct, gc=False):
    snapshot: dict[str, list[_Trade]] | UnsetType = UNSET
    update: dict[str, list[_Trade]] | UnsetType = UNSET


class _Top(Struct, gc=False):
    t: int
    a: str | None = None
    A: str | None = None
    b: str | None = None
    B: str | None = None


class _Tops(Struct, gc=False):
    data: dict[str, _Top]


class _Book(Struct, gc=False):
    t: int
    s: _Id
    a: list[Level]
    b: list[Level]


class _Books(Struct, gc=False):
    snapshot: dict[str, _Book] | UnsetType = UNSET
    update: dict[str, _Book] | UnsetType = UNSET


class _Ids(Struct, gc=False):
    s: _Id


class _BooksIds(Struct, gc=False):
    snapshot: dict[str, _Ids] | UnsetType = UNSET
    update: dict[str, _Ids] | UnsetType = UNSET


class _Result(Struct, gc=False):
    ch: str = ""
    subscriptions: list[str] = []


class _Error(Struct, gc=False):
    code: Any = None
    message: str = ""
    description: str = ""


class _Probe(Struct, gc=False):
    """What tells one kind of frame from another."""

    ch: str = ""
    result: Raw | UnsetType = UNSET
    error: _Error | None = None


_trades = Json(_Trades).decode
_tops = Json(_Tops).decode
_books = Json(_Books).decode
_books_ids = Json(_BooksIds).decode
_result = Json(_Result).decode
_probe = Json(_Probe).decode


def _of_trades(payload: bytes) -> list[Event]:
    """``{"ch":"trades","update":{"BTCUSDT":[{"t":1,"i":7,"p":"1.0","q":"2.0","s":"buy"}]}}``"""
    m = _trades(payload)
    data = m.update if m.update is not UNSET else m.snapshot
    if data is UNSET:
        raise DecodeError("trades without snapshot or update")
    return [
        Trade(symbol, t.t * 1_000_000, str(t.i), t.s == "buy", t.p, t.q)
        for symbol, trades in data.items()
        for t in trades
    ]


def _of_tops(payload: bytes) -> list[Event]:
    """``{"ch":"orderbook/top/100ms","data":{"BTCUSDT":{"t":1,"a":"1.2","A":"3.0","b":"1.1","B":"2.0"}}}``"""
    return [
        Quote(
            symbol,
            m.t * 1_000_000,
            None,
            *((m.b, m.B) if m.b and m.B else (None, None)),
            *((m.a, m.A) if m.a and m.A else (None, None)),
        )
        for symbol, m in _tops(payload).data.items()
    ]


def _of_books(payload: bytes) -> list[Event]:
    """``{"ch":"orderbook/full","update":{"BTCUSDT":{"t":1,"s":7,"a":[["1.2","0"]],"b":[]}}}``"""
    m = _books(payload)
    kind: Literal["snapshot", "update"] = "update" if m.snapshot is UNSET else "snapshot"
    data = m.update if m.snapshot is UNSET else m.snapshot
    if data is UNSET:
        raise DecodeError("a book without snapshot or update")
    return [BookEvent(symbol, b.t * 1_000_000, kind, b.s, b.s, None, b.b, b.a) for symbol, b in data.items()]


_HANDLERS: Final[dict[bytes, Callable[[bytes], list[Event]]]] = {
    b"trades": _of_trades,
    b"orderbook/top/100ms": _of_tops,
    b"orderbook/top/100ms/batch": _of_tops,
    b"orderbook/full": _of_books,
}


def _channel_of(payload: bytes) -> bytes:
    """The channel where the frame is laid out as the exchange writes it, else nothing."""
    return payload[7 : payload.find(b'"', 7, 40)] if payload.startswith(_START) else b""


class Hitbtc(Decoder):
    """The decoder of HitBTC."""

    exchange: ClassVar = "hitbtc"
    version: ClassVar = "hitbtc-1"
    documentation: ClassVar = "https://api.hitbtc.com/#socket-market-data"
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="trades", identity=Identity.ID),
        "quotes": Stream(name="orderbook/top/100ms", identity=Identity.EPOCH),
        "book_events": Stream(
            name="orderbook/full", identity=Identity.CHAIN, proof=Proof.CONSECUTIVE, snapshot="socket"
        ),
    }

    def _usual(self, payload: bytes) -> Sequence[Event] | None:
        known = _HANDLERS.get(_channel_of(payload))
        return None if known is None else known(payload)

    def _events(self, payload: bytes) -> Sequence[Event]:
        probe = _probe(payload)
        known = _HANDLERS.get(probe.ch.encode(errors="replace"))
        if known is not None:
            return known(payload)
        if not probe.ch and (probe.result is not UNSET or probe.error is not None):
            return []
        raise DecodeError(f"unknown channel {probe.ch!r}; expected {', '.join(map(bytes.decode, _HANDLERS))}")

    def _control(self, payload: bytes) -> Control | None:
        if _channel_of(payload) in _HANDLERS:
            return None
        probe = _probe(payload)
        if probe.ch:
            return None
        if probe.error is not None:
            return Control("refused", detail=f"{probe.error.message}: {probe.error.description}".rstrip(": "))
        if not isinstance(probe.result, Raw):
            return None
        if bytes(probe.result).startswith(b"{") and (result := _result(probe.result)).ch:
            return Control("subscribed", tuple(result.subscriptions))
        return Control("other")

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """``s`` of each symbol's book."""
        try:
            if (_channel_of(payload) or _probe(payload).ch.encode(errors="replace")) != b"orderbook/full":
                return ()
            m = _books_ids(payload)
        except WIRE_ERRORS:
            return ()
        if m.snapshot is not UNSET:
            return [BookIds(symbol, b.s, b.s, None, True) for symbol, b in m.snapshot.items()]
        return [] if m.update is UNSET else [BookIds(symbol, b.s, b.s, None) for symbol, b in m.update.items()]


DECODER: Final = Hitbtc()
