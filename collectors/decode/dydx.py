"""dYdX v4 perpetuals, from the exchange's indexer.

Wire: https://docs.dydx.xyz/indexer-client/websockets (v4_trades and v4_orderbook, batched or not), read 2026-11.

===========  ============  ==========================================  ==============================
channel      stream        identity                                    time
===========  ============  ==========================================  ==============================
trades       v4_trades     id                                          createdAt, ISO 8601, of the block
book_events  v4_orderbook  none                                        none on the wire
===========  ============  ==========================================  ==============================

- The frames of a connection are numbered by ``message_id``, from 0, whatever their channel: a jump is a loss.
- ``subscribed`` both acknowledges and holds data: recent trades, or the whole book.
- The book is the indexer's view of orders that are not yet in a block, and may be crossed for moments.
- Trades that liquidate say so (``LIQUIDATED``) and are trades like any other here; the exchange has no stream of
  liquidations alone. No quotes: there is no stream of them. No derivatives: ``v4_markets`` has no call in ccxt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, ClassVar, Final, Literal

from msgspec import Meta, Raw, Struct
from msgspec.json import Decoder as Json

from collectors.decode.contract import BookIds, Control, DecodeError, Decoder, Identity, Proof, Stream
from collectors.decode.wire import WIRE_ERRORS, ns_of_iso
from collectors.events import BookEvent, Channel, Event, Level, Trade

_REPLIES: Final = ("connected", "unsubscribed", "error", "pong")
_SINGLE: Final = b'{"type":"channel_data"'
_UPDATES: Final = (_SINGLE, b'{"type":"channel_batch_data"')


class _Frame(Struct, gc=False):
    type: str
    channel: str = ""
    id: str = ""
    contents: Raw = Raw(b"null")
    message: str = ""


class _Place(Struct, gc=False):
    type: str
    channel: str = ""
    id: str = ""


class _Numbered(Struct, gc=False):
    message_id: Annotated[int, Meta(ge=0, le=2**63 - 1)]


class _Trade(Struct, gc=False):
    id: str
    side: Literal["BUY", "SELL"]
    size: str
    price: str
    createdAt: str  # noqa: N815 - the wire's own name


class _Trades(Struct, gc=False):
    trades: list[_Trade]


class _Level(Struct, gc=False):
    price: str
    size: str


class _TradesFrame(Struct, gc=False):
    channel: str
    id: str
    contents: _Trades


class _Whole(Struct, gc=False):
    bids: list[_Level]
    asks: list[_Level]


class _Update(Struct, gc=False):
    bids: list[Level] | None = None
    asks: list[Level] | None = None


class _UpdateFrame(Struct, gc=False):
    channel: str
    id: str
    contents: _Update


_frame = Json(_Frame).decode
_trades_frame = Json(_TradesFrame).decode
_update_frame = Json(_UpdateFrame).decode
_place = Json(_Place).decode
_numbered = Json(_Numbered).decode
_trades = Json(_Trades).decode
_batch_of_trades = Json(list[_Trades]).decode
_whole = Json(_Whole).decode
_update = Json(_Update).decode
_batch_of_updates = Json(list[_Update]).decode


@lru_cache(maxsize=256)
def _second(text: str) -> int:
    """``2023-11-14T22:13:20`` as ns: a second has many trades."""
    return ns_of_iso(text)


def _ns(text: str) -> int:
    """``2023-11-14T22:13:20.119Z`` as ns."""
    if len(text) == 24 and text[19] == "." and text[23] == "Z" and text.isascii() and text[20:23].isdigit():
        return _second(text[:19]) + int(text[20:23]) * 1_000_000
    return ns_of_iso(text)


def _of_trades(market: str, parts: list[_Trades]) -> list[Event]:
    """``{"trades":[{"id":"02b6","side":"BUY","size":"0.024","price":"114581","createdAt":"2025-08-04T00:42:07.119Z"}]}``"""
    return [
        Trade(market, _ns(t.createdAt), t.id, t.side == "BUY", t.price, t.size) for part in parts for t in part.trades
    ]


def _of_whole(market: str, book: _Whole) -> list[Event]:
    """``{"bids":[{"price":"114623","size":"0.1112"}],"asks":[]}``"""
    bids, asks = ([(level.price, level.size) for level in side] for side in (book.bids, book.asks))
    return [BookEvent(market, None, "snapshot", None, None, None, bids, asks)]


def _of_updates(market: str, parts: list[_Update]) -> list[Event]:
    """``{"bids":[["114623","0.5"]]}``, each part a change of its own."""
    events: list[Event] = []
    for part in parts:
        if part.bids is part.asks is None:
            raise DecodeError(f"an update of {market} without bids or asks")
        events.append(BookEvent(market, None, "update", None, None, None, part.bids or [], part.asks or []))
    return events


_HANDLERS: Final[dict[tuple[str, str], Callable[[str, Raw], list[Event]]]] = {
    ("channel_data", "v4_orderbook"): lambda market, raw: _of_updates(market, [_update(raw)]),
    ("channel_data", "v4_trades"): lambda market, raw: _of_trades(market, [_trades(raw)]),
    ("channel_batch_data", "v4_orderbook"): lambda market, raw: _of_updates(market, _batch_of_updates(raw)),
    ("channel_batch_data", "v4_trades"): lambda market, raw: _of_trades(market, _batch_of_trades(raw)),
    ("subscribed", "v4_orderbook"): lambda market, raw: _of_whole(market, _whole(raw)),
    ("subscribed", "v4_trades"): lambda market, raw: _of_trades(market, [_trades(raw)]),
}


class Dydx(Decoder):
    """The decoder of dYdX v4."""

    exchange: ClassVar = "dydx"
    version: ClassVar = "dydx-1"
    documentation: ClassVar = "https://docs.dydx.xyz/indexer-client/websockets"
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="v4_trades", identity=Identity.ID, proof=Proof.CONNECTION),
        "book_events": Stream(name="v4_orderbook", identity=Identity.EPOCH, proof=Proof.CONNECTION, snapshot="socket"),
    }

    def _usual(self, payload: bytes) -> Sequence[Event] | None:
        if payload.startswith(_SINGLE):
            head = payload[:256]
            if b'"channel":"v4_orderbook"' in head and (m := _update_frame(payload)).channel == "v4_orderbook":
                return _of_updates(m.id, [m.contents])
            if b'"channel":"v4_trades"' in head and (n := _trades_frame(payload)).channel == "v4_trades":
                return _of_trades(n.id, [n.contents])
        return None

    def _events(self, payload: bytes) -> Sequence[Event]:
        m = _frame(payload)
        if (known := _HANDLERS.get((m.type, m.channel))) is not None:
            return known(m.id, m.contents)
        if m.type in _REPLIES:
            return []
        raise DecodeError(f"unknown message {m.type!r} of channel {m.channel!r}; expected v4_trades or v4_orderbook")

    def _control(self, payload: bytes) -> Control | None:
        """A ``subscribed`` is told here although it also holds data."""
        if payload.startswith(_UPDATES):
            return None
        m = _frame(payload)
        match m.type:
            case "subscribed":
                return Control("subscribed", (m.id,))
            case "unsubscribed":
                return Control("unsubscribed", (m.id,))
            case "error":
                return Control("refused", detail=m.message)
            case "connected" | "pong":
                return Control("other")
        return None

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """The market of each book message: there are no ids but the frame's number."""
        try:
            m = _place(payload)
            if m.channel != "v4_orderbook":
                return ()
            match m.type:
                case "subscribed":
                    return (BookIds(m.id, None, None, None, True),)
                case "channel_data":
                    return (BookIds(m.id, None, None, None),)
                case "channel_batch_data":
                    return [BookIds(m.id, None, None, None)] * len(_batch_of_updates(_frame(payload).contents))
        except WIRE_ERRORS:
            pass
        return ()

    def frame_number(self, payload: bytes) -> int | None:
        """``message_id``."""
        try:
            return _numbered(payload).message_id
        except WIRE_ERRORS:
            return None


DECODER: Final = Dydx()
