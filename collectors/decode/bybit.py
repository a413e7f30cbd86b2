"""Bybit v5, linear contracts and spot.

Wire: https://bybit-exchange.github.io/docs/v5/websocket/public/orderbook (and its neighbours trade, ticker,
all-liquidation), read 2026-11. Times are ms.

============  =========================  ==================================================  =====================
channel       stream                     identity                                            time
============  =========================  ==================================================  =====================
trades        publicTrade.<symbol>       i, a UUID; a number as text on spot                 T, of the trade
quotes        orderbook.1.<symbol>       u; sent again with the same u after 3 quiet         cts, of the matching
                                         seconds; always whole, so each stands by itself     engine; else ts
book_events   orderbook.1000.<symbol>    u, the u before it plus one; anew from 1 in a       cts, else ts
                                         whole book after a restart
derivatives   tickers.<symbol>           content; after the first only what changed is sent  ts
liquidations  allLiquidation.<symbol>    content                                             T
============  =========================  ==================================================  =====================

- The update ids of two depths have nothing to do with each other.
- Spot and linear contracts share texts (``BTCUSDT``) and frames do not tell which they are of: the address does.
- A ticker of spot, and one in which nothing of ours changed, yields nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, ClassVar, Final, Literal

from msgspec import Meta, Struct
from msgspec.json import Decoder as Json

from collectors.decode.contract import BookIds, Control, DecodeError, Decoder, Identity, Proof, Stream
from collectors.decode.wire import WIRE_ERRORS
from collectors.events import BookEvent, Channel, Derivative, Event, Level, Liquidation, Quote, Trade

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_DATA: Final = b'{"topic":"'
_TOPIC: Final = re.compile(r"(?:publicTrade|orderbook\.\d+|tickers|allLiquidation)\.([\w/-]+)", re.ASCII)


class _Trade(Struct, gc=False):
    s: str
    T: int
    S: Literal["Buy", "Sell"]  # of the taker
    v: str
    p: str
    i: str


class _Book(Struct, gc=False):
    s: str
    b: list[Level]
    a: list[Level]
    u: _Id


class _Ids(Struct, gc=False):
    s: str
    u: _Id


class _Ticker(Struct, gc=False):
    symbol: str
    markPrice: str | None = None  # noqa: N815 - the wire's own names
    indexPrice: str | None = None  # noqa: N815
    openInterest: str | None = None  # noqa: N815
    fundingRate: str | None = None  # noqa: N815
    nextFundingTime: str | None = None  # noqa: N815


class _Order(Struct, gc=False):
    s: str
    T: int
    S: Literal["Buy", "Sell"]  # of the position
    v: str
    p: str  # at which it was bankrupt


class _Trades(Struct, gc=False):
    data: list[_Trade]


class _BookFrame(Struct, gc=False):
    type: Literal["snapshot", "delta"]
    ts: int
    data: _Book
    cts: int | None = None


class _IdsFrame(Struct, gc=False):
    type: Literal["snapshot", "delta"]
    data: _Ids


class _TickerFrame(Struct, gc=False):
    ts: int
    data: _Ticker


class _Orders(Struct, gc=False):
    data: list[_Order]


class _Probe(Struct, gc=False):
    """What tells one kind of frame from another."""

    topic: str = ""
    op: str = ""
    success: bool | None = None
    ret_msg: str = ""


_trades = Json(_Trades).decode
_book = Json(_BookFrame).decode
_ids = Json(_IdsFrame).decode
_ticker = Json(_TickerFrame).decode
_orders = Json(_Orders).decode
_probe = Json(_Probe).decode


def _of_trades(payload: bytes) -> list[Event]:
    return [Trade(m.s, m.T * 1_000_000, m.i, m.S == "Buy", m.p, m.v) for m in _trades(payload).data]


def _of_best(payload: bytes) -> list[Event]:
    frame = _book(payload)
    m = frame.data
    if frame.type != "snapshot" or len(m.b) > 1 or len(m.a) > 1:
        raise DecodeError(f"orderbook.1 as {frame.type} of {len(m.b)} bids, {len(m.a)} asks; expected it whole")
    time = frame.ts if frame.cts is None else frame.cts
    bid: tuple[str | None, str | None] = m.b[0] if m.b else (None, None)
    ask: tuple[str | None, str | None] = m.a[0] if m.a else (None, None)
    return [Quote(m.s, time * 1_000_000, m.u, *bid, *ask)]


def _of_book(payload: bytes) -> list[Event]:
    frame = _book(payload)
    m = frame.data
    time = frame.ts if frame.cts is None else frame.cts
    kind: Literal["snapshot", "update"] = "snapshot" if frame.type == "snapshot" else "update"
    return [BookEvent(m.s, time * 1_000_000, kind, m.u, m.u, None, m.b, m.a)]


def _of_ticker(payload: bytes) -> list[Event]:
    frame = _ticker(payload)
    m = frame.data
    due = int(m.nextFundingTime) * 1_000_000 if m.nextFundingTime else None
    state = Derivative(
        native_id=m.symbol,
        time=frame.ts * 1_000_000,
        funding_rate=m.fundingRate or None,
        funding_time=due or None,  # 0 where there is no funding
        open_interest=m.openInterest or None,
        mark_price=m.markPrice or None,
        index_price=m.indexPrice or None,
    )
    says = state.funding_rate or state.funding_time or state.open_interest or state.mark_price or state.index_price
    return [state] if says else []


def _of_orders(payload: bytes) -> list[Event]:
    """The exchange names the side of the position: a long one is closed by selling."""
    return [Liquidation(m.s, m.T * 1_000_000, None, m.S == "Sell", m.p, m.v) for m in _orders(payload).data]


_HANDLERS: Final[dict[bytes, Callable[[bytes], list[Event]]]] = {
    b"publicTrade": _of_trades,
    b"orderbook.1": _of_best,
    b"orderbook.50": _of_book,
    b"orderbook.200": _of_book,
    b"orderbook.1000": _of_book,
    b"tickers": _of_ticker,
    b"allLiquidation": _of_orders,
}
_BOOKS: Final = (b"orderbook.1000.", b"orderbook.200.", b"orderbook.50.")


def _kind(payload: bytes, start: int, end: int) -> bytes:
    """``orderbook.1000`` of ``orderbook.1000.BTCUSDT``, which stands there."""
    return payload[start : payload.find(b".", start + 10 if payload.startswith(b"orderbook.", start) else start, end)]


class Bybit(Decoder):
    """The decoder of Bybit."""

    exchange: ClassVar = "bybit"
    version: ClassVar = "bybit-1"
    documentation: ClassVar = "https://bybit-exchange.github.io/docs/v5/websocket/public/orderbook"
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="publicTrade.<symbol>", identity=Identity.ID),
        "quotes": Stream(name="orderbook.1.<symbol>", identity=Identity.ID),
        "book_events": Stream(
            name="orderbook.1000.<symbol>",
            identity=Identity.CHAIN,
            proof=Proof.CONSECUTIVE,
            snapshot="socket",
            depth=1000,
        ),
        "derivatives": Stream(name="tickers.<symbol>", identity=Identity.TUPLE),
        "liquidations": Stream(name="allLiquidation.<symbol>", identity=Identity.TUPLE),
    }

    def _usual(self, payload: bytes) -> Sequence[Event] | None:
        known = _HANDLERS.get(_kind(payload, 10, 60))
        return None if known is None or not payload.startswith(_DATA) else known(payload)

    def _events(self, payload: bytes) -> Sequence[Event]:
        if self._control(payload) is not None:
            return ()
        topic = _probe(payload).topic.encode()
        known = _HANDLERS.get(_kind(topic, 0, len(topic)))
        if known is None:
            raise DecodeError(f"unknown topic {topic!r}: {payload[:80]!r}")
        return known(payload)

    def _control(self, payload: bytes) -> Control | None:
        """``{"success":true,"ret_msg":"subscribe","conn_id":"c","req_id":"1","op":"subscribe"}``"""
        probe = _Probe("data") if payload.startswith(_DATA) else _probe(payload)
        if probe.topic:
            return None
        if probe.success is False:
            return Control("refused", tuple(_TOPIC.findall(probe.ret_msg)), probe.ret_msg)
        if probe.op == "subscribe":
            return Control("subscribed")
        if probe.op == "unsubscribe":
            return Control("unsubscribed")
        return Control("other") if probe.op in ("ping", "pong", "auth") else None

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """``u``, levels passed over."""
        try:
            if not payload.startswith(_DATA):
                topic = _probe(payload).topic.encode()
                if not topic.startswith(_BOOKS):
                    return ()
            elif not payload.startswith(_BOOKS, 10):
                return ()
            frame = _ids(payload)
        except WIRE_ERRORS:
            return ()
        m = frame.data
        return (BookIds(m.s, m.u, m.u, None, frame.type == "snapshot"),)


DECODER: Final = Bybit()
