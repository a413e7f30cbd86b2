"""KuCoin, spot and futures.

Wire: https://www.kucoin.com/docs-new (public channels of the classic API: match, level1, level2, execution, tickerV2;
Pro API: mark-price, funding-fee; REST: part and full order book), read 2026-11.

===========  ==========================================  =============================================  ==============
channel      stream                                      identity                                       time
===========  ==========================================  =============================================  ==============
trades       /market/match, /contractMarket/execution    tradeId                                        time, ts (ns)
quotes       /spotMarket/level1                          content                                        timestamp (ms)
quotes       /contractMarket/tickerV2                    content; sequence is kept                      ts (ns)
book_events  /market/level2                              sequenceStart to sequenceEnd, consecutive      time (ms)
book_events  /contractMarket/level2                      sequence, one level each, consecutive          timestamp (ms)
derivatives  mark-price, funding-fee (Pro)               content                                        ts (ms), P (ns)
===========  ==========================================  =============================================  ==============

A level with price 0 changes nothing but the sequence. Snapshots come by REST: 100 levels of spot without login, all of
futures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.json import Decoder as Json

from collectors.decode.contract import BookIds, Control, DecodeError, Decoder, Identity, Proof, Stream
from collectors.decode.wire import WIRE_ERRORS, number
from collectors.events import BookEvent, Channel, Derivative, Event, Level, Quote, Trade

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Side = Literal["buy", "sell"]


class _Match(Struct, gc=False):
    symbol: str
    side: _Side
    price: str
    size: str
    time: _Id
    tradeId: str  # noqa: N815 - the wire's own names
    takerOrderId: str | None = None  # noqa: N815
    makerOrderId: str | None = None  # noqa: N815


class _Execution(Struct, gc=False):
    symbol: str
    side: _Side
    price: Raw
    size: Raw
    ts: _Id
    tradeId: str  # noqa: N815
    takerOrderId: str | None = None  # noqa: N815
    makerOrderId: str | None = None  # noqa: N815


class _Level1(Struct, gc=False):
    bids: list[str] | None
    asks: list[str] | None
    timestamp: _Id


class _Changes(Struct, gc=False):
    bids: list[tuple[str, str, str]]
    asks: list[tuple[str, str, str]]


class _TickerV2(Struct, gc=False):
    symbol: str
    bestBidPrice: Raw  # noqa: N815
    bestBidSize: Raw  # noqa: N815
    bestAskPrice: Raw  # noqa: N815
    bestAskSize: Raw  # noqa: N815
    ts: _Id
    sequence: _Id | None = None


class _Level2(Struct, gc=False):
    symbol: str
    sequenceStart: _Id  # noqa: N815
    sequenceEnd: _Id  # noqa: N815
    changes: _Changes
    time: _Id | None = None


class _Level2Ids(Struct, gc=False):
    symbol: str
    sequenceStart: _Id  # noqa: N815
    sequenceEnd: _Id  # noqa: N815


class _Change(Struct, gc=False):
    sequence: _Id
    change: str
    timestamp: _Id | None = None


class _MarkPrice(Struct, gc=False):
    s: str
    ts: _Id
    mp: str | None = None
    ip: str | None = None
    oi: str | None = None


class _Funding(Struct, gc=False):
    s: str
    fr: str
    nt: _Id | None = None


class _Book(Struct, gc=False):
    sequence: _Id
    bids: list[tuple[Raw, Raw]]
    asks: list[tuple[Raw, Raw]]
    time: _Id | None = None
    ts: _Id | None = None


class _MatchFrame(Struct, gc=False):
    data: _Match


class _ExecutionFrame(Struct, gc=False):
    data: _Execution


class _Level1Frame(Struct, gc=False):
    topic: str
    data: _Level1


class _TickerV2Frame(Struct, gc=False):
    data: _TickerV2


class _Level2Frame(Struct, gc=False):
    data: _Level2


class _Level2IdsFrame(Struct, gc=False):
    data: _Level2Ids


class _ChangeFrame(Struct, gc=False):
    topic: str
    data: _Change


class _MarkPriceFrame(Struct, gc=False):
    d: _MarkPrice


class _FundingFrame(Struct, gc=False):
    P: _Id
    d: _Funding


class _BookReply(Struct, gc=False):
    data: _Book


class _Probe(Struct, gc=False):
    """What tells one kind of frame from another."""

    topic: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    T: str | UnsetType = UNSET
    result: bool | UnsetType = UNSET
    data: Raw | UnsetType = UNSET
    reason: Any = UNSET


# Not strict: the exchange writes the same integers as numbers here and as strings there.
_match = Json(_MatchFrame, strict=False).decode
_execution = Json(_ExecutionFrame, strict=False).decode
_level1 = Json(_Level1Frame, strict=False).decode
_ticker_v2 = Json(_TickerV2Frame, strict=False).decode
_level2 = Json(_Level2Frame, strict=False).decode
_level2_ids = Json(_Level2IdsFrame, strict=False).decode
_change = Json(_ChangeFrame, strict=False).decode
_mark_price = Json(_MarkPriceFrame, strict=False).decode
_funding = Json(_FundingFrame, strict=False).decode
_book = Json(_BookReply, strict=False).decode
_probe = Json(_Probe).decode


def _ns(ms: int | None) -> int | None:
    return None if ms is None else ms * 1_000_000


def _from_match(payload: bytes) -> tuple[Event]:
    m = _match(payload).data
    if m.side == "buy":
        return (Trade(m.symbol, m.time, m.tradeId, True, m.price, m.size, m.takerOrderId, m.makerOrderId),)
    return (Trade(m.symbol, m.time, m.tradeId, False, m.price, m.size, m.makerOrderId, m.takerOrderId),)


def _from_execution(payload: bytes) -> tuple[Event]:
    m = _execution(payload).data
    orders = (m.takerOrderId, m.makerOrderId) if m.side == "buy" else (m.makerOrderId, m.takerOrderId)
    return (Trade(m.symbol, m.ts, m.tradeId, m.side == "buy", number(m.price), number(m.size), *orders),)


def _from_level1(payload: bytes) -> tuple[Event]:
    frame = _level1(payload)
    m = frame.data
    (bid_price, bid_amount), (ask_price, ask_amount) = m.bids or _NONE, m.asks or _NONE
    time = m.timestamp * 1_000_000
    return (Quote(_symbol(frame.topic), time, None, bid_price, bid_amount, ask_price, ask_amount),)


def _from_ticker_v2(payload: bytes) -> tuple[Event]:
    m = _ticker_v2(payload).data
    sides = (number(raw) for raw in (m.bestBidPrice, m.bestBidSize, m.bestAskPrice, m.bestAskSize))
    return (Quote(m.symbol, m.ts, m.sequence, *sides),)


def _from_level2(payload: bytes) -> tuple[Event]:
    m = _level2(payload).data
    bids = [(price, size) for price, size, _ in m.changes.bids if price != "0"]
    asks = [(price, size) for price, size, _ in m.changes.asks if price != "0"]
    return (BookEvent(m.symbol, _ns(m.time), "update", m.sequenceStart, m.sequenceEnd, None, bids, asks),)


def _from_change(payload: bytes) -> tuple[Event]:
    """``"change":"66968,sell,8"``"""
    frame = _change(payload)
    m = frame.data
    price, side, size = m.change.split(",")
    if side not in ("buy", "sell"):
        raise DecodeError(f"side {side!r}; expected buy or sell")
    levels: list[Level] = [] if price == "0" else [(price, size)]
    sides = (levels, []) if side == "buy" else ([], levels)
    return (BookEvent(_symbol(frame.topic), _ns(m.timestamp), "update", m.sequence, m.sequence, None, *sides),)


def _from_mark_price(payload: bytes) -> tuple[Event]:
    m = _mark_price(payload).d
    return (Derivative(native_id=m.s, time=_ns(m.ts), open_interest=m.oi, mark_price=m.mp, index_price=m.ip),)


def _from_funding(payload: bytes) -> tuple[Event]:
    frame = _funding(payload)
    m = frame.d
    return (Derivative(native_id=m.s, time=frame.P, funding_rate=m.fr, funding_time=_ns(m.nt)),)


_NONE: Final = (None, None)
_HANDLERS: Final[dict[str, Callable[[bytes], tuple[Event]]]] = {
    "/market/match": _from_match,
    "/spotMarket/level1": _from_level1,
    "/market/level2": _from_level2,
    "/contractMarket/execution": _from_execution,
    "/contractMarket/tickerV2": _from_ticker_v2,
    "/contractMarket/level2": _from_change,
    "mark-price": _from_mark_price,
    "funding-fee": _from_funding,
}
_FAST: Final = {topic.encode(): handler for topic, handler in _HANDLERS.items()}


def _symbol(topic: str) -> str:
    symbol = topic.partition(":")[2]
    if not symbol:
        raise DecodeError(f"topic {topic[:80]!r} names no symbol")
    return symbol


def _topic(payload: bytes) -> bytes:
    """The topic before its colon where the frame begins with it, else nothing."""
    return payload[10 : payload.find(b":", 10, 64)] if payload.startswith(b'{"topic":"') else b""


class Kucoin(Decoder):
    """The decoder of KuCoin spot; it reads the frames of futures too."""

    exchange: ClassVar[str] = "kucoin"
    version: ClassVar[str] = "kucoin-1"
    documentation: ClassVar[str] = "https://www.kucoin.com/docs-new/3470068w0"
    rest: ClassVar[str] = "https://api.kucoin.com"
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="/market/match", identity=Identity.ID),
        "quotes": Stream(name="/spotMarket/level1", identity=Identity.TUPLE),
        "book_events": Stream(
            name="/market/level2", identity=Identity.CHAIN, proof=Proof.CONSECUTIVE, snapshot="rest", depth=100
        ),
    }

    def _events(self, payload: bytes) -> Sequence[Event]:
        known = _FAST.get(_topic(payload))
        if known is not None:
            return known(payload)
        probe = _probe(payload)
        name = (probe.topic or "").partition(":")[0] or probe.T or ""
        if name in _HANDLERS:
            return _HANDLERS[name](payload)
        if not name and self._control(payload) is not None:
            return ()
        raise DecodeError(f"unknown topic or type: {payload[:80]!r}; expected one of: {', '.join(_HANDLERS)}")

    def _control(self, payload: bytes) -> Control | None:
        if _topic(payload) in _FAST:
            return None
        probe = _probe(payload)
        if probe.topic is not UNSET or probe.T is not UNSET:
            return None
        text = payload[:300].decode(errors="replace")
        match probe.type, probe.result:
            case ("ack", _) | (_, True):
                return Control("subscribed")
            case ("error", _) | (_, False):
                return Control("refused", detail=text)
            case ("welcome" | "pong" | "ping", _):
                return Control("other", detail=text)
        return None

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """``sequenceStart`` and ``sequenceEnd`` of spot, ``sequence`` of futures."""
        try:
            topic = _topic(payload) or (_probe(payload).topic or "").partition(":")[0].encode()
            if topic == b"/market/level2":
                m = _level2_ids(payload).data
                return (BookIds(m.symbol, m.sequenceStart, m.sequenceEnd, None),)
            if topic == b"/contractMarket/level2":
                frame = _change(payload)
                return (BookIds(_symbol(frame.topic), frame.data.sequence, frame.data.sequence, None),)
        except WIRE_ERRORS:
            pass
        return ()

    def _snapshot(self, native_id: str, reply: bytes) -> BookEvent:
        """Spot ``{"sequence":"7","time":1,"bids":[["1.1","2"]],..}``; of futures all are numbers, and ``ts`` is ns."""
        m = _book(reply).data
        bids, asks = ([(number(price), number(size)) for price, size in side] for side in (m.bids, m.asks))
        time = m.ts if m.ts is not None else _ns(m.time)
        return BookEvent(native_id, time, "snapshot", m.sequence, m.sequence, None, bids, asks)

    def snapshot_url(self, native_id: str, rest: str | None = None) -> str:
        """100 levels a side: more needs a login."""
        return f"{rest or self.rest}/api/v1/market/orderbook/level2_100?symbol={native_id}"


DECODER: Final = Kucoin()
