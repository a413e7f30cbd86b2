"""Kraken spot, WebSocket API v2.

Wire: https://docs.kraken.com/api/docs/websocket-v2 (trade, ticker, book) and
https://docs.kraken.com/api/docs/guides/spot-ws-book-v2 (checksum), read 2026-11. Prices and amounts are JSON numbers.

===========  ==========================  ============================  ====================================
channel      stream                      identity                      time
===========  ==========================  ============================  ====================================
trades       trade                       trade_id, a sequence a book   timestamp (µs)
quotes       ticker, event_trigger bbo   the connection                timestamp (µs); none before 2025
book_events  book, depth 1000            the connection; checksum      timestamp (µs); none in old snapshots
===========  ==========================  ============================  ====================================

A checksum is of the best ten levels a side: a message that is missing shows when one of its levels comes among them.
A subscription to trades opens with the last 50, which were sent before: their ids tell. A level that leaves the
subscribed depth is not deleted by a message: whoever keeps the book cuts it to the depth after each update.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal
from zlib import crc32

from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.json import Decoder as Json

from collectors.decode.contract import BookIds, Control, DecodeError, Decoder, Identity, Proof, Stream
from collectors.decode.wire import WIRE_ERRORS, PriceQty, ns_of_utc, text_of, texts_of
from collectors.events import BookEvent, Channel, Event, Level, Quote, Trade

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Type = Literal["snapshot", "update"]
_DATA: Final = (b'{"channel":"book"', b'{"channel":"trade"', b'{"channel":"ticker"')
_NULL: Final = b"null"
_REPLIES: Final[dict[str, Literal["subscribed", "unsubscribed", "other"]]] = {
    "subscribe": "subscribed",
    "unsubscribe": "unsubscribed",
}
_DEPTH: Final = 1000
_CHECKED: Final = 10
"""Levels a side that a checksum is of: what is wrong behind them shows when it comes among them."""


class _Trade(Struct, gc=False):
    symbol: str
    side: Literal["buy", "sell"]  # the taker's
    price: Raw
    qty: Raw
    trade_id: _Id
    timestamp: str


class _Ticker(Struct, gc=False):
    symbol: str
    bid: Raw
    bid_qty: Raw
    ask: Raw
    ask_qty: Raw
    timestamp: str | None = None


class _Book(Struct, gc=False):
    symbol: str
    bids: list[PriceQty]
    asks: list[PriceQty]
    checksum: _Id
    timestamp: str | None = None


class _BookHead(Struct, gc=False):
    symbol: str


class _Trades(Struct, tag_field="channel", tag="trade", gc=False):
    type: _Type
    data: list[_Trade]


class _Tickers(Struct, tag_field="channel", tag="ticker", gc=False):
    type: _Type
    data: list[_Ticker]


class _Books(Struct, tag_field="channel", tag="book", gc=False):
    type: _Type
    data: list[_Book]


class _BookHeads(Struct, tag_field="channel", tag="book", gc=False):
    type: _Type
    data: list[_BookHead]


class _Heartbeat(Struct, tag_field="channel", tag="heartbeat", gc=False):
    pass


class _Status(Struct, tag_field="channel", tag="status", gc=False):
    pass


class _Result(Struct, gc=False):
    symbol: str | None = None


class _Probe(Struct, gc=False):
    """What tells a reply from data."""

    channel: str | UnsetType = UNSET
    method: str | UnsetType = UNSET
    success: bool | None = None
    error: Any = None
    symbol: str | None = None
    result: _Result | None = None


_frame = Json(_Trades | _Tickers | _Books | _Heartbeat | _Status).decode
_heads = Json(_BookHeads).decode
_probe = Json(_Probe).decode


def _time(text: str | None) -> int | None:
    return None if text is None else ns_of_utc(text)


def _side(price: Raw, qty: Raw) -> tuple[str, str] | tuple[None, None]:
    """An empty side is null."""
    return (None, None) if bytes(price) == _NULL else (text_of(price), text_of(qty))


def book_checksum(bids: Sequence[Level], asks: Sequence[Level]) -> int:
    """CRC32 of the ten best levels a side, each best first, numbers as sent: digits without point and leading zeros.

    Levels with exponents have no documented form.
    """
    digits = "".join(
        number.replace(".", "").lstrip("0") for side in (asks, bids) for pair in side[:_CHECKED] for number in pair
    )
    return crc32(digits.encode())


class Kraken(Decoder):
    """The decoder of Kraken spot."""

    exchange: ClassVar = "kraken"
    version: ClassVar = "kraken-1"
    documentation: ClassVar = "https://docs.kraken.com/api/docs/websocket-v2/book"
    checksum: ClassVar = (book_checksum, _CHECKED)
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="trade", identity=Identity.ID, proof=Proof.CONSECUTIVE),
        "quotes": Stream(name="ticker (bbo)", identity=Identity.EPOCH),
        "book_events": Stream(
            name="book", identity=Identity.EPOCH, proof=Proof.CHECKSUM, snapshot="socket", depth=_DEPTH
        ),
    }

    def _events(self, payload: bytes) -> Sequence[Event]:
        if not payload.startswith(b'{"channel":'):
            probe = _probe(payload)
            if probe.channel is UNSET:
                if probe.method is UNSET and probe.error is None:
                    raise DecodeError(f"neither channel nor reply: {payload[:80]!r}")
                return ()
        frame = _frame(payload)
        if isinstance(frame, _Books):
            kind = frame.type
            return [
                BookEvent(
                    m.symbol,
                    _time(m.timestamp),
                    kind,
                    None,
                    None,
                    None,
                    texts_of(m.bids),
                    texts_of(m.asks),
                    str(m.checksum),
                )
                for m in frame.data
            ]
        if isinstance(frame, _Trades):
            return [
                Trade(
                    m.symbol,
                    ns_of_utc(m.timestamp),
                    str(m.trade_id),
                    m.side == "buy",
                    text_of(m.price),
                    text_of(m.qty),
                )
                for m in frame.data
            ]
        if isinstance(frame, _Tickers):
            return [
                Quote(m.symbol, _time(m.timestamp), None, *_side(m.bid, m.bid_qty), *_side(m.ask, m.ask_qty))
                for m in frame.data
            ]
        return ()

    def _control(self, payload: bytes) -> Control | None:
        if payload.startswith(_DATA):
            return None
        probe = _probe(payload)
        if probe.channel is not UNSET:
            return Control("other") if probe.channel in ("heartbeat", "status") else None
        if probe.method is UNSET and probe.error is None:
            return None
        symbol = probe.symbol or (probe.result.symbol if probe.result else None)
        symbols = () if symbol is None else (symbol,)
        if probe.error is not None or probe.success is False:
            return Control("refused", symbols, str(probe.error))
        kind: Literal["subscribed", "unsubscribed", "other"] = _REPLIES.get(str(probe.method), "other")
        return Control(kind, () if kind == "other" else symbols)

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """Whose book; this exchange numbers nothing."""
        if payload.startswith(_DATA[1:]):
            return ()
        if not payload.startswith(_DATA[0]):
            return super().book_ids(payload)
        try:
            frame = _heads(payload)
        except WIRE_ERRORS:
            return ()
        return [BookIds(m.symbol, None, None, None, frame.type == "snapshot") for m in frame.data]


DECODER: Final = Kraken()
