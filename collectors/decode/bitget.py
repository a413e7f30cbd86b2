"""Bitget, spot and futures: the unified account's public channels, and the classic ones for what those lack.

Wire: https://www.bitget.com/api-doc/uta/websocket/public/ (publicTrade, books, books1) and, of the classic API,
https://www.bitget.com/api-doc/contract/websocket/public/Tickers-Channel (ticker of contracts; trade and books are read
as well), read 2026-11. Times are ms.

===========  ========================  ========================================  ====================
channel      topic                     identity                                  time
===========  ========================  ========================================  ====================
trades       publicTrade (trade)       i (tradeId)                               T (ts)
quotes       books1                    seq                                       ts
book_events  books                     seq, where pseq is the seq before         ts
derivatives  ticker (classic)          content                                   ts
===========  ========================  ========================================  ====================

Spot and futures write the same text for different instruments, ``BTCUSDT``: that of futures becomes
``USDT-FUTURES.BTCUSDT`` here. A subscription to trades begins with some from before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.json import Decoder as Json

from collectors.decode.contract import BookIds, Control, DecodeError, Decoder, Identity, Proof, Stream
from collectors.decode.wire import WIRE_ERRORS
from collectors.events import BookEvent, Channel, Derivative, Event, Level, Quote, Trade

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Kind = Literal["snapshot", "update"]


class _Arg(Struct, gc=False):
    instType: str  # noqa: N815 - the wire's own names
    symbol: str | None = None
    instId: str | None = None  # noqa: N815 - classic
    topic: str | None = None
    channel: str | None = None  # classic


class _Trade(Struct, gc=False):
    i: str
    T: _Id
    P: str
    v: str
    S: Literal["buy", "sell"]


class _ClassicTrade(Struct, gc=False):
    tradeId: str  # noqa: N815
    ts: _Id
    price: str
    size: str
    side: Literal["buy", "sell"]


class _Ids(Struct, gc=False):
    seq: _Id
    pseq: _Id


class _Book(_Ids, gc=False, kw_only=True):
    ts: _Id
    b: list[Level]
    a: list[Level]


class _ClassicBook(Struct, gc=False):
    ts: _Id
    bids: list[Level]
    asks: list[Level]
    checksum: int | None = None
    seq: _Id | None = None


class _Ticker(Struct, gc=False):
    ts: _Id
    markPrice: str  # noqa: N815
    indexPrice: str  # noqa: N815
    fundingRate: str  # noqa: N815
    holdingAmount: str  # noqa: N815
    nextFundingTime: _Id | None = None  # noqa: N815


class _TradeFrame(Struct, gc=False):
    arg: _Arg
    data: list[_Trade]


class _ClassicTradeFrame(Struct, gc=False):
    arg: _Arg
    data: list[_ClassicTrade]


class _BookFrame(Struct, gc=False):
    action: _Kind
    arg: _Arg
    data: list[_Book]


class _IdsFrame(Struct, gc=False):
    action: _Kind
    arg: _Arg
    data: list[_Ids]


class _ClassicBookFrame(Struct, gc=False):
    action: _Kind
    arg: _Arg
    data: list[_ClassicBook]


class _TickerFrame(Struct, gc=False):
    arg: _Arg
    data: list[_Ticker]


class _Probe(Struct, gc=False):
    """What tells one kind of frame from another."""

    event: str | UnsetType = UNSET
    arg: _Arg | UnsetType = UNSET
    data: Raw | UnsetType = UNSET
    code: Any = UNSET


# Not strict: the exchange writes integers as strings, and some both ways.
_trades = Json(_TradeFrame, strict=False).decode
_classic_trades = Json(_ClassicTradeFrame, strict=False).decode
_books = Json(_BookFrame, strict=False).decode
_book_ids = Json(_IdsFrame, strict=False).decode
_classic_books = Json(_ClassicBookFrame, strict=False).decode
_tickers = Json(_TickerFrame, strict=False).decode
_probe = Json(_Probe).decode


def _name(arg: _Arg) -> str:
    symbol = arg.symbol or arg.instId
    if not symbol:
        raise DecodeError("neither symbol nor instId")
    return symbol if arg.instType in ("spot", "SPOT") else f"{arg.instType.upper()}.{symbol}"


def _from_trades(payload: bytes) -> list[Event]:
    frame = _trades(payload)
    name = _name(frame.arg)
    return [Trade(name, m.T * 1_000_000, m.i, m.S == "buy", m.P, m.v) for m in frame.data]


def _from_classic_trades(payload: bytes) -> list[Event]:
    frame = _classic_trades(payload)
    name = _name(frame.arg)
    return [Trade(name, m.ts * 1_000_000, m.tradeId, m.side == "buy", m.price, m.size) for m in frame.data]


def _from_books(payload: bytes) -> list[Event]:
    frame = _books(payload)
    name, kind = _name(frame.arg), frame.action
    return [
        BookEvent(name, m.ts * 1_000_000, kind, None, m.seq, m.pseq if kind == "update" else None, m.b, m.a)
        for m in frame.data
    ]


def _from_classic_books(payload: bytes) -> list[Event]:
    frame = _classic_books(payload)
    name = _name(frame.arg)
    return [
        BookEvent(
            name,
            m.ts * 1_000_000,
            frame.action,
            None,
            m.seq,
            None,
            m.bids,
            m.asks,
            None if m.checksum is None else str(m.checksum),
        )
        for m in frame.data
    ]


def _from_books1(payload: bytes) -> list[Event]:
    frame = _books(payload)
    name = _name(frame.arg)
    return [
        Quote(name, m.ts * 1_000_000, m.seq, *(m.b[0] if m.b else (None, None)), *(m.a[0] if m.a else (None, None)))
        for m in frame.data
    ]


def _from_tickers(payload: bytes) -> list[Event]:
    frame = _tickers(payload)
    name = _name(frame.arg)
    return [
        Derivative(
            native_id=name,
            time=m.ts * 1_000_000,
            funding_rate=m.fundingRate,
            funding_time=None if m.nextFundingTime is None else m.nextFundingTime * 1_000_000,
            open_interest=m.holdingAmount,
            mark_price=m.markPrice,
            index_price=m.indexPrice,
        )
        for m in frame.data
    ]


_TOPICS: Final[dict[str, Callable[[bytes], list[Event]]]] = {
    "publicTrade": _from_trades,
    "books1": _from_books1,
    "books": _from_books,
}
_CLASSIC: Final[dict[str, Callable[[bytes], list[Event]]]] = {
    "trade": _from_classic_trades,
    "books": _from_classic_books,
    "ticker": _from_tickers,
}
_FAST: Final = {topic.encode(): handler for topic, handler in _TOPICS.items()}


def _topic(payload: bytes) -> bytes:
    """The unified account's topic of a frame of data where it stands near the beginning, else nothing."""
    if not payload.startswith(b'{"action":"'):
        return b""
    at = payload.find(b'"topic":"', 11, 100) + 9
    return payload[at : payload.find(b'"', at)] if at >= 9 else b""


class Bitget(Decoder):
    """The decoder of Bitget."""

    exchange: ClassVar[str] = "bitget"
    version: ClassVar[str] = "bitget-1"
    documentation: ClassVar[str] = "https://www.bitget.com/api-doc/uta/websocket/public/Order-Book-Channel"
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="publicTrade", identity=Identity.ID),
        "quotes": Stream(name="books1", identity=Identity.ID),
        "book_events": Stream(
            name="books", identity=Identity.CHAIN, proof=Proof.PREVIOUS, snapshot="socket", depth=200
        ),
        "derivatives": Stream(name="ticker (classic)", identity=Identity.TUPLE),
    }

    def _events(self, payload: bytes) -> Sequence[Event]:
        known = _FAST.get(_topic(payload))
        if known is not None:
            return known(payload)
        if self._control(payload) is not None:
            return ()
        arg = _probe(payload).arg
        handler = None
        if arg is not UNSET:
            handler = _TOPICS.get(arg.topic) if arg.topic else _CLASSIC.get(arg.channel or "")
        if handler is None:
            raise DecodeError(f"unknown topic: {payload[:120]!r}; expected one of: {', '.join((*_TOPICS, *_CLASSIC))}")
        return handler(payload)

    def _control(self, payload: bytes) -> Control | None:
        if payload.startswith(b'{"action":"'):
            return None
        if payload == b"pong":
            return Control("other")
        probe = _probe(payload)
        if probe.event is UNSET:
            return None
        names = (_name(probe.arg),) if probe.arg is not UNSET and probe.event != "login" else ()
        if probe.event == "error":
            return Control("refused", names, payload[:400].decode(errors="replace"))
        if probe.event == "subscribe":
            return Control("subscribed", names)
        return Control("unsubscribed", names) if probe.event == "unsubscribe" else Control("other")

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """``seq`` and ``pseq``."""
        topic = _topic(payload)
        if topic != b"books":
            return () if topic in _FAST else super().book_ids(payload)
        try:
            frame = _book_ids(payload)
            name, is_snapshot = _name(frame.arg), frame.action == "snapshot"
        except WIRE_ERRORS:
            return ()
        return [BookIds(name, None, m.seq, None if is_snapshot else m.pseq, is_snapshot) for m in frame.data]


DECODER: Final = Bitget()
