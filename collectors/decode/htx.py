"""HTX (Huobi), spot and contracts. All frames are gzip, all numbers JSON numbers.

Wire: https://www.htx.com/en-us/opend/newApiPages/ (market data on WebSocket: trade detail, BBO, MBP incremental; of
contracts trade detail, BBO, incremental market depth), read 2026-11.

===========  =============================================  ==========================================  ==============
channel      topic                                          identity                                    time (ms)
===========  =============================================  ==========================================  ==============
trades       market.<symbol>.trade.detail                   tradeId; of contracts id                    ts, of the trade
quotes       market.<symbol>.bbo                            seqId; of contracts version                 quoteTime, ts
book_events  market.<symbol>.mbp.<depth>                    seqNum, where prevSeqNum is the one before  ts, of the frame
book_events  market.<contract>.depth.size_<n>.high_freq     version, consecutive                        ts, of the tick
===========  =============================================  ==========================================  ==============

Spot sends whole books on request (``req``) on the same socket, contracts when a subscription begins. A bid or ask of
contracts is one level, of spot two fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.json import Decoder as Json

from collectors.decode.contract import BookIds, Control, DecodeError, Decoder, Identity, Proof, Stream
from collectors.decode.wire import WIRE_ERRORS, levels, text_of, unpacked
from collectors.events import BookEvent, Channel, Event, Quote, Trade

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_NULL: Final = Raw(b"null")


class _Trade(Struct, gc=False):
    ts: _Id
    price: Raw
    amount: Raw
    direction: Literal["buy", "sell"]
    id: Raw
    tradeId: _Id | None = None  # noqa: N815 - the wire's own names


class _Trades(Struct, gc=False):
    data: list[_Trade]


class _Bbo(Struct, gc=False):
    bid: Raw
    ask: Raw
    bidSize: Raw = _NULL  # noqa: N815
    askSize: Raw = _NULL  # noqa: N815
    seqId: _Id | None = None  # noqa: N815
    version: _Id | None = None
    quoteTime: _Id | None = None  # noqa: N815
    ts: _Id | None = None


class _MbpIds(Struct, gc=False):
    seqNum: _Id  # noqa: N815
    prevSeqNum: _Id | None = None  # noqa: N815


class _Mbp(_MbpIds, gc=False, kw_only=True):
    bids: Raw
    asks: Raw


class _HighFreqIds(Struct, gc=False):
    event: Literal["snapshot", "update"]
    version: _Id


class _HighFreq(_HighFreqIds, gc=False, kw_only=True):
    ts: _Id
    bids: Raw
    asks: Raw


class _TradesFrame(Struct, gc=False):
    tick: _Trades


class _BboFrame(Struct, gc=False):
    tick: _Bbo


class _MbpFrame(Struct, gc=False):
    ts: _Id
    tick: _Mbp


class _HighFreqFrame(Struct, gc=False):
    tick: _HighFreq


class _MbpIdsFrame(Struct, gc=False):
    tick: _MbpIds


class _HighFreqIdsFrame(Struct, gc=False):
    tick: _HighFreqIds


class _Reply(Struct, gc=False):
    data: _Mbp
    ts: _Id | None = None


class _Probe(Struct, gc=False):
    """What tells one kind of frame from another."""

    ch: str | UnsetType = UNSET
    rep: str | UnsetType = UNSET
    status: str | UnsetType = UNSET
    subbed: str | UnsetType = UNSET
    unsubbed: str | UnsetType = UNSET
    ping: Any = UNSET
    action: Any = UNSET


_trades = Json(_TradesFrame).decode
_bbo = Json(_BboFrame).decode
_mbp = Json(_MbpFrame).decode
_mbp_ids = Json(_MbpIdsFrame).decode
_high_freq = Json(_HighFreqFrame).decode
_high_freq_ids = Json(_HighFreqIdsFrame).decode
_reply = Json(_Reply).decode
_probe = Json(_Probe).decode


def _from_trades(symbol: str, payload: bytes) -> list[Event]:
    return [
        Trade(
            symbol,
            m.ts * 1_000_000,
            text_of(m.id) if m.tradeId is None else str(m.tradeId),
            m.direction == "buy",
            text_of(m.price),
            text_of(m.amount),
        )
        for m in _trades(payload).tick.data
    ]


def _side(level: Raw, size: Raw) -> tuple[str | None, str | None]:
    """``1.5`` and its size, ``[1.5,20]``, or nothing."""
    text = bytes(level)
    if text in (b"null", b"[]"):
        return None, None
    if text.startswith(b"["):
        return levels(Raw(b"[" + text + b"]"))[0]
    return text_of(level), text_of(size)


def _from_bbo(symbol: str, payload: bytes) -> list[Event]:
    m = _bbo(payload).tick
    update_id = m.version if m.seqId is None else m.seqId
    time = m.ts if m.quoteTime is None else m.quoteTime
    if update_id is None or time is None:
        raise DecodeError(f"neither seqId with quoteTime nor version with ts: {payload[:80]!r}")
    return [Quote(symbol, time * 1_000_000, update_id, *_side(m.bid, m.bidSize), *_side(m.ask, m.askSize))]


def _from_mbp(symbol: str, payload: bytes) -> list[Event]:
    frame = _mbp(payload)
    m = frame.tick
    if m.prevSeqNum is None:
        raise DecodeError(f"an update without prevSeqNum: {payload[:80]!r}")
    time = frame.ts * 1_000_000
    return [BookEvent(symbol, time, "update", None, m.seqNum, m.prevSeqNum, levels(m.bids), levels(m.asks))]


def _from_high_freq(symbol: str, payload: bytes) -> list[Event]:
    m = _high_freq(payload).tick
    previous = m.version - 1 if m.event == "update" else None
    time = m.ts * 1_000_000
    return [BookEvent(symbol, time, m.event, None, m.version, previous, levels(m.bids), levels(m.asks))]


def _from_reply(symbol: str, payload: bytes) -> list[Event]:
    """``{"id":"5","rep":"market.btcusdt.mbp.150","status":"ok","data":{"seqNum":7,"bids":[[1.1,2]],"asks":[]}}``"""
    frame = _reply(payload)
    m = frame.data
    time = None if frame.ts is None else frame.ts * 1_000_000
    return [BookEvent(symbol, time, "snapshot", None, m.seqNum, None, levels(m.bids), levels(m.asks))]


_HANDLERS: Final[dict[str, Callable[[str, bytes], list[Event]]]] = {
    "trade": _from_trades,
    "bbo": _from_bbo,
    "mbp": _from_mbp,
    "depth": _from_high_freq,
}


def _parts(topic: str) -> tuple[str, str]:
    """Symbol and kind of ``market.btcusdt.mbp.150``; of others no kind that is known."""
    first, _, rest = topic.partition(".")
    symbol, _, kind = rest.partition(".")
    if first != "market" or (kind.startswith("depth.") and not kind.endswith(".high_freq")):
        return symbol, topic
    return symbol, kind.partition(".")[0]


def _topic(payload: bytes) -> str | None:
    """The topic where the frame begins with it."""
    return payload[7 : payload.find(b'"', 7)].decode() if payload.startswith(b'{"ch":"market.') else None


class Htx(Decoder):
    """The decoder of HTX."""

    exchange: ClassVar[str] = "htx"
    version: ClassVar[str] = "htx-1"
    documentation: ClassVar[str] = (
        "https://www.htx.com/en-us/opend/newApiPages/?id=7ec53561-7773-11ed-9966-0242ac110003"
    )
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="market.<symbol>.trade.detail", identity=Identity.ID),
        "quotes": Stream(name="market.<symbol>.bbo", identity=Identity.ID),
        "book_events": Stream(
            name="market.<symbol>.mbp.150, market.<contract>.depth.size_150.high_freq",
            identity=Identity.CHAIN,
            proof=Proof.PREVIOUS,
            snapshot="socket",
            depth=150,
        ),
    }

    def _events(self, payload: bytes) -> Sequence[Event]:
        topic = _topic(payload)
        if topic is None:
            probe = _probe(payload)
            if probe.rep is not UNSET and probe.status != "error":
                symbol, kind = _parts(probe.rep)
                if kind != "mbp":
                    raise DecodeError(f"reply to an unknown request: {payload[:80]!r}; expected one of mbp")
                return _from_reply(symbol, payload)
            if probe.ch is UNSET or probe.action is not UNSET:
                if self._control(payload) is None:
                    raise DecodeError(f"neither data nor reply: {payload[:80]!r}")
                return ()
            topic = probe.ch
        symbol, kind = _parts(topic)
        handler = _HANDLERS.get(kind)
        if handler is None or not symbol:
            raise DecodeError(f"unknown topic {topic[:80]!r}; expected one of: {', '.join(_HANDLERS)}")
        return handler(symbol, payload)

    def _control(self, payload: bytes) -> Control | None:
        if payload.startswith(b'{"ch":"market.'):
            return None
        probe = _probe(payload)
        if probe.status == "error":
            return Control("refused", detail=payload[:300].decode(errors="replace"))
        if probe.subbed is not UNSET:
            return Control("subscribed", (_parts(probe.subbed)[0],))
        if probe.unsubbed is not UNSET:
            return Control("unsubscribed", (_parts(probe.unsubbed)[0],))
        return Control("other") if probe.ping is not UNSET or probe.action is not UNSET else None

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """``seqNum`` and ``prevSeqNum`` of spot, ``version`` of contracts."""
        try:
            text = unpacked(payload)
            topic = _topic(text)
            if topic is None:
                return super().book_ids(text)
            symbol, kind = _parts(topic)
            if kind == "mbp":
                m = _mbp_ids(text).tick
                return (BookIds(symbol, None, m.seqNum, m.prevSeqNum),)
            if kind == "depth":
                of = _high_freq_ids(text).tick
                is_snapshot = of.event == "snapshot"
                return (BookIds(symbol, None, of.version, None if is_snapshot else of.version - 1, is_snapshot),)
        except WIRE_ERRORS:
            pass
        return ()


DECODER: Final = Htx()
