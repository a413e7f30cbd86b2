"""Coinbase Exchange.

Wire: https://docs.cdp.coinbase.com/exchange/docs/websocket-channels (matches, level2_batch), read 2026-11.

===========  ============  ========================================  =======================================
channel      stream        identity                                  time
===========  ============  ========================================  =======================================
trades       matches       trade_id, consecutive within a product    time (µs)
book_events  level2_batch  the connection: no ids on the wire        time (µs); none in the older snapshots
===========  ============  ========================================  =======================================

``side`` of a match is the maker's. A subscription to matches opens with ``last_match``, which was sent before.
``level2_batch`` (every 50 ms) needs no login, level2 does; both look the same. The ticker tells the best bid and ask
only at a trade, so L1 comes from the book; ticker frames are known and yield nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final, Literal

from msgspec import Meta, Struct
from msgspec.json import Decoder as Json

from collectors.decode.contract import BookIds, Control, Decoder, Identity, Proof, Stream
from collectors.decode.wire import WIRE_ERRORS, ns_of_utc
from collectors.events import BookEvent, Channel, Event, Level, Trade

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Side = Literal["buy", "sell"]
_DATA: Final = (b'{"type":"l2update"', b'{"type":"snapshot"', b'{"type":"match"', b'{"type":"last_match"')


class _Match(Struct, tag_field="type", tag="match", gc=False):
    product_id: str
    trade_id: _Id
    side: _Side  # the maker's
    price: str
    size: str
    time: str
    maker_order_id: str | None = None
    taker_order_id: str | None = None


class _LastMatch(_Match, tag_field="type", tag="last_match", gc=False):
    pass


class _Update(Struct, tag_field="type", tag="l2update", gc=False):
    product_id: str
    time: str
    changes: list[tuple[_Side, str, str]]


class _Snapshot(Struct, tag_field="type", tag="snapshot", gc=False):
    product_id: str
    bids: list[Level]
    asks: list[Level]
    time: str | None = None


class _Ticker(Struct, tag_field="type", tag="ticker", gc=False):
    pass


class _Heartbeat(Struct, tag_field="type", tag="heartbeat", gc=False):
    pass


class _Subscriptions(Struct, tag_field="type", tag="subscriptions", gc=False):
    pass


class _Error(Struct, tag_field="type", tag="error", gc=False):
    message: str = ""
    reason: str = ""


class _UpdateHead(Struct, tag_field="type", tag="l2update", gc=False):
    product_id: str


class _SnapshotHead(Struct, tag_field="type", tag="snapshot", gc=False):
    product_id: str


_Control = _Ticker | _Heartbeat | _Subscriptions | _Error
_frame = Json(_Update | _Match | _Snapshot | _LastMatch | _Control).decode
_control = Json(_Control).decode
_head = Json(_UpdateHead | _SnapshotHead).decode


def _trade(m: _Match) -> Trade:
    maker, taker = m.maker_order_id, m.taker_order_id
    is_buy = m.side == "sell"
    buyer, seller = (taker, maker) if is_buy else (maker, taker)
    return Trade(m.product_id, ns_of_utc(m.time), str(m.trade_id), is_buy, m.price, m.size, buyer, seller)


def _update(m: _Update) -> BookEvent:
    bids: list[Level] = []
    asks: list[Level] = []
    for side, price, amount in m.changes:
        (bids if side == "buy" else asks).append((price, amount))
    return BookEvent(m.product_id, ns_of_utc(m.time), "update", None, None, None, bids, asks)


class CoinbaseExchange(Decoder):
    """The decoder of Coinbase Exchange."""

    exchange: ClassVar = "coinbaseexchange"
    version: ClassVar = "coinbaseexchange-1"
    documentation: ClassVar = "https://docs.cdp.coinbase.com/exchange/docs/websocket-channels"
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="matches", identity=Identity.ID, proof=Proof.CONSECUTIVE),
        "book_events": Stream(name="level2_batch", identity=Identity.EPOCH, snapshot="socket"),
    }

    def _events(self, payload: bytes) -> Sequence[Event]:
        m = _frame(payload)
        if isinstance(m, _Update):
            return (_update(m),)
        if isinstance(m, _Match):
            return (_trade(m),)
        if isinstance(m, _Snapshot):
            time = None if m.time is None else ns_of_utc(m.time)
            return (BookEvent(m.product_id, time, "snapshot", None, None, None, m.bids, m.asks),)
        return ()

    def _control(self, payload: bytes) -> Control | None:
        """An acknowledgement lists all that the connection has by now, so it stands for the whole request."""
        if payload.startswith(_DATA):
            return None
        m = _control(payload)
        if isinstance(m, _Error):
            return Control("refused", (), ": ".join(text for text in (m.message, m.reason) if text))
        return Control("subscribed" if isinstance(m, _Subscriptions) else "other")

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """Whose book; this exchange numbers nothing."""
        if payload.startswith(_DATA[2:]):
            return ()
        try:
            m = _head(payload)
        except WIRE_ERRORS:
            return ()
        return (BookIds(m.product_id, None, None, None, isinstance(m, _SnapshotHead)),)


DECODER: Final = CoinbaseExchange()
