"""Poloniex spot.

Wire: https://api-docs.poloniex.com/spot/websocket/market-data (trades and book level 2), read 2026-11. Times are ms.

===========  ========  =====================================================  =========================
channel      stream    identity                                               time
===========  ========  =====================================================  =========================
trades       trades    id; no page says that they are consecutive             createTime
book_events  book_lv2  id, where lastId is the id of the message before it    createTime, of the change
===========  ========  =====================================================  =========================

- ``ts`` is when a message was sent, which differs between connections; it is not kept.
- The book is that of the best 20 levels: what leaves them is deleted, what enters them is sent anew. A message with the
  action snapshot may also come later and replaces the book.
- No quotes: the exchange has no stream of the best bid and ask.
- ``amount`` of a trade is in quote, ``quantity`` in base.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, ClassVar, Final, Literal

from msgspec import Meta, Struct
from msgspec.json import Decoder as Json

from collectors.decode.contract import BookIds, Control, DecodeError, Decoder, Identity, Proof, Stream
from collectors.decode.wire import WIRE_ERRORS
from collectors.events import BookEvent, Channel, Event, Level, Trade

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_TRADES: Final = b'{"channel":"trades","data":['
_BOOKS: Final = b'{"channel":"book_lv2","data":['


class _Trade(Struct, gc=False):
    symbol: str
    quantity: str
    takerSide: Literal["buy", "sell"]  # noqa: N815 - the wire's own name, as all below
    createTime: int  # noqa: N815
    price: str
    id: str | int


class _Book(Struct, gc=False):
    symbol: str
    createTime: int  # noqa: N815
    asks: list[Level]
    bids: list[Level]
    lastId: _Id  # noqa: N815
    id: _Id


class _Ids(Struct, gc=False):
    symbol: str
    lastId: _Id  # noqa: N815
    id: _Id


class _Trades(Struct, gc=False):
    data: list[_Trade]


class _Books(Struct, gc=False):
    data: list[_Book]
    action: Literal["snapshot", "update"]


class _BooksIds(Struct, gc=False):
    data: list[_Ids]
    action: Literal["snapshot", "update"]


class _Probe(Struct, gc=False):
    """What tells one kind of frame from another."""

    channel: str = ""
    event: str = ""
    symbols: list[str] = []
    message: str = ""


_trades = Json(_Trades).decode
_books = Json(_Books).decode
_books_ids = Json(_BooksIds).decode
_probe = Json(_Probe).decode


def _of_trades(payload: bytes) -> list[Event]:
    """``{"channel":"trades","data":[{"symbol":"A_B","quantity":"2","takerSide":"buy","price":"1","id":"7",...}]}``"""
    return [
        Trade(m.symbol, m.createTime * 1_000_000, str(m.id), m.takerSide == "buy", m.price, m.quantity)
        for m in _trades(payload).data
    ]


def _of_books(payload: bytes) -> list[Event]:
    """``{"channel":"book_lv2","data":[{"symbol":"A_B","asks":[["1","2"]],"lastId":7,"id":8,...}],"action":"update"}``"""
    frame = _books(payload)
    is_update = frame.action == "update"
    return [
        BookEvent(
            m.symbol,
            m.createTime * 1_000_000,
            frame.action,
            None,
            m.id,
            m.lastId if is_update else None,
            m.bids,
            m.asks,
        )
        for m in frame.data
    ]


_HANDLERS: Final[dict[str, Callable[[bytes], list[Event]]]] = {"trades": _of_trades, "book_lv2": _of_books}
_REPLIES: Final = ("subscribe", "unsubscribe", "error", "pong")


class Poloniex(Decoder):
    """The decoder of Poloniex spot."""

    exchange: ClassVar = "poloniex"
    version: ClassVar = "poloniex-1"
    documentation: ClassVar = "https://api-docs.poloniex.com/spot/websocket/market-data"
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="trades", identity=Identity.ID),
        "book_events": Stream(
            name="book_lv2", identity=Identity.CHAIN, proof=Proof.PREVIOUS, snapshot="socket", depth=20
        ),
    }

    def _usual(self, payload: bytes) -> Sequence[Event] | None:
        if payload.startswith(_TRADES):
            return _of_trades(payload)
        return _of_books(payload) if payload.startswith(_BOOKS) else None

    def _events(self, payload: bytes) -> Sequence[Event]:
        probe = _probe(payload)
        if probe.event in _REPLIES:
            return []
        known = _HANDLERS.get(probe.channel)
        if known is None or probe.event:
            raise DecodeError(f"unknown message: {payload[:80]!r}; expected the channel trades or book_lv2, or a reply")
        return known(payload)

    def _control(self, payload: bytes) -> Control | None:
        if payload.startswith((_TRADES, _BOOKS)):
            return None
        probe = _probe(payload)
        match probe.event:
            case "subscribe":
                return Control("subscribed", tuple(probe.symbols))
            case "unsubscribe":
                return Control("unsubscribed", tuple(probe.symbols))
            case "error":
                return Control("refused", detail=probe.message)
            case "pong":
                return Control("other")
        return None

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """``id`` of each book in the frame and, in an update, ``lastId``."""
        if payload.startswith(_TRADES):
            return ()
        try:
            if not payload.startswith(_BOOKS):
                probe = _probe(payload)
                if probe.channel != "book_lv2" or probe.event:
                    return ()
            frame = _books_ids(payload)
        except WIRE_ERRORS:
            return ()
        if frame.action == "snapshot":
            return [BookIds(m.symbol, None, m.id, None, True) for m in frame.data]
        return [BookIds(m.symbol, None, m.id, m.lastId) for m in frame.data]


DECODER: Final = Poloniex()
