"""OKX, spot and derivatives.

Wire: https://www.okx.com/docs-v5/en/ (WebSocket: all trades, order book, funding rate, mark price, open interest, index
tickers and liquidation orders channels), read 2026-11. Times are ms as text; amounts of derivatives are contracts.

============  =================================  ==========================================  ====================
channel       stream                             identity                                    time
============  =================================  ==========================================  ====================
trades        trades-all                         tradeId; no page says that they are         ts, of the trade
                                                 consecutive
quotes        bbo-tbt                            seqId                                       ts
book_events   books                              seqId, where prevSeqId is the seqId of the  ts
                                                 message before; -1 in a whole book
derivatives   mark-price, funding-rate,          content                                     ts
              open-interest, index-tickers
liquidations  liquidation-orders                 content                                     ts, of the order
============  =================================  ==========================================  ====================

- ``trades`` puts several fills of one order into one row, with a count; only rows of one fill equal those of
  ``trades-all``, so any other is refused.
- A book that does not change for a minute is sent as an update without levels whose seqId is its prevSeqId. After
  maintenance the exchange may count on from a lower seqId: the prevSeqId still names the message before.
- The checksum of ``books`` has been 0 since 2026-06-23 and says nothing; what older messages carry is kept.
- index-tickers names the index (``BTC-USDT``), which is the native_id of the spot instrument, not of a derivative.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, ClassVar, Final, Generic, Literal, TypeVar

from msgspec import Meta, Struct, field
from msgspec.json import Decoder as Json

from collectors.decode.contract import BookIds, Control, DecodeError, Decoder, Identity, Proof, Stream
from collectors.decode.wire import WIRE_ERRORS
from collectors.events import BookEvent, Channel, Derivative, Event, Level, Liquidation, Quote, Trade

_Id = Annotated[int, Meta(ge=-1, le=2**63 - 1)]
_Item = TypeVar("_Item")
_DATA: Final = b'{"arg":{"channel":"'
_INSTRUMENT: Final = re.compile(r"instId:([\w-]+)", re.ASCII)


class _Level(Struct, array_like=True, gc=False):
    price: str
    amount: str  # two more follow: a deprecated one and the number of orders


class _Arg(Struct, gc=False):
    channel: str = ""
    instId: str = ""  # noqa: N815 - the wire's own name, as all below


class _Trade(Struct, gc=False):
    instId: str  # noqa: N815
    tradeId: str  # noqa: N815
    px: str
    sz: str
    side: Literal["buy", "sell"]
    ts: int
    count: str = "1"  # only of the channel trades


class _Best(Struct, gc=False):
    bids: list[_Level]
    asks: list[_Level]
    ts: int
    seqId: _Id  # noqa: N815


class _Book(Struct, gc=False):
    bids: list[_Level]
    asks: list[_Level]
    ts: int
    seqId: _Id | None = None  # noqa: N815 - on the wire since 2023
    prevSeqId: _Id | None = None  # noqa: N815
    checksum: int = 0


class _Ids(Struct, gc=False):
    seqId: _Id | None = None  # noqa: N815
    prevSeqId: _Id | None = None  # noqa: N815


class _Funding(Struct, gc=False):
    instId: str  # noqa: N815
    fundingRate: str  # noqa: N815
    fundingTime: str  # noqa: N815
    ts: int


class _Interest(Struct, gc=False):
    instId: str  # noqa: N815
    oi: str
    ts: int


class _Mark(Struct, gc=False):
    instId: str  # noqa: N815
    markPx: str  # noqa: N815
    ts: int


class _Index(Struct, gc=False):
    instId: str  # noqa: N815
    idxPx: str  # noqa: N815
    ts: int


class _Order(Struct, gc=False):
    side: Literal["buy", "sell"]
    sz: str
    bkPx: str  # noqa: N815
    ts: int


class _Orders(Struct, gc=False):
    instId: str  # noqa: N815
    details: list[_Order]


class _Data(Struct, Generic[_Item], gc=False):
    data: list[_Item]


class _Bests(Struct, gc=False):
    arg: _Arg
    data: list[_Best]


class _Books(Struct, gc=False):
    arg: _Arg
    action: Literal["snapshot", "update"]
    data: list[_Book]


class _BooksIds(Struct, gc=False):
    arg: _Arg
    action: Literal["snapshot", "update"]
    data: list[_Ids]


class _Probe(Struct, gc=False):
    """What tells one kind of frame from another."""

    event: str = ""
    arg: _Arg = field(default_factory=_Arg)
    code: str = ""
    msg: str = ""


_trades = Json(_Data[_Trade], strict=False).decode  # not strict: whole numbers as text
_bests = Json(_Bests, strict=False).decode
_books = Json(_Books, strict=False).decode
_books_ids = Json(_BooksIds, strict=False).decode
_fundings = Json(_Data[_Funding], strict=False).decode
_interests = Json(_Data[_Interest], strict=False).decode
_marks = Json(_Data[_Mark], strict=False).decode
_indexes = Json(_Data[_Index], strict=False).decode
_liquidations = Json(_Data[_Orders], strict=False).decode
_probe = Json(_Probe).decode


def _of_trades(payload: bytes) -> list[Event]:
    return [Trade(m.instId, m.ts * 1_000_000, m.tradeId, m.side == "buy", m.px, m.sz) for m in _trades(payload).data]


def _of_single_trades(payload: bytes) -> list[Event]:
    frame = _trades(payload)
    if any(m.count != "1" for m in frame.data):
        raise DecodeError("several fills in one row of the channel trades; expected the channel trades-all")
    return _of_trades(payload)


def _levels(side: list[_Level]) -> list[Level]:
    return [(level.price, level.amount) for level in side]


def _of_bests(payload: bytes) -> list[Event]:
    m = _bests(payload)
    return [
        Quote(
            m.arg.instId,
            one.ts * 1_000_000,
            one.seqId,
            *((one.bids[0].price, one.bids[0].amount) if one.bids else (None, None)),
            *((one.asks[0].price, one.asks[0].amount) if one.asks else (None, None)),
        )
        for one in m.data
    ]


def _of_books(payload: bytes) -> list[Event]:
    m = _books(payload)
    return [
        BookEvent(
            m.arg.instId,
            one.ts * 1_000_000,
            m.action,
            None,
            one.seqId,
            None if one.prevSeqId == -1 else one.prevSeqId,
            _levels(one.bids),
            _levels(one.asks),
            str(one.checksum) if one.checksum else None,
        )
        for one in m.data
    ]


def _of_fundings(payload: bytes) -> list[Event]:
    return [
        Derivative(
            native_id=m.instId,
            time=m.ts * 1_000_000,
            funding_rate=m.fundingRate or None,
            funding_time=int(m.fundingTime) * 1_000_000 if m.fundingTime else None,
        )
        for m in _fundings(payload).data
    ]


def _of_interests(payload: bytes) -> list[Event]:
    return [
        Derivative(native_id=m.instId, time=m.ts * 1_000_000, open_interest=m.oi or None)
        for m in _interests(payload).data
    ]


def _of_marks(payload: bytes) -> list[Event]:
    return [
        Derivative(native_id=m.instId, time=m.ts * 1_000_000, mark_price=m.markPx or None) for m in _marks(payload).data
    ]


def _of_indexes(payload: bytes) -> list[Event]:
    return [
        Derivative(native_id=m.instId, time=m.ts * 1_000_000, index_price=m.idxPx or None)
        for m in _indexes(payload).data
    ]


def _of_liquidations(payload: bytes) -> list[Event]:
    """The price is ``bkPx``, at which the position was bankrupt: the only one sent."""
    return [
        Liquidation(m.instId, one.ts * 1_000_000, None, one.side == "buy", one.bkPx, one.sz)
        for m in _liquidations(payload).data
        for one in m.details
    ]


_HANDLERS: Final[dict[bytes, Callable[[bytes], list[Event]]]] = {
    b"trades-all": _of_trades,
    b"trades": _of_single_trades,
    b"bbo-tbt": _of_bests,
    b"books": _of_books,
    b"mark-price": _of_marks,
    b"funding-rate": _of_fundings,
    b"open-interest": _of_interests,
    b"index-tickers": _of_indexes,
    b"liquidation-orders": _of_liquidations,
}
_OTHER_EVENTS: Final = ("login", "notice", "channel-conn-count")


class Okx(Decoder):
    """The decoder of OKX."""

    exchange: ClassVar = "okx"
    version: ClassVar = "okx-1"
    documentation: ClassVar = "https://www.okx.com/docs-v5/en/#order-book-trading-market-data-ws-order-book-channel"
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="trades-all", identity=Identity.ID),
        "quotes": Stream(name="bbo-tbt", identity=Identity.ID),
        "book_events": Stream(
            name="books", identity=Identity.CHAIN, proof=Proof.PREVIOUS, snapshot="socket", depth=400
        ),
        "derivatives": Stream(name="mark-price, funding-rate, open-interest, index-tickers", identity=Identity.TUPLE),
        "liquidations": Stream(name="liquidation-orders", identity=Identity.TUPLE),
    }

    def _usual(self, payload: bytes) -> Sequence[Event] | None:
        known = _HANDLERS.get(payload[19 : payload.find(b'"', 19, 40)])
        return None if known is None or not payload.startswith(_DATA) else known(payload)

    def _events(self, payload: bytes) -> Sequence[Event]:
        if self._control(payload) is not None:
            return ()
        probe = _probe(payload)
        known = _HANDLERS.get(probe.arg.channel.encode())
        if probe.event or known is None:
            raise DecodeError(f"unknown event {probe.event!r} or channel {probe.arg.channel!r}: {payload[:80]!r}")
        return known(payload)

    def _control(self, payload: bytes) -> Control | None:
        """``{"event":"subscribe","arg":{"channel":"books","instId":"BTC-USDT"},"connId":"a4d3ae55"}``; text pong."""
        if payload == b"pong":
            return Control("other")
        if payload.startswith(_DATA):
            return None
        probe = _probe(payload)
        ids = (probe.arg.instId,) if probe.arg.instId else ()
        match probe.event:
            case "subscribe":
                return Control("subscribed", ids)
            case "unsubscribe":
                return Control("unsubscribed", ids)
            case "error" | "channel-conn-count-error":
                named = tuple(_INSTRUMENT.findall(probe.msg))
                return Control("refused", ids or named, f"{probe.code} {probe.msg}".strip() or probe.event)
        return Control("other") if probe.event in _OTHER_EVENTS else None

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """``seqId`` and ``prevSeqId``, levels passed over."""
        try:
            if not payload.startswith(b'{"arg":{"channel":"books"') and _probe(payload).arg.channel != "books":
                return ()
            m = _books_ids(payload)
        except WIRE_ERRORS:
            return ()
        is_whole = m.action == "snapshot"
        return [
            BookIds(m.arg.instId, None, one.seqId, None if one.prevSeqId == -1 else one.prevSeqId, is_whole)
            for one in m.data
        ]


DECODER: Final = Okx()
