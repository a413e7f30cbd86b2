"""Bitvavo.

Wire: https://docs.bitvavo.com/docs/websocket-api/book-subscription (and trades-subscription) and
https://docs.bitvavo.com/docs/rest-api/get-order-book, read 2026-11.

===========  ======  ============================================  ========================================
channel      stream  identity                                      time
===========  ======  ============================================  ========================================
trades       trades  id (a uuid)                                   timestampNs, else timestamp (ms)
book_events  book    nonce, consecutive within a market            timestamp (ms or ns); none before 2025
===========  ======  ============================================  ========================================

The tickers tell only some changes of the best bid and ask, so L1 comes from the book; their frames yield nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.json import Decoder as Json

from collectors.decode.contract import BookIds, Control, DecodeError, Decoder, Identity, Proof, Stream
from collectors.decode.wire import WIRE_ERRORS
from collectors.events import BookEvent, Channel, Event, Level, Trade

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_DATA: Final = (b'{"event":"book","market"', b'{"event":"trade"')
_NANOSECONDS_FROM: Final = 10**17
"""Read as ms it is the year 3170843, read as ns 1973: no time of one unit is mistaken for the other."""
_SNAPSHOT_LIMIT: Final = 1000
_REPLIES: Final[dict[str, Literal["subscribed", "unsubscribed"]]] = {
    "subscribed": "subscribed",
    "unsubscribed": "unsubscribed",
}


class _Fill(Struct, tag_field="event", tag="trade", gc=False):
    market: str
    id: str
    amount: str
    price: str
    side: Literal["buy", "sell"]  # the taker's
    timestamp: _Id
    timestampNs: _Id | None = None  # noqa: N815 - the wire's own name


class _Update(Struct, tag_field="event", tag="book", gc=False):
    market: str
    nonce: _Id
    bids: list[Level]
    asks: list[Level]
    timestamp: _Id | None = None


class _UpdateHead(Struct, tag_field="event", tag="book", gc=False):
    market: str
    nonce: _Id


class _Snapshot(Struct, gc=False):
    nonce: _Id
    bids: list[Level]
    asks: list[Level]
    timestamp: _Id | None = None


class _Probe(Struct, gc=False):
    """What tells a reply from data."""

    event: str | UnsetType = UNSET
    action: str | UnsetType = UNSET
    market: str | UnsetType = UNSET
    subscriptions: Any = UNSET
    error: Any = UNSET


_frame = Json(_Update | _Fill).decode
_head = Json(_UpdateHead).decode
_snapshot = Json(_Snapshot).decode
_probe = Json(_Probe).decode


def _ns(time: int | None) -> int | None:
    return None if time is None else time if time >= _NANOSECONDS_FROM else time * 1_000_000


def _reply(probe: _Probe) -> Control | None:
    """What it says, None for data. An acknowledgement lists all that is active, so it stands for the whole request."""
    if probe.error is not UNSET:
        return Control("refused", () if probe.market is UNSET else (probe.market,), str(probe.error))
    if probe.event is UNSET:
        return None if probe.action is UNSET else Control("other")
    if probe.subscriptions is not UNSET:
        return Control(_REPLIES.get(str(probe.event), "subscribed"))
    return Control("other") if probe.event in ("ticker", "ticker24h", "candle", "authenticate") else None


class Bitvavo(Decoder):
    """The decoder of Bitvavo."""

    exchange: ClassVar = "bitvavo"
    version: ClassVar = "bitvavo-1"
    documentation: ClassVar = "https://docs.bitvavo.com/docs/websocket-api/book-subscription"
    rest: ClassVar = "https://api.bitvavo.com"
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="trades", identity=Identity.ID),
        "book_events": Stream(
            name="book", identity=Identity.CHAIN, proof=Proof.CONSECUTIVE, snapshot="rest", depth=_SNAPSHOT_LIMIT
        ),
    }

    def _events(self, payload: bytes) -> Sequence[Event]:
        if not payload.startswith(_DATA):
            probe = _probe(payload)
            if _reply(probe) is not None:
                return ()
            if probe.event is UNSET:
                raise DecodeError(f"neither event nor reply: {payload[:80]!r}")
        m = _frame(payload)
        if isinstance(m, _Update):
            return (BookEvent(m.market, _ns(m.timestamp), "update", m.nonce, m.nonce, None, m.bids, m.asks),)
        time = m.timestamp * 1_000_000 if m.timestampNs is None else m.timestampNs
        return (Trade(m.market, time, m.id, m.side == "buy", m.price, m.amount),)

    def _control(self, payload: bytes) -> Control | None:
        return None if payload.startswith(_DATA) else _reply(_probe(payload))

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """``nonce``, one an update."""
        if payload.startswith(_DATA[1]):
            return ()
        try:
            m = _head(payload)
        except WIRE_ERRORS:
            return ()
        return (BookIds(m.market, m.nonce, m.nonce, None),)

    def _snapshot(self, native_id: str, reply: bytes) -> BookEvent:
        """The book of ``GET /v2/<market>/book``."""
        m = _snapshot(reply)
        return BookEvent(native_id, _ns(m.timestamp), "snapshot", m.nonce, m.nonce, None, m.bids, m.asks)

    def snapshot_url(self, native_id: str, rest: str | None = None) -> str:
        """The deepest book the exchange gives: 1,000 levels a side, weight 1 of the 1,000 a minute and address."""
        return f"{rest or self.rest}/v2/{native_id}/book?depth={_SNAPSHOT_LIMIT}"


DECODER: Final = Bitvavo()
