"""Gate, spot and futures.

Wire: https://www.gate.com/docs/developers/apiv4/ws/en/ (spot.trades, spot.book_ticker, spot.obu,
spot.order_book_update) and https://www.gate.com/docs/developers/futures/ws/en/ (trades, book_ticker,
order_book_update, tickers), read 2026-11.

===========  =====================================  ==============================================  ==================
channel      stream                                 identity                                        time
===========  =====================================  ==============================================  ==================
trades       spot.trades, futures.trades            id                                              create_time_ms
quotes       spot.book_ticker, futures.book_ticker  u                                               t (ms)
book_events  spot.obu                               U to u, consecutive; full is a snapshot         t (ms)
book_events  futures.order_book_update              U to u, consecutive                             t (ms)
derivatives  futures.tickers                        content                                         time_ms
===========  =====================================  ==============================================  ==================

Spot and futures write the same text for different instruments, ``BTC_USDT``: that of futures becomes
``futures.BTC_USDT`` here. A trade of futures has a negative size where the taker sold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.json import Decoder as Json

from collectors.decode.contract import BookIds, Control, DecodeError, Decoder, Identity, Proof, Stream
from collectors.decode.wire import WIRE_ERRORS, text_of
from collectors.events import BookEvent, Channel, Derivative, Event, Level, Quote, Trade

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class _Trade(Struct, gc=False):
    id: _Id
    create_time_ms: str
    side: Literal["buy", "sell"]
    currency_pair: str
    amount: str
    price: str


class _FuturesTrade(Struct, gc=False):
    id: _Id
    create_time_ms: Raw
    contract: str
    size: Raw
    price: str


class _BookTicker(Struct, gc=False):
    t: _Id
    u: _Id
    s: str
    b: str
    B: Raw
    a: str
    A: Raw


class _Obu(Struct, gc=False):
    t: _Id
    u: _Id
    s: str  # ob.BTC_USDT.50
    U: _Id | None = None
    full: bool = False
    b: list[Level] = []
    a: list[Level] = []


class _Update(Struct, gc=False):
    t: _Id
    s: str
    U: _Id
    u: _Id
    b: list[Level]
    a: list[Level]
    full: bool = False


class _Size(Struct, gc=False):
    p: str
    s: Raw


class _FuturesUpdate(Struct, gc=False):
    t: _Id
    s: str
    U: _Id
    u: _Id
    b: list[_Size]
    a: list[_Size]
    full: bool = False


class _Ids(Struct, gc=False):
    s: str
    u: _Id
    U: _Id | None = None
    full: bool = False


class _Ticker(Struct, gc=False):
    contract: str
    mark_price: str
    index_price: str
    funding_rate: str
    total_size: str | None = None


class _TradesFrame(Struct, gc=False):
    result: _Trade | list[_Trade]


class _FuturesTradesFrame(Struct, gc=False):
    result: list[_FuturesTrade]


class _BookTickerFrame(Struct, gc=False):
    result: _BookTicker


class _ObuFrame(Struct, gc=False):
    result: _Obu


class _UpdateFrame(Struct, gc=False):
    result: _Update


class _FuturesUpdateFrame(Struct, gc=False):
    result: _FuturesUpdate


class _IdsFrame(Struct, gc=False):
    result: _Ids


class _TickersFrame(Struct, gc=False):
    result: list[_Ticker]
    time_ms: _Id | None = None


class _Probe(Struct, gc=False):
    """What tells one kind of frame from another."""

    channel: str
    event: str | UnsetType = UNSET
    error: Any = None
    payload: Any = None
    result: Raw | UnsetType = UNSET


_trades = Json(_TradesFrame).decode
_futures_trades = Json(_FuturesTradesFrame).decode
_book_ticker = Json(_BookTickerFrame).decode
_obu = Json(_ObuFrame).decode
_update = Json(_UpdateFrame).decode
_futures_update = Json(_FuturesUpdateFrame).decode
_ids = Json(_IdsFrame).decode
_tickers = Json(_TickersFrame).decode
_probe = Json(_Probe).decode


def _ns(ms: str) -> int:
    """``1619093543708.2642`` ms as ns."""
    whole, _, fraction = ms.partition(".")
    return int(whole) * 1_000_000 + int(fraction[:6].ljust(6, "0"))


def _from_trades(payload: bytes) -> list[Event]:
    found = _trades(payload).result
    return [
        Trade(m.currency_pair, _ns(m.create_time_ms), str(m.id), m.side == "buy", m.price, m.amount)
        for m in (found if isinstance(found, list) else (found,))
    ]


def _from_futures_trades(payload: bytes) -> list[Event]:
    out: list[Event] = []
    for m in _futures_trades(payload).result:
        size = text_of(m.size)
        is_buy, time = not size.startswith("-"), _ns(text_of(m.create_time_ms).strip('"'))
        out.append(Trade(f"futures.{m.contract}", time, str(m.id), is_buy, m.price, size.removeprefix("-")))
    return out


def _quote(prefix: str, payload: bytes) -> list[Event]:
    m = _book_ticker(payload).result
    bid = (m.b, text_of(m.B)) if m.b else (None, None)
    ask = (m.a, text_of(m.A)) if m.a else (None, None)
    return [Quote(prefix + m.s, m.t * 1_000_000, m.u, *bid, *ask)]


def _symbol(stream: str) -> str:
    """``BTC_USDT`` of ``ob.BTC_USDT.50``."""
    kind, _, rest = stream.partition(".")
    symbol, _, depth = rest.rpartition(".")
    if kind != "ob" or not symbol or not depth.isdecimal():
        raise DecodeError(f"stream {stream[:80]!r}; expected one such as ob.BTC_USDT.50")
    return symbol


def _from_obu(payload: bytes) -> list[Event]:
    m = _obu(payload).result
    first = m.u if m.full else m.U
    if first is None:
        raise DecodeError(f"neither full nor U: {payload[:80]!r}")
    kind: Literal["snapshot", "update"] = "snapshot" if m.full else "update"
    return [BookEvent(_symbol(m.s), m.t * 1_000_000, kind, first, m.u, None, m.b, m.a)]


def _from_update(payload: bytes) -> list[Event]:
    m = _update(payload).result
    if m.full:
        return [BookEvent(m.s, m.t * 1_000_000, "snapshot", m.u, m.u, None, m.b, m.a)]
    return [BookEvent(m.s, m.t * 1_000_000, "update", m.U, m.u, None, m.b, m.a)]


def _from_futures_update(payload: bytes) -> list[Event]:
    m = _futures_update(payload).result
    bids, asks = ([(level.p, text_of(level.s)) for level in side] for side in (m.b, m.a))
    name, time = f"futures.{m.s}", m.t * 1_000_000
    if m.full:
        return [BookEvent(name, time, "snapshot", m.u, m.u, None, bids, asks)]
    return [BookEvent(name, time, "update", m.U, m.u, None, bids, asks)]


def _from_tickers(payload: bytes) -> list[Event]:
    frame = _tickers(payload)
    time = None if frame.time_ms is None else frame.time_ms * 1_000_000
    return [
        Derivative(
            native_id=f"futures.{m.contract}",
            time=time,
            funding_rate=m.funding_rate,
            open_interest=m.total_size,
            mark_price=m.mark_price,
            index_price=m.index_price,
        )
        for m in frame.result
    ]


_HANDLERS: Final[dict[str, Callable[[bytes], list[Event]]]] = {
    "spot.trades": _from_trades,
    "spot.book_ticker": lambda payload: _quote("", payload),
    "spot.obu": _from_obu,
    "spot.order_book_update": _from_update,
    "futures.trades": _from_futures_trades,
    "futures.book_ticker": lambda payload: _quote("futures.", payload),
    "futures.order_book_update": _from_futures_update,
    "futures.tickers": _from_tickers,
}
_FAST: Final = {channel.encode(): handler for channel, handler in _HANDLERS.items()}
_BOOKS: Final = {b"spot.obu", b"spot.order_book_update", b"futures.order_book_update"}


def _channel(payload: bytes) -> bytes:
    """The channel of a frame of data where the frame says it near its beginning, else nothing."""
    at = payload.find(b'"channel":"', 0, 90) + 11
    if at < 11 or b'"event":"update"' not in payload:
        return b""
    return payload[at : payload.find(b'"', at)]


def _named(probe: _Probe) -> tuple[str, ...]:
    """The instruments of a subscription's acknowledgement where it repeats what was asked for."""
    if not isinstance(probe.payload, list):
        return ()
    names = [one for one in probe.payload if isinstance(one, str)]
    if probe.channel == "spot.obu":
        return tuple(_symbol(one) for one in names)
    if probe.channel.endswith(".order_book_update"):
        names = names[:1]
    return tuple(f"futures.{one}" for one in names) if probe.channel.startswith("futures.") else tuple(names)


class Gate(Decoder):
    """The decoder of Gate."""

    exchange: ClassVar[str] = "gate"
    version: ClassVar[str] = "gate-1"
    documentation: ClassVar[str] = "https://www.gate.com/docs/developers/apiv4/ws/en/"
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="spot.trades, futures.trades", identity=Identity.ID),
        "quotes": Stream(name="spot.book_ticker, futures.book_ticker", identity=Identity.ID),
        "book_events": Stream(
            name="spot.obu, futures.order_book_update",
            identity=Identity.CHAIN,
            proof=Proof.CONSECUTIVE,
            snapshot="socket",
            depth=50,
        ),
        "derivatives": Stream(name="futures.tickers", identity=Identity.TUPLE),
    }

    def _events(self, payload: bytes) -> Sequence[Event]:
        known = _FAST.get(_channel(payload))
        if known is not None:
            return known(payload)
        probe = _probe(payload)
        if probe.event == "update" and probe.channel in _HANDLERS:
            return _HANDLERS[probe.channel](payload)
        if self._control(payload) is None:
            raise DecodeError(f"unknown channel {probe.channel[:80]!r}; expected one of: {', '.join(_HANDLERS)}")
        return ()

    def _control(self, payload: bytes) -> Control | None:
        if _channel(payload) in _FAST:
            return None
        probe = _probe(payload)
        if probe.event == "update":
            return None
        if probe.error is not None:
            return Control("refused", _named(probe), payload[:400].decode(errors="replace"))
        if probe.event == "subscribe":
            return Control("subscribed", _named(probe))
        if probe.event == "unsubscribe":
            return Control("unsubscribed", _named(probe))
        return Control("other") if probe.channel in ("spot.pong", "futures.pong") else None

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """``U`` and ``u``; of a full book ``u`` alone."""
        channel = _channel(payload)
        if channel in _FAST and channel not in _BOOKS:
            return ()
        try:
            probe_channel = channel.decode() or _probe(payload).channel
            if probe_channel.encode() not in _BOOKS or b'"update"' not in payload:
                return ()
            m = _ids(payload).result
            name = _symbol(m.s) if probe_channel == "spot.obu" else m.s
            if probe_channel.startswith("futures."):
                name = f"futures.{name}"
        except WIRE_ERRORS:
            return ()
        return (BookIds(name, m.u if m.full else m.U, m.u, None, m.full),)


DECODER: Final = Gate()
