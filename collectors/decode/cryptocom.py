"""Crypto.com Exchange v1, spot and derivatives.

Wire: https://exchange-docs.crypto.com/exchange/v1/rest-ws/index.html (WebSocket subscriptions trade, ticker and book),
read 2026-11. Times are ms.

===========  ========================  ===================================================  ============================
channel      stream                    identity                                             time
===========  ========================  ===================================================  ============================
trades       trade.<instrument>        d; the first message repeats the last trades         t, of the trade
quotes       ticker.<instrument>       content; not each change of the best bid and ask     t
book_events  book.<instrument>.50      u, where pu is the u before it; the first message    tt, of the change; t, of the
             as snapshot and update,   is the whole book; without news every 5 seconds an   message, where there is none
             every 10 ms               update without levels
derivatives  ticker.<instrument>       content                                              t
===========  ========================  ===================================================  ============================

Mark price, index and funding have subscriptions of their own, which ccxt does not offer. ``oi`` of spot is 0 and no
open interest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, ClassVar, Final, Literal

from msgspec import Meta, Struct
from msgspec.json import Decoder as Json

from collectors.decode.contract import BookIds, Control, DecodeError, Decoder, Identity, Proof, Stream
from collectors.decode.wire import WIRE_ERRORS
from collectors.events import BookEvent, Channel, Derivative, Event, Level, Quote, Trade

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_CHANNEL: Final = b'"channel":"'
_REFUSED: Final = re.compile(r"\b(?:trade|ticker|book)\.([\w-]+)", re.ASCII)


class _Level(Struct, array_like=True, gc=False):
    price: str
    amount: str  # the number of orders follows


class _Trade(Struct, gc=False):
    d: str
    t: int
    p: str
    q: str
    s: Literal["BUY", "SELL"]  # of the taker
    i: str


class _Ticker(Struct, gc=False):
    i: str
    t: int
    b: str | None = None
    bs: str | None = None
    k: str | None = None
    ks: str | None = None
    oi: str | None = None


class _Sides(Struct, gc=False):
    bids: list[_Level]
    asks: list[_Level]


class _Whole(Struct, gc=False):
    bids: list[_Level]
    asks: list[_Level]
    u: _Id
    t: int
    tt: int | None = None
    cs: int | None = None


class _Update(Struct, gc=False):
    update: _Sides
    u: _Id
    pu: _Id
    t: int
    tt: int | None = None
    cs: int | None = None


class _Ids(Struct, gc=False):
    u: _Id
    pu: _Id | None = None


class _Trades(Struct, gc=False):
    data: list[_Trade]


class _TradesFrame(Struct, gc=False):
    result: _Trades


class _Tickers(Struct, gc=False):
    data: list[_Ticker]


class _TickersFrame(Struct, gc=False):
    result: _Tickers


class _Wholes(Struct, gc=False):
    instrument_name: str
    data: list[_Whole]


class _WholesFrame(Struct, gc=False):
    result: _Wholes


class _Updates(Struct, gc=False):
    instrument_name: str
    data: list[_Update]


class _UpdatesFrame(Struct, gc=False):
    result: _Updates


class _IdsResult(Struct, gc=False):
    instrument_name: str
    channel: str
    data: list[_Ids]


class _IdsFrame(Struct, gc=False):
    result: _IdsResult


class _Result(Struct, gc=False):
    channel: str = ""


class _Probe(Struct, gc=False):
    """What tells one kind of frame from another."""

    method: str = ""
    code: int = 0
    message: str = ""
    result: _Result | None = None


_trades = Json(_TradesFrame).decode
_tickers = Json(_TickersFrame).decode
_wholes = Json(_WholesFrame, strict=False).decode  # u comes as text or as a number
_updates = Json(_UpdatesFrame, strict=False).decode
_ids = Json(_IdsFrame, strict=False).decode
_probe = Json(_Probe).decode


def _levels(side: list[_Level]) -> list[Level]:
    return [(level.price, level.amount) for level in side]


def _checksum(cs: int | None) -> str | None:
    return None if cs is None else str(cs)


def _of_trades(payload: bytes) -> list[Event]:
    return [Trade(m.i, m.t * 1_000_000, m.d, m.s == "BUY", m.p, m.q) for m in _trades(payload).result.data]


def _of_tickers(payload: bytes) -> list[Event]:
    events: list[Event] = []
    for m in _tickers(payload).result.data:
        time = m.t * 1_000_000
        bid = (m.b, m.bs) if m.b and m.bs else (None, None)
        ask = (m.k, m.ks) if m.k and m.ks else (None, None)
        events.append(Quote(m.i, time, None, *bid, *ask))
        if m.oi and m.oi.strip("0."):
            events.append(Derivative(native_id=m.i, time=time, open_interest=m.oi))
    return events


def _of_wholes(payload: bytes) -> list[Event]:
    result = _wholes(payload).result
    return [
        BookEvent(
            result.instrument_name,
            (m.t if m.tt is None else m.tt) * 1_000_000,
            "snapshot",
            None,
            m.u,
            None,
            _levels(m.bids),
            _levels(m.asks),
            _checksum(m.cs),
        )
        for m in result.data
    ]


def _of_updates(payload: bytes) -> list[Event]:
    result = _updates(payload).result
    return [
        BookEvent(
            result.instrument_name,
            (m.t if m.tt is None else m.tt) * 1_000_000,
            "update",
            None,
            m.u,
            m.pu,
            _levels(m.update.bids),
            _levels(m.update.asks),
            _checksum(m.cs),
        )
        for m in result.data
    ]


_HANDLERS: Final[dict[bytes, Callable[[bytes], list[Event]]]] = {
    b"trade": _of_trades,
    b"ticker": _of_tickers,
    b"book": _of_wholes,
    b"book.update": _of_updates,
}


def _channel_of(payload: bytes) -> bytes:
    """Of a frame of data as the exchange lays it out; else nothing."""
    at = payload.find(_CHANNEL, 60, 260)
    return payload[at + 11 : payload.find(b'"', at + 11, at + 40)] if at > 0 else b""


class Cryptocom(Decoder):
    """The decoder of Crypto.com Exchange."""

    exchange: ClassVar = "cryptocom"
    version: ClassVar = "cryptocom-1"
    documentation: ClassVar = "https://exchange-docs.crypto.com/exchange/v1/rest-ws/index.html#websocket-subscriptions"
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="trade.<instrument>", identity=Identity.ID),
        "quotes": Stream(name="ticker.<instrument>", identity=Identity.TUPLE),
        "book_events": Stream(
            name="book.<instrument>.50", identity=Identity.CHAIN, proof=Proof.PREVIOUS, snapshot="socket", depth=50
        ),
        "derivatives": Stream(name="ticker.<instrument>", identity=Identity.TUPLE),
    }

    def _usual(self, payload: bytes) -> Sequence[Event] | None:
        known = _HANDLERS.get(_channel_of(payload))
        return None if known is None else known(payload)

    def _events(self, payload: bytes) -> Sequence[Event]:
        if self._control(payload) is not None:
            return ()
        probe = _probe(payload)
        channel = probe.result.channel if probe.result else ""
        known = _HANDLERS.get(channel.encode())
        if known is None:
            raise DecodeError(f"unknown method {probe.method!r} or channel {channel!r}: {payload[:80]!r}")
        return known(payload)

    def _control(self, payload: bytes) -> Control | None:
        """``{"id":1,"method":"public/heartbeat","code":0}``, ``{"id":1,"code":10004,"method":"subscribe",...}``"""
        if _channel_of(payload) in _HANDLERS:
            return None
        probe = _probe(payload)
        if probe.code:
            named = tuple(dict.fromkeys(_REFUSED.findall(probe.message)))
            return Control("refused", named, f"{probe.code} {probe.message}".strip())
        if probe.method == "public/heartbeat":
            return Control("other")
        if probe.method == "unsubscribe":
            return Control("unsubscribed")
        return Control("subscribed") if probe.method == "subscribe" and probe.result is None else None

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """``u`` and ``pu``, levels passed over."""
        try:
            channel = _channel_of(payload)
            if channel and not channel.startswith(b"book"):
                return ()
            result = _ids(payload).result
        except WIRE_ERRORS:
            return ()
        if result.channel not in ("book", "book.update"):
            return ()
        is_whole = result.channel == "book"
        return [BookIds(result.instrument_name, None, m.u, None if is_whole else m.pu, is_whole) for m in result.data]


DECODER: Final = Cryptocom()
