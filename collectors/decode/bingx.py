"""BingX, spot and swaps. All frames are gzip.

Wire: https://bingx-api.github.io/docs/ (market data on WebSocket of spot, USDT-M and Coin-M perpetual futures: trade,
depth), read 2026-11. Times are ms.

===========  ============================  ==============================================  ==============
channel      dataType                      identity                                        time
===========  ============================  ==============================================  ==============
trades       <symbol>@trade                content; t of spot and Coin-M is kept           T
book_events  <symbol>@depth100[@500ms]     none: each is a whole book; spot lastUpdateId   timestamp, ts
===========  ============================  ==============================================  ==============

Spot and USDT-M write the same text for different instruments, ``BTC-USDT``: that of USDT-M becomes ``swap.BTC-USDT``
here. It is told by its layout: trades in a list, the interval behind the depth. Levels of Coin-M (``BTC-USD``) name
contracts ``v`` beside the amount in coins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final

from msgspec import Meta, Struct
from msgspec.json import Decoder as Json

from collectors.decode.contract import BookIds, Control, DecodeError, Decoder, Identity, Stream
from collectors.decode.wire import WIRE_ERRORS, unpacked
from collectors.events import BookEvent, Channel, Event, Level, Trade

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class _Trade(Struct, gc=False):
    s: str
    p: str
    q: str
    T: _Id
    m: bool  # the buyer was the maker, so the taker sold
    t: str | None = None


class _Book(Struct, gc=False):
    bids: list[Level]
    asks: list[Level]
    lastUpdateId: _Id | None = None  # noqa: N815 - the wire's own names


class _Contracts(Struct, gc=False):
    p: str
    v: str


class _CoinBook(Struct, gc=False):
    bids: list[_Contracts]
    asks: list[_Contracts]
    timestamp: _Id | None = None


class _TradeFrame(Struct, gc=False):
    data: _Trade | list[_Trade]


class _BookFrame(Struct, gc=False):
    dataType: str  # noqa: N815
    data: _Book
    timestamp: _Id | None = None
    ts: _Id | None = None


class _CoinBookFrame(Struct, gc=False):
    data: _CoinBook


class _Ids(Struct, gc=False):
    lastUpdateId: _Id | None = None  # noqa: N815


class _IdsFrame(Struct, gc=False):
    data: _Ids


class _Reply(Struct, gc=False):
    """What is no data."""

    code: int | None = None
    ping: str | None = None
    id: str | None = None
    dataType: str = ""  # noqa: N815


_trades = Json(_TradeFrame).decode
_book = Json(_BookFrame).decode
_coin_book = Json(_CoinBookFrame).decode
_ids = Json(_IdsFrame).decode
_reply = Json(_Reply).decode


def _data_type(payload: bytes) -> tuple[str, str, str]:
    """Symbol, kind and the rest of ``BTC-USDT@depth100@500ms``; empty where there is none."""
    at = payload.find(b'"dataType":"') + 12
    if at < 12:
        return "", "", ""
    symbol, _, rest = payload[at : payload.find(b'"', at)].decode().partition("@")
    kind, _, interval = rest.partition("@")
    return symbol, kind, interval


def _is_coin(symbol: str) -> bool:
    return symbol.endswith("-USD")


def _name(symbol: str, is_swap: bool) -> str:
    return f"swap.{symbol}" if is_swap and not _is_coin(symbol) else symbol


def _trade(m: _Trade, is_swap: bool) -> Trade:
    return Trade(_name(m.s, is_swap), m.T * 1_000_000, m.t, not m.m, m.p, m.q)


def _from_trades(payload: bytes) -> list[Event]:
    data = _trades(payload).data
    return [_trade(m, True) for m in data] if isinstance(data, list) else [_trade(data, False)]


def _from_book(symbol: str, interval: str, payload: bytes) -> list[Event]:
    if _is_coin(symbol):
        coin = _coin_book(payload).data
        bids, asks = ([(level.p, level.v) for level in side] for side in (coin.bids, coin.asks))
        at = None if coin.timestamp is None else coin.timestamp * 1_000_000
        return [BookEvent(symbol, at, "snapshot", None, None, None, bids, asks)]
    frame = _book(payload)
    m, ms = frame.data, frame.timestamp if frame.ts is None else frame.ts
    time = None if ms is None else ms * 1_000_000
    name = _name(symbol, bool(interval))
    return [BookEvent(name, time, "snapshot", m.lastUpdateId, m.lastUpdateId, None, m.bids, m.asks)]


class Bingx(Decoder):
    """The decoder of BingX."""

    exchange: ClassVar[str] = "bingx"
    version: ClassVar[str] = "bingx-1"
    documentation: ClassVar[str] = "https://bingx-api.github.io/docs/"
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="<symbol>@trade", identity=Identity.TUPLE),
        "book_events": Stream(name="<symbol>@depth100", identity=Identity.EPOCH, snapshot="always", depth=100),
    }

    def _events(self, payload: bytes) -> Sequence[Event]:
        symbol, kind, interval = _data_type(payload)
        if kind == "trade":
            return _from_trades(payload)
        if symbol and kind.startswith("depth"):
            return _from_book(symbol, interval, payload)
        if self._control(payload) is None:
            raise DecodeError(f"unknown dataType: {payload[:120]!r}; expected <symbol>@trade or <symbol>@depth<n>")
        return ()

    def _control(self, payload: bytes) -> Control | None:
        if payload in (b"Ping", b"Pong"):
            return Control("other")
        if _data_type(payload)[0]:
            return None
        reply = _reply(payload)
        if reply.ping is not None:
            return Control("other")
        if reply.code:
            return Control("refused", detail=payload[:400].decode(errors="replace"))
        return None if reply.id is None or reply.code is None else Control("subscribed")

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """``lastUpdateId`` of spot; books of swaps have none."""
        try:
            text = unpacked(payload)
            symbol, kind, interval = _data_type(text)
            if not symbol or not kind.startswith("depth"):
                return ()
            at = None if _is_coin(symbol) else _ids(text).data.lastUpdateId
        except WIRE_ERRORS:
            return ()
        return (BookIds(_name(symbol, bool(interval)), at, at, None, is_snapshot=True),)


DECODER: Final = Bingx()
