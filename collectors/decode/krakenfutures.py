"""Kraken Futures (Kraken Derivatives).

Wire: https://docs.kraken.com/api/docs/futures-api/websocket (book, trade, ticker), read 2026-11. Prices and amounts are
JSON numbers, times ms.

===========  ===========================  ====================================================  ===============
channel      stream                       identity                                              time
===========  ===========================  ====================================================  ===============
trades       trade, trade_snapshot        uid                                                   time
book_events  book, book_snapshot          seq, consecutive within a product, one level each     timestamp
derivatives  ticker                       content                                               time
liquidations trade of such a type         uid                                                   time
===========  ===========================  ====================================================  ===============

A liquidation is a trade too, so such a message is two events. A subscription to trades opens with the last 100, newest
first, which were sent before: their uids tell. The ticker leaves out a funding rate of zero. It comes once a second, so
L1 comes from the book; ticker_lite frames are known and yield nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.json import Decoder as Json

from collectors.decode.contract import BookIds, Control, DecodeError, Decoder, Identity, Proof, Stream
from collectors.decode.wire import WIRE_ERRORS, PriceQty, text_of, texts_of
from collectors.events import BookEvent, Channel, Derivative, Event, Liquidation, Trade

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Ms = Annotated[int, Meta(ge=0, le=2**43)]
_Side = Literal["buy", "sell"]
_FORCED: Final = ("liquidation", "termination")
_BOOK: Final = (b'{"feed":"book",', b'{"feed":"book_snapshot",')
_DATA: Final = (*_BOOK, b'{"feed":"trade",', b'{"feed":"trade_snapshot",', b'{"feed":"ticker",')
_REPLIES: Final[dict[str, Literal["subscribed", "unsubscribed", "refused"]]] = {
    "subscribed": "subscribed",
    "unsubscribed": "unsubscribed",
    "subscribed_failed": "refused",
    "unsubscribed_failed": "refused",
    "error": "refused",
    "alert": "refused",
}


class _Fill(Struct, gc=False):
    product_id: str
    uid: str
    side: _Side  # the taker's
    type: str
    time: _Ms
    qty: Raw
    price: Raw


class _Trade(_Fill, tag_field="feed", tag="trade", gc=False):
    pass


class _Trades(Struct, tag_field="feed", tag="trade_snapshot", gc=False):
    trades: list[_Fill]


class _Book(Struct, tag_field="feed", tag="book", gc=False):
    product_id: str
    side: _Side
    seq: _Id
    price: Raw
    qty: Raw
    timestamp: _Ms


class _Snapshot(Struct, tag_field="feed", tag="book_snapshot", gc=False):
    product_id: str
    seq: _Id
    timestamp: _Ms
    bids: list[PriceQty]
    asks: list[PriceQty]


class _Ticker(Struct, tag_field="feed", tag="ticker", gc=False):
    product_id: str
    time: _Ms
    tag: str | None = None
    relative_funding_rate: Raw | UnsetType = UNSET
    next_funding_rate_time: _Ms | None = None
    openInterest: Raw | UnsetType = UNSET  # noqa: N815 - the wire's own names
    markPrice: Raw | UnsetType = UNSET  # noqa: N815
    index: Raw | UnsetType = UNSET


class _TickerLite(Struct, tag_field="feed", tag="ticker_lite", gc=False):
    pass


class _Heartbeat(Struct, tag_field="feed", tag="heartbeat", gc=False):
    pass


class _BookHead(Struct, tag_field="feed", tag="book", gc=False):
    product_id: str
    seq: _Id


class _SnapshotHead(Struct, tag_field="feed", tag="book_snapshot", gc=False):
    product_id: str
    seq: _Id


class _Probe(Struct, gc=False):
    """What tells a reply from data."""

    event: str | UnsetType = UNSET
    feed: str | UnsetType = UNSET
    product_ids: tuple[str, ...] = ()
    message: Any = None


_frame = Json(_Book | _Trade | _Ticker | _Snapshot | _Trades | _TickerLite | _Heartbeat).decode
_head = Json(_BookHead | _SnapshotHead).decode
_probe = Json(_Probe).decode


def _fill(m: _Fill) -> list[Event]:
    time, is_buy = m.time * 1_000_000, m.side == "buy"
    price, amount = text_of(m.price), text_of(m.qty)
    trade = Trade(m.product_id, time, m.uid, is_buy, price, amount)
    if m.type in _FORCED:
        return [trade, Liquidation(m.product_id, time, m.uid, is_buy, price, amount)]
    return [trade]


def _optional(raw: Raw | UnsetType) -> str | None:
    return None if raw is UNSET or bytes(raw) == b"null" else text_of(raw)


def _state(m: _Ticker) -> Derivative:
    rate = _optional(m.relative_funding_rate)
    if rate is None and m.tag == "perpetual":
        rate = "0"
    return Derivative(
        native_id=m.product_id,
        time=m.time * 1_000_000,
        funding_rate=rate,
        funding_time=None if m.next_funding_rate_time is None else m.next_funding_rate_time * 1_000_000,
        open_interest=_optional(m.openInterest),
        mark_price=_optional(m.markPrice),
        index_price=_optional(m.index),
    )


def _book(m: _Book) -> tuple[BookEvent]:
    levels = [(text_of(m.price), text_of(m.qty))]
    bids, asks = (levels, []) if m.side == "buy" else ([], levels)
    return (BookEvent(m.product_id, m.timestamp * 1_000_000, "update", m.seq, m.seq, None, bids, asks),)


def _snapshot(m: _Snapshot) -> tuple[BookEvent]:
    bids, asks = texts_of(m.bids), texts_of(m.asks)
    return (BookEvent(m.product_id, m.timestamp * 1_000_000, "snapshot", m.seq, m.seq, None, bids, asks),)


_READERS: Final[dict[type, Callable[[Any], Sequence[Event]]]] = {
    _Book: _book,
    _Trade: _fill,
    _Ticker: lambda m: (_state(m),),
    _Snapshot: _snapshot,
    _Trades: lambda m: [event for one in reversed(m.trades) for event in _fill(one)],
}


class KrakenFutures(Decoder):
    """The decoder of Kraken Futures."""

    exchange: ClassVar = "krakenfutures"
    version: ClassVar = "krakenfutures-1"
    documentation: ClassVar = "https://docs.kraken.com/api/docs/futures-api/websocket/book"
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="trade", identity=Identity.ID),
        "book_events": Stream(name="book", identity=Identity.CHAIN, proof=Proof.CONSECUTIVE, snapshot="socket"),
        "derivatives": Stream(name="ticker", identity=Identity.TUPLE),
        "liquidations": Stream(name="trade", identity=Identity.ID),
    }

    def _events(self, payload: bytes) -> Sequence[Event]:
        if not payload.startswith(b'{"feed":'):
            probe = _probe(payload)
            if probe.event is not UNSET:
                return ()
            if probe.feed is UNSET:
                raise DecodeError(f"neither feed nor event: {payload[:80]!r}")
        m = _frame(payload)
        read = _READERS.get(type(m))
        return () if read is None else read(m)

    def _control(self, payload: bytes) -> Control | None:
        if payload.startswith(_DATA):
            return None
        probe = _probe(payload)
        if probe.event is UNSET:
            return Control("other") if probe.feed in ("heartbeat", "ticker_lite") else None
        kind = _REPLIES.get(probe.event)
        text = "" if probe.message is None else str(probe.message)
        if kind is None or text.startswith("Already subscribed"):
            return Control("other")
        return Control(kind, probe.product_ids, text or probe.event if kind == "refused" else "")

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """``seq``, of an update as of a snapshot."""
        if payload.startswith(b'{"feed":') and not payload.startswith(_BOOK):
            return ()
        try:
            m = _head(payload)
        except WIRE_ERRORS:
            return ()
        return (BookIds(m.product_id, m.seq, m.seq, None, isinstance(m, _SnapshotHead)),)


DECODER: Final = KrakenFutures()
