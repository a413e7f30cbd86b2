"""WhiteBIT, spot and perpetuals.

Wire: https://docs.whitebit.com/websocket/market-streams/overview (trades and depth), read 2026-11. Times are seconds as
JSON numbers with a fraction, kept digit by digit.

===========  =============  ===================================================  ===================
channel      stream         identity                                             time
===========  =============  ===================================================  ===================
trades       trades_update  id; no page says that they are consecutive           time, of the trade
book_events  depth_update   update_id, where past_update_id is the one before;   timestamp
                            a whole book has no past_update_id
===========  =============  ===================================================  ===================

- The first message of ``trades`` holds recent trades, newest first, as does each that follows a new subscription.
- ``event_time`` is when a message was sent, which differs between connections; it is not kept.
- A side that did not change is not sent. The book is that of the best 100 levels.
- No quotes: the exchange's stream ``bookTicker`` has no call in ccxt; the best levels of ``depth`` stand for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.json import Decoder as Json

from collectors.decode.contract import BookIds, Control, DecodeError, Decoder, Identity, Proof, Stream
from collectors.decode.wire import WIRE_ERRORS, ns_of_seconds, number
from collectors.events import BookEvent, Channel, Event, Level, Trade

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_DEPTH: Final = 100


class _Trade(Struct, gc=False):
    id: int
    time: Raw
    price: str
    amount: str
    type: Literal["buy", "sell"]


class _TradeParams(Struct, array_like=True, gc=False):
    market: str
    trades: list[_Trade]


class _TradeFrame(Struct, gc=False):
    params: _TradeParams


class _Depth(Struct, gc=False):
    timestamp: Raw
    update_id: _Id | None = None
    past_update_id: _Id | None = None
    asks: list[Level] = []
    bids: list[Level] = []


class _DepthParams(Struct, array_like=True, gc=False):
    is_whole: bool
    book: _Depth
    market: str


class _DepthFrame(Struct, gc=False):
    params: _DepthParams


class _Ids(Struct, gc=False):
    update_id: _Id | None = None
    past_update_id: _Id | None = None


class _IdsParams(Struct, array_like=True, gc=False):
    is_whole: bool
    book: _Ids
    market: str


class _IdsFrame(Struct, gc=False):
    params: _IdsParams


class _Probe(Struct, gc=False):
    """What tells one kind of frame from another."""

    method: str = ""
    result: Any = UNSET
    error: Raw | UnsetType = UNSET


_trades = Json(_TradeFrame).decode
_depth = Json(_DepthFrame).decode
_ids = Json(_IdsFrame).decode
_probe = Json(_Probe).decode


def _ns(raw: Raw) -> int:
    """``1700000000.123456`` as ns; how it is nearly always written, without an expression."""
    text = bytes(raw)
    if text[10:11] == b"." and len(text) <= 20 and (digits := text[:10] + text[11:]).isdigit():
        return int(digits.ljust(19, b"0"))
    return ns_of_seconds(number(raw))


def _of_trades(payload: bytes) -> list[Event]:
    """``{"method":"trades_update","params":["A_B",[{"id":7,"time":1.5,"price":"1","amount":"2","type":"buy"}]],"id":null}``"""
    m = _trades(payload).params
    return [Trade(m.market, _ns(t.time), str(t.id), t.type == "buy", t.price, t.amount) for t in m.trades]


def _of_depth(payload: bytes) -> list[Event]:
    """``{"method":"depth_update","params":[false,{"timestamp":1.5,"update_id":8,"past_update_id":7,"asks":[]},"A_B"]}``"""
    m = _depth(payload).params
    book = m.book
    if not m.is_whole and book.update_id is None:
        raise DecodeError(f"an update of {m.market} without update_id")
    time = _ns(book.timestamp)
    kind: Literal["snapshot", "update"] = "snapshot" if m.is_whole else "update"
    previous = None if m.is_whole else book.past_update_id
    return [BookEvent(m.market, time, kind, None, book.update_id, previous, book.bids, book.asks)]


_HANDLERS: Final[dict[bytes, Callable[[bytes], list[Event]]]] = {
    b"trades_update": _of_trades,
    b"depth_update": _of_depth,
}


def _method_of(payload: bytes) -> bytes:
    """The method where the frame is laid out in one of the exchange's two ways, else nothing."""
    if payload.startswith(b'{"method":"'):
        return payload[11 : payload.find(b'"', 11, 40)]
    return payload[21 : payload.find(b'"', 21, 50)] if payload.startswith(b'{"id":null,"method":"') else b""


class Whitebit(Decoder):
    """The decoder of WhiteBIT."""

    exchange: ClassVar = "whitebit"
    version: ClassVar = "whitebit-1"
    documentation: ClassVar = "https://docs.whitebit.com/websocket/market-streams/overview"
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="trades_update", identity=Identity.ID),
        "book_events": Stream(
            name="depth_update", identity=Identity.CHAIN, proof=Proof.PREVIOUS, snapshot="socket", depth=_DEPTH
        ),
    }

    def _usual(self, payload: bytes) -> Sequence[Event] | None:
        known = _HANDLERS.get(_method_of(payload))
        return None if known is None else known(payload)

    def _events(self, payload: bytes) -> Sequence[Event]:
        probe = _probe(payload)
        known = _HANDLERS.get(probe.method.encode(errors="replace"))
        if known is not None:
            return known(payload)
        if not probe.method and (probe.result is not UNSET or probe.error is not UNSET):
            return []
        raise DecodeError(f"unknown method {probe.method!r}; expected trades_update, depth_update or a reply")

    def _control(self, payload: bytes) -> Control | None:
        if _method_of(payload) in _HANDLERS:
            return None
        probe = _probe(payload)
        if probe.method:
            return None
        if isinstance(probe.error, Raw) and bytes(probe.error) != b"null":
            return Control("refused", detail=bytes(probe.error)[:300].decode(errors="replace"))
        if probe.result == {"status": "success"}:
            return Control("subscribed")
        return None if probe.result is UNSET else Control("other")  # "pong" answers a ping

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """``update_id`` and, in an update, ``past_update_id``."""
        try:
            if (_method_of(payload) or _probe(payload).method.encode(errors="replace")) != b"depth_update":
                return ()
            m = _ids(payload).params
        except WIRE_ERRORS:
            return ()
        if not m.is_whole and m.book.update_id is None:
            return ()
        previous = None if m.is_whole else m.book.past_update_id
        return (BookIds(m.market, None, m.book.update_id, previous, m.is_whole),)


DECODER: Final = Whitebit()
