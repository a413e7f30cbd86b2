"""Binance USD-M futures; COIN-M futures are written the same way and decoded by a subclass.

Wire: https://developers.binance.com/docs/derivatives/usds-margined-futures/websocket-market-streams (book ticker, diff
book depth, mark price, liquidation order; combined or bare; REST depth), read 2026-11. The page lists aggregate trades
only, yet ``@trade`` is sent, which is what ccxt subscribes to. Times are ms; amounts of COIN-M are contracts.

============  =====================  ==============================================================  ===================
channel       stream                 identity                                                        time
============  =====================  ==============================================================  ===================
trades        <symbol>@trade         t; some ids are taken by what is no trade (amount 0, X is NA),  T, of the trade
                                     which yields nothing, so that a jump proves no loss
quotes        <symbol>@bookTicker    u                                                               T, of the matching
                                                                                                     engine
book_events   <symbol>@depth@100ms   U to u, where pu is the u before it                             T
derivatives   <symbol>@markPrice@1s  content                                                         E
liquidations  <symbol>@forceOrder    content; the last of each second only                           T, of the order
============  =====================  ==============================================================  ===================

An aggregate of one fill (``f`` equals ``l``) is that trade; of several it is refused: no order and no time is each's.
Open interest comes by REST only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.json import Decoder as Json

from collectors.decode.contract import BookIds, Control, DecodeError, Decoder, Identity, Proof, Stream
from collectors.decode.wire import WIRE_ERRORS
from collectors.events import BookEvent, Channel, Derivative, Event, Level, Liquidation, Quote, Trade

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_EVENT: Final = b'{"e":"'
_COMBINED: Final = b'{"stream":"'
_SNAPSHOT_LIMIT: Final = 1000


class _Trade(Struct, gc=False):
    s: str
    t: _Id
    p: str
    q: str
    T: int
    m: bool  # the buyer was the maker, so the taker sold
    X: str = "MARKET"  # else the insurance fund's, auto-deleveraging or NA


class _Aggregate(Struct, gc=False):
    s: str
    f: _Id
    l: _Id  # noqa: E741 - the wire's own name
    p: str
    q: str
    T: int
    m: bool


class _Quote(Struct, gc=False):
    s: str
    u: _Id
    b: str
    B: str
    a: str
    A: str
    T: int


class _Depth(Struct, gc=False):
    s: str
    T: int
    U: _Id
    u: _Id
    pu: _Id
    b: list[Level]
    a: list[Level]


class _Ids(Struct, gc=False):
    s: str
    U: _Id
    u: _Id
    pu: _Id


class _Mark(Struct, gc=False):
    s: str
    E: int
    p: str
    i: str = ""
    r: str = ""  # empty where there is no funding, as on dated futures
    T: int = 0


class _Order(Struct, gc=False):
    s: str
    S: Literal["BUY", "SELL"]
    q: str
    p: str
    T: int


class _Forced(Struct, gc=False):
    o: _Order


class _Snapshot(Struct, gc=False):
    lastUpdateId: _Id  # noqa: N815 - the wire's own name
    bids: list[Level]
    asks: list[Level]
    T: int | None = None


class _Combined(Struct, gc=False):
    data: Raw


class _Probe(Struct, gc=False):
    """What tells one kind of frame from another."""

    data: Raw | UnsetType = UNSET
    e: str | UnsetType = UNSET
    result: Any = UNSET
    error: Any = UNSET
    code: int | UnsetType = UNSET


_trade = Json(_Trade).decode
_aggregate = Json(_Aggregate).decode
_quote = Json(_Quote).decode
_depth = Json(_Depth).decode
_ids = Json(_Ids).decode
_mark = Json(_Mark).decode
_forced = Json(_Forced).decode
_snapshot = Json(_Snapshot).decode
_combined = Json(_Combined).decode
_probe = Json(_Probe).decode


def _of_trade(payload: bytes) -> tuple[Event, ...]:
    m = _trade(payload)
    if m.X != "MARKET" and not m.q.strip("0."):
        return ()
    return (Trade(m.s, m.T * 1_000_000, str(m.t), not m.m, m.p, m.q),)


def _of_aggregate(payload: bytes) -> tuple[Event, ...]:
    m = _aggregate(payload)
    if m.f != m.l:
        raise DecodeError(f"an aggregate of the trades {m.f} to {m.l}; expected the stream @trade")
    return (Trade(m.s, m.T * 1_000_000, str(m.f), not m.m, m.p, m.q),)


def _of_quote(payload: bytes) -> tuple[Event, ...]:
    m = _quote(payload)
    return (Quote(m.s, m.T * 1_000_000, m.u, m.b, m.B, m.a, m.A),)


def _of_depth(payload: bytes) -> tuple[Event, ...]:
    m = _depth(payload)
    return (BookEvent(m.s, m.T * 1_000_000, "update", m.U, m.u, m.pu, m.b, m.a),)


def _of_mark(payload: bytes) -> tuple[Event, ...]:
    m = _mark(payload)
    return (
        Derivative(
            native_id=m.s,
            time=m.E * 1_000_000,
            funding_rate=m.r or None,
            funding_time=m.T * 1_000_000 or None,
            mark_price=m.p or None,
            index_price=m.i or None,
        ),
    )


def _of_forced(payload: bytes) -> tuple[Event, ...]:
    """Price and amount as ordered, not as filled."""
    m = _forced(payload).o
    return (Liquidation(m.s, m.T * 1_000_000, None, m.S == "BUY", m.p, m.q),)


_HANDLERS: Final[dict[bytes, Callable[[bytes], tuple[Event, ...]]]] = {
    b"trade": _of_trade,
    b"aggTrade": _of_aggregate,
    b"bookTicker": _of_quote,
    b"depthUpdate": _of_depth,
    b"markPriceUpdate": _of_mark,
    b"forceOrder": _of_forced,
}


def _bare(payload: bytes) -> bytes:
    """The event of a frame, without the wrapping of a combined stream."""
    if payload.startswith(_EVENT):
        return payload
    if payload.startswith(_COMBINED):
        return bytes(_combined(payload).data)
    data = _probe(payload).data
    return bytes(data) if isinstance(data, Raw) else payload


class Binanceusdm(Decoder):
    """The decoder of Binance USD-M futures."""

    exchange: ClassVar = "binanceusdm"
    version: ClassVar = "binanceusdm-1"
    documentation: ClassVar = (
        "https://developers.binance.com/docs/derivatives/usds-margined-futures/websocket-market-streams"
    )
    rest: ClassVar = "https://fapi.binance.com"
    path: ClassVar = "/fapi/v1/depth"
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="<symbol>@trade", identity=Identity.ID),
        "quotes": Stream(name="<symbol>@bookTicker", identity=Identity.ID),
        "book_events": Stream(
            name="<symbol>@depth@100ms",
            identity=Identity.CHAIN,
            proof=Proof.PREVIOUS,
            snapshot="rest",
            depth=_SNAPSHOT_LIMIT,
        ),
        "derivatives": Stream(name="<symbol>@markPrice@1s", identity=Identity.TUPLE),
        "liquidations": Stream(name="<symbol>@forceOrder", identity=Identity.TUPLE),
    }

    def _usual(self, payload: bytes) -> Sequence[Event] | None:
        bare = bytes(_combined(payload).data) if payload.startswith(_COMBINED) else payload
        known = _HANDLERS.get(bare[6 : bare.find(b'"', 6, 24)])
        return None if known is None or not bare.startswith(_EVENT) else known(bare)

    def _events(self, payload: bytes) -> Sequence[Event]:
        if self._control(payload) is not None:
            return ()
        bare = _bare(payload)
        event = _probe(bare).e
        known = _HANDLERS.get(event.encode()) if isinstance(event, str) else None
        if known is None:
            raise DecodeError(f"unknown event type {event!r}: {payload[:80]!r}")
        return known(bare)

    def _control(self, payload: bytes) -> Control | None:
        """``{"result":null,"id":1}``, ``{"error":{"code":2,"msg":"Invalid request"},"id":1}``"""
        if payload.startswith((_EVENT, _COMBINED)):
            return None
        probe = _probe(payload)
        if isinstance(probe.data, Raw) or isinstance(probe.e, str):
            return None
        if probe.error is not UNSET or probe.code is not UNSET:
            return Control("refused", detail=payload[:300].decode(errors="replace"))
        if probe.result is not UNSET:
            return Control("subscribed" if probe.result is None else "other")
        return None

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """``U``, ``u`` and ``pu`` of a depth update, levels passed over."""
        try:
            bare = _bare(payload)
            if not bare.startswith(b'{"e":"depthUpdate"') and (
                bare.startswith(_EVENT) or _probe(bare).e != "depthUpdate"
            ):
                return ()
            m = _ids(bare)
        except WIRE_ERRORS:
            return ()
        return (BookIds(m.s, m.U, m.u, m.pu),)

    def _snapshot(self, native_id: str, reply: bytes) -> BookEvent:
        """The book of a REST reply; its first and last id are both lastUpdateId."""
        m = _snapshot(reply)
        time = None if m.T is None else m.T * 1_000_000
        return BookEvent(native_id, time, "snapshot", m.lastUpdateId, m.lastUpdateId, None, m.bids, m.asks)

    def snapshot_url(self, native_id: str, rest: str | None = None) -> str:
        """The deepest book the exchange gives: 1,000 levels a side, weight 20 of the 2,400 a minute and address."""
        return f"{rest or self.rest}{self.path}?symbol={native_id}&limit={_SNAPSHOT_LIMIT}"


DECODER: Final = Binanceusdm()
