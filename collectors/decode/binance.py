"""Binance spot.

Wire: https://developers.binance.com/docs/binance-spot-api-docs (WebSocket streams trade, bookTicker and depth, raw or
combined; REST depth), read 2026-11. Times are ms, or µs where the connection asked for ``timeUnit=MICROSECOND``.

===========  =====================  ============================================  ======================
channel      stream                 identity                                      time
===========  =====================  ============================================  ======================
trades       <symbol>@trade         t, consecutive within a symbol                T, of the trade
quotes       <symbol>@bookTicker    u                                             none on the wire
book_events  <symbol>@depth[@100ms] U to u, where U is the u before it plus one   E; none in a snapshot
===========  =====================  ============================================  ======================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.json import Decoder as Json

from collectors.decode.binance_plain import BookTicker, BookTickerFrame, Id, ns, plain
from collectors.decode.contract import BookIds, Control, DecodeError, Decoder, Identity, Proof, Stream
from collectors.decode.plain import Plain
from collectors.decode.wire import WIRE_ERRORS
from collectors.events import BookEvent, Channel, Event, Level, Quote, Trade

_SNAPSHOT_LIMIT: Final = 5000


class _Trade(Struct, tag_field="e", tag="trade", gc=False):
    s: str
    t: Id
    T: int
    p: str
    q: str
    m: bool  # the buyer was the maker, so the taker sold
    b: int | None = None  # order ids: on the wire until 2023
    a: int | None = None


class _Depth(Struct, tag_field="e", tag="depthUpdate", gc=False):
    s: str
    E: int
    U: Id
    u: Id
    b: list[Level]
    a: list[Level]


class _DepthIds(Struct, tag_field="e", tag="depthUpdate", gc=False):
    s: str
    U: Id
    u: Id


class _Snapshot(Struct, gc=False):
    lastUpdateId: Id  # noqa: N815 - the wire's own name
    bids: list[Level]
    asks: list[Level]


class _TradeFrame(Struct, gc=False):
    data: _Trade


class _DepthFrame(Struct, gc=False):
    data: _Depth


class _DepthIdsFrame(Struct, gc=False):
    data: _DepthIds


class _Probe(Struct, gc=False):
    """What tells one kind of frame from another."""

    data: Raw | UnsetType = UNSET
    stream: str | UnsetType = UNSET
    e: str | UnsetType = UNSET
    B: Any = UNSET
    id: Any = UNSET
    result: Any = UNSET
    error: Any = UNSET
    code: int | UnsetType = UNSET


_trade = Json(_Trade).decode
_quote = Json(BookTicker).decode
_depth = Json(_Depth).decode
_depth_ids = Json(_DepthIds).decode
_trade_frame = Json(_TradeFrame).decode
_quote_frame = Json(BookTickerFrame).decode
_depth_frame = Json(_DepthFrame).decode
_depth_ids_frame = Json(_DepthIdsFrame).decode
_snapshot = Json(_Snapshot).decode
_probe = Json(_Probe).decode


def _from_trade(m: _Trade) -> tuple[Trade]:
    """``{"e":"trade","E":1,"s":"BTCUSDT","t":7,"p":"1.10","q":"2.0","T":1,"m":true,"M":true}``"""
    time = ns(m.T)
    if m.b is m.a is None:
        return (Trade(m.s, time, str(m.t), not m.m, m.p, m.q),)
    buyer, seller = (None if order is None else str(order) for order in (m.b, m.a))
    return (Trade(m.s, time, str(m.t), not m.m, m.p, m.q, buyer, seller),)


def _from_quote(m: BookTicker) -> tuple[Quote]:
    """``{"u":7,"s":"BTCUSDT","b":"1.1","B":"2.0","a":"1.2","A":"3.0"}``"""
    return (Quote(m.s, None, m.u, m.b, m.B, m.a, m.A),)


def _from_depth(m: _Depth) -> tuple[BookEvent]:
    """``{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":7,"u":9,"b":[["1.1","2.0"]],"a":[["1.2","0"]]}``"""
    return (BookEvent(m.s, ns(m.E), "update", m.U, m.u, None, m.b, m.a),)


_STREAMS: Final[dict[bytes, tuple[Channel, Callable[[bytes], tuple[Event]]]]] = {
    b"@trade": ("trades", lambda payload: _from_trade(_trade_frame(payload).data)),
    b"@bookTicker": ("quotes", lambda payload: _from_quote(_quote_frame(payload).data)),
    b"@depth@100ms": ("book_events", lambda payload: _from_depth(_depth_frame(payload).data)),
    b"@depth": ("book_events", lambda payload: _from_depth(_depth_frame(payload).data)),
}
_HANDLERS: Final = {stream: handler for stream, (_, handler) in _STREAMS.items()}


def _stream_of(payload: bytes) -> bytes | None:
    """The stream's suffix where the frame is laid out as the exchange writes it, else None."""
    if not payload.startswith(b'{"stream":"'):
        return None
    at = payload.find(b"@", 11, 64)
    return payload[at : payload.find(b'"', at)] if at > 0 else None


def _decode_slowly(payload: bytes) -> Sequence[Event]:
    """Frames without the combined stream's wrapping, or laid out in another order."""
    probe = _probe(payload)
    if isinstance(probe.data, Raw):
        return _decode_slowly(bytes(probe.data))
    match probe.e:
        case "trade":
            return _from_trade(_trade(payload))
        case "depthUpdate":
            return _from_depth(_depth(payload))
        case "serverShutdown":
            return ()
        case str():
            raise DecodeError(f"unknown event type {probe.e!r}; expected trade, depthUpdate or a bookTicker")
    if probe.B is not UNSET:
        return _from_quote(_quote(payload))
    if probe.result is not UNSET or probe.error is not UNSET or probe.code is not UNSET:
        return ()  # the reply to a request of ours
    raise DecodeError(f"neither event nor reply: {payload[:80]!r}")


def _channel_slowly(payload: bytes) -> Channel | None:
    probe = _probe(payload)
    if isinstance(probe.data, Raw):
        return _channel_slowly(bytes(probe.data))
    if probe.e == "trade":
        return "trades"
    if probe.e == "depthUpdate":
        return "book_events"
    return "quotes" if probe.e is UNSET and probe.B is not UNSET else None


class Binance(Decoder):
    """The decoder of Binance spot."""

    exchange: ClassVar = "binance"
    version: ClassVar = "binance-1"
    documentation: ClassVar = "https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams"
    rest: ClassVar = "https://api.binance.com"
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="<symbol>@trade", identity=Identity.ID, proof=Proof.CONSECUTIVE),
        "quotes": Stream(name="<symbol>@bookTicker", identity=Identity.ID),
        "book_events": Stream(
            name="<symbol>@depth@100ms",
            identity=Identity.CHAIN,
            proof=Proof.CONSECUTIVE,
            snapshot="rest",
            depth=_SNAPSHOT_LIMIT,
        ),
    }

    def _usual(self, payload: bytes) -> Sequence[Event] | None:
        at = payload.find(b"@", 11, 64)
        known = _HANDLERS.get(payload[at : payload.find(b'"', at)])
        return None if known is None or not payload.startswith(b'{"stream":"') else known(payload)

    def plain(self, lines: bytes) -> Plain | None:
        """Whole groups of lines at once: see PlainDecoder."""
        return plain(lines)

    def _events(self, payload: bytes) -> Sequence[Event]:
        return _decode_slowly(payload)

    def _snapshot(self, native_id: str, reply: bytes) -> BookEvent:
        """The book of ``GET /api/v3/depth``; its first and last id are both lastUpdateId."""
        m = _snapshot(reply)
        return BookEvent(native_id, None, "snapshot", m.lastUpdateId, m.lastUpdateId, None, m.bids, m.asks)

    def _control(self, payload: bytes) -> Control | None:
        if _stream_of(payload) in _STREAMS:
            return None
        probe = _probe(payload)
        if isinstance(probe.data, Raw) or probe.e in ("trade", "depthUpdate"):
            return None
        if probe.error is not UNSET or probe.code is not UNSET:
            return Control("refused", detail=payload[:300].decode(errors="replace"))
        if probe.result is not UNSET:
            return Control("subscribed" if probe.result is None else "other")
        return None if probe.B is not UNSET else Control("other")

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """``U`` and ``u`` of a depth update; spot has no previous id."""
        known = _STREAMS.get(_stream_of(payload) or b"")
        if known and known[0] != "book_events":
            return ()
        try:
            if known:
                m = _depth_ids_frame(payload).data
            elif _channel_slowly(payload) == "book_events":
                data = _probe(payload).data
                m = _depth_ids(data if isinstance(data, Raw) else payload)
            else:
                return ()
        except WIRE_ERRORS:
            return ()
        return (BookIds(m.s, m.U, m.u, None),)

    def snapshot_url(self, native_id: str, rest: str | None = None) -> str:
        """The deepest book the exchange gives: 5,000 levels a side, weight 250 of the 6,000 a minute and address."""
        return f"{rest or self.rest}/api/v3/depth?symbol={native_id}&limit={_SNAPSHOT_LIMIT}"


DECODER: Final = Binance()
