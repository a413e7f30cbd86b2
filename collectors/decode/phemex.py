"""Phemex, perpetual contracts settled in USDT (``trade_p``, ``orderbook_p``, ``perp_market24h_pack_p``).

Wire: https://phemex-docs.github.io/#hedged-contract-websocket-api, read 2026-11. Times are ns.

===========  =======================  ====================================================  =========
channel      stream                   identity                                              time
===========  =======================  ====================================================  =========
trades       trade_p                  content: no id on the wire                            of each
book_events  orderbook_p              none: sequence rises, by how much is not documented   timestamp
derivatives  perp_market24h_pack_p    content; all contracts in one message                 timestamp
===========  =======================  ====================================================  =========

A subscription to trades begins with those of before it, and so does each after a lost connection: they yield nothing,
since trades without ids would count again each time. Spot and contracts settled in coins send prices and amounts as
integers whose scale only the list of markets gives (``priceScale``, ``valueScale``, ``ratioScale``), so they are
refused here: a decoder knows no markets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from msgspec import UNSET, Meta, Raw, Struct
from msgspec.json import Decoder as Json

from collectors.decode.contract import BookIds, Control, DecodeError, Decoder, Identity, Stream
from collectors.decode.wire import WIRE_ERRORS, text_of
from collectors.events import BookEvent, Channel, Derivative, Event, Level, Trade

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Kind = Literal["snapshot", "incremental"]
_TRADES, _BOOK, _PACK = b'"trades_p":', b'"orderbook_p":', b'"perp_market24h_pack_p.update"'
_OF_BEFORE: Final = b'"type":"snapshot"'


class _Trades(Struct, gc=False):
    symbol: str
    type: _Kind
    trades_p: list[tuple[_Id, Literal["Buy", "Sell"], str, str]]


class _Levels(Struct, gc=False):
    bids: list[Level]
    asks: list[Level]


class _Book(Struct, gc=False):
    symbol: str
    type: _Kind
    sequence: _Id
    timestamp: _Id
    orderbook_p: _Levels


class _Ids(Struct, gc=False):
    symbol: str
    type: _Kind
    sequence: _Id


class _Pack(Struct, gc=False):
    fields: list[str]
    data: list[list[Raw]]
    timestamp: _Id


class _Reply(Struct, gc=False):
    """What is no data."""

    id: Any = UNSET
    error: Any = UNSET
    result: Any = UNSET


# Not strict: the exchange writes some integers as strings.
_trades = Json(_Trades, strict=False).decode
_book = Json(_Book, strict=False).decode
_ids = Json(_Ids, strict=False).decode
_pack = Json(_Pack, strict=False).decode
_reply = Json(_Reply).decode
_text = Json(str).decode


def _from_trades(payload: bytes) -> list[Event]:
    m = _trades(payload)
    if m.type == "snapshot":
        return []
    symbol = m.symbol
    return [Trade(symbol, time, None, side == "Buy", price, amount) for time, side, price, amount in m.trades_p]


def _from_book(payload: bytes) -> list[Event]:
    m = _book(payload)
    kind: Literal["snapshot", "update"] = "snapshot" if m.type == "snapshot" else "update"
    book = m.orderbook_p
    return [BookEvent(m.symbol, m.timestamp, kind, None, m.sequence, None, book.bids, book.asks)]


def _from_pack(payload: bytes) -> list[Event]:
    """``{"data":[["BTCUSDT","1.5",..]],"fields":["symbol","openRp",..],"method":..,"timestamp":"1"}``"""
    m = _pack(payload)
    names = ("symbol", "fundingRateRr", "openInterestRv", "markRp", "indexRp")
    symbol, rate, interest, mark, index = (m.fields.index(name) for name in names)
    out: list[Event] = []
    for row in m.data:
        if len(row) != len(m.fields):
            raise DecodeError(f"{len(row)} values of {len(m.fields)} fields: {payload[:80]!r}")
        out.append(
            Derivative(
                native_id=_text(row[symbol]),
                time=m.timestamp,
                funding_rate=text_of(row[rate]),
                open_interest=text_of(row[interest]),
                mark_price=text_of(row[mark]),
                index_price=text_of(row[index]),
            )
        )
    return out


class Phemex(Decoder):
    """The decoder of Phemex."""

    exchange: ClassVar[str] = "phemex"
    version: ClassVar[str] = "phemex-1"
    documentation: ClassVar[str] = "https://phemex-docs.github.io/#hedged-contract-websocket-api"
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="trade_p", identity=Identity.TUPLE),
        "book_events": Stream(name="orderbook_p", identity=Identity.EPOCH, snapshot="socket", depth=30),
        "derivatives": Stream(name="perp_market24h_pack_p", identity=Identity.TUPLE),
    }

    def _events(self, payload: bytes) -> Sequence[Event]:
        if _BOOK in payload:
            return _from_book(payload)
        if _TRADES in payload:
            return _from_trades(payload)
        if _PACK in payload:
            return _from_pack(payload)
        if self._control(payload) is None:
            raise DecodeError(f"neither trades_p, orderbook_p, perp_market24h_pack_p nor a reply: {payload[:120]!r}")
        return ()

    def _control(self, payload: bytes) -> Control | None:
        if _TRADES in payload:
            is_of_before = _OF_BEFORE in payload and _trades(payload).type == "snapshot"
            return Control("other", detail="trades of before the subscription") if is_of_before else None
        if _BOOK in payload or _PACK in payload:
            return None
        reply = _reply(payload)
        if reply.error is UNSET or reply.id is UNSET:
            return None
        if reply.error is not None:
            return Control("refused", detail=payload[:400].decode(errors="replace"))
        return Control("other") if reply.result == "pong" else Control("subscribed")

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """``sequence``."""
        if _BOOK not in payload:
            return ()
        try:
            m = _ids(payload)
        except WIRE_ERRORS:
            return ()
        return (BookIds(m.symbol, None, m.sequence, None, m.type == "snapshot"),)


DECODER: Final = Phemex()
