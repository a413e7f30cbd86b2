"""Bitstamp, spot and perpetuals.

Wire: https://www.bitstamp.net/websocket/v2/ (live_trades, diff_order_book, funding_rate) and
https://www.bitstamp.net/api/#tag/Order-book (the whole book), read 2026-11.

===========  =======================  ==============================================  ========================
channel      stream                   identity                                        time
===========  =======================  ==============================================  ========================
trades       live_trades_<pair>       id                                              microtimestamp
book_events  diff_order_book_<pair>   the connection; microtimestamp stands as id     microtimestamp
derivatives  funding_rate_<pair>      content                                         timestamp (s)
===========  =======================  ==============================================  ========================

A snapshot's microtimestamp is that of the last update in it. Nothing on the wire shows a lost update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from msgspec import Meta, Struct
from msgspec.json import Decoder as Json

from collectors.decode.contract import BookIds, Control, DecodeError, Decoder, Identity, Stream
from collectors.decode.wire import WIRE_ERRORS, ns_of_seconds
from collectors.events import BookEvent, Channel, Derivative, Event, Level, Trade

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_TRADES: Final = "live_trades_"
_BOOK: Final = "diff_order_book_"
_FUNDING: Final = "funding_rate_"
_NAME: Final = b'"channel":"'
_REPLIES: Final[dict[str, Literal["subscribed", "unsubscribed", "refused"]]] = {
    "bts:subscription_succeeded": "subscribed",
    "bts:unsubscription_succeeded": "unsubscribed",
    "bts:error": "refused",
}


class _Fill(Struct, gc=False):
    id: _Id
    type: Literal[0, 1]  # 0 where the taker bought
    price_str: str
    amount_str: str
    microtimestamp: str
    buy_order_id: _Id | None = None
    sell_order_id: _Id | None = None


class _Diff(Struct, gc=False):
    microtimestamp: str
    bids: list[Level]
    asks: list[Level]


class _DiffHead(Struct, gc=False):
    microtimestamp: str


class _Funding(Struct, gc=False):
    timestamp: str
    funding_rate: str | None = None
    next_funding_time: str | None = None
    mark_price: str | None = None
    index_price: str | None = None


class _TradeFrame(Struct, gc=False):
    channel: str
    event: str
    data: _Fill


class _DiffFrame(Struct, gc=False):
    channel: str
    event: str
    data: _Diff


class _DiffHeadFrame(Struct, gc=False):
    channel: str
    event: str
    data: _DiffHead


class _FundingFrame(Struct, gc=False):
    channel: str
    event: str
    data: _Funding


class _Probe(Struct, gc=False):
    event: str
    channel: str = ""
    data: Any = None


_trade = Json(_TradeFrame).decode
_diff = Json(_DiffFrame).decode
_diff_head = Json(_DiffHeadFrame).decode
_funding = Json(_FundingFrame).decode
_probe = Json(_Probe).decode
_book = Json(_Diff).decode


def _us(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise ValueError(f"{text[:80]!r}: expected microseconds since 1970")
    return int(text)


def _pair(channel: str, event: str, prefix: str, expected: str) -> str:
    if event != expected or not channel.startswith(prefix):
        raise DecodeError(f"event {event!r} of channel {channel!r}; expected {expected!r} of {prefix!r}")
    return channel[len(prefix) :]


def _from_trade(payload: bytes) -> tuple[Event]:
    frame = _trade(payload)
    m, pair = frame.data, _pair(frame.channel, frame.event, _TRADES, "trade")
    buyer = None if m.buy_order_id is None else str(m.buy_order_id)
    seller = None if m.sell_order_id is None else str(m.sell_order_id)
    time = _us(m.microtimestamp) * 1_000
    return (Trade(pair, time, str(m.id), m.type == 0, m.price_str, m.amount_str, buyer, seller),)


def _from_diff(payload: bytes) -> tuple[Event]:
    frame = _diff(payload)
    m, pair = frame.data, _pair(frame.channel, frame.event, _BOOK, "data")
    at = _us(m.microtimestamp)
    return (BookEvent(pair, at * 1_000, "update", at, at, None, m.bids, m.asks),)


def _from_funding(payload: bytes) -> tuple[Event]:
    frame = _funding(payload)
    m, pair = frame.data, _pair(frame.channel, frame.event, _FUNDING, "funding_rate_saved")
    return (
        Derivative(
            native_id=pair,
            time=ns_of_seconds(m.timestamp),
            funding_rate=m.funding_rate,
            funding_time=None if m.next_funding_time is None else ns_of_seconds(m.next_funding_time),
            mark_price=m.mark_price,
            index_price=m.index_price,
        ),
    )


_READERS: Final[dict[str, Callable[[bytes], tuple[Event]]]] = {
    _BOOK: _from_diff,
    _TRADES: _from_trade,
    _FUNDING: _from_funding,
}
_NAMES: Final = tuple((prefix.encode(), read) for prefix, read in _READERS.items())


class Bitstamp(Decoder):
    """The decoder of Bitstamp."""

    exchange: ClassVar = "bitstamp"
    version: ClassVar = "bitstamp-1"
    documentation: ClassVar = "https://www.bitstamp.net/websocket/v2/"
    rest: ClassVar = "https://www.bitstamp.net"
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="live_trades_<pair>", identity=Identity.ID),
        "book_events": Stream(name="diff_order_book_<pair>", identity=Identity.EPOCH, snapshot="rest"),
        "derivatives": Stream(name="funding_rate_<pair>", identity=Identity.TUPLE),
    }

    def _events(self, payload: bytes) -> Sequence[Event]:
        if payload.startswith(b'{"data":{'):  # as the exchange lays data out: the channel's name comes behind it
            at = payload.rfind(_NAME) + len(_NAME)
            for name, read in _NAMES:
                if payload.startswith(name, at):
                    return read(payload)
        probe = _probe(payload)
        if probe.event.startswith("bts:"):
            return ()
        for prefix, read in _READERS.items():
            if probe.channel.startswith(prefix):
                return read(payload)
        raise DecodeError(f"event {probe.event!r} of unknown channel {probe.channel!r}")

    def _control(self, payload: bytes) -> Control | None:
        probe = _probe(payload)
        if not probe.event.startswith("bts:"):
            return None
        kind = _REPLIES.get(probe.event)
        if kind is None:
            return Control("other", (), probe.event)
        pairs = tuple(probe.channel[len(prefix) :] for prefix in _READERS if probe.channel.startswith(prefix))
        reason = probe.data.get("message") if isinstance(probe.data, dict) else probe.data
        return Control(kind, pairs, str(reason) if kind == "refused" else "")

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """``microtimestamp`` as first and last id: it orders, it does not chain."""
        if b'"diff_order_book_' not in payload:
            return ()
        try:
            frame = _diff_head(payload)
            pair = _pair(frame.channel, frame.event, _BOOK, "data")
            at = _us(frame.data.microtimestamp)
        except WIRE_ERRORS:
            return ()
        return (BookIds(pair, at, at, None),)

    def _snapshot(self, native_id: str, reply: bytes) -> BookEvent:
        """The whole book of ``GET /api/v2/order_book``, every level there is."""
        m = _book(reply)
        at = _us(m.microtimestamp)
        return BookEvent(native_id, at * 1_000, "snapshot", at, at, None, m.bids, m.asks)

    def snapshot_url(self, native_id: str, rest: str | None = None) -> str:
        """Orders of one price grouped into a level."""
        return f"{rest or self.rest}/api/v2/order_book/{native_id}/?group=1"


DECODER: Final = Bitstamp()
