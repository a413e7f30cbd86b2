"""MEXC, spot (Protocol Buffers) and contracts (JSON numbers).

Wire: https://www.mexc.com/api-docs/spot-v3/websocket-market-streams (aggre.deals, aggre.bookTicker, aggre.depth, and
the exchange's .proto files) and https://www.mexc.com/api-docs/futures/websocket-api (deal, depth, ticker, funding
rate), read 2026-11.

===========  ========================================  ===============================================  ==============
channel      stream                                    identity                                         time (ms)
===========  ========================================  ===============================================  ==============
trades       spot@public.aggre.deals, push.deal        content: no id on the wire                       time, t
quotes       spot@public.aggre.bookTicker              content                                          sendTime
book_events  spot@public.aggre.depth                   fromVersion to toVersion, consecutive            sendTime
book_events  push.depth                                begin to end, consecutive                        ts
derivatives  push.ticker, push.funding.rate            content                                          timestamp, ts
===========  ========================================  ===============================================  ==============

Levels of contracts are price, amount and number of orders. Whole books come by REST.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, ClassVar, Final, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.json import Decoder as Json

from collectors.decode.contract import BookIds, Control, DecodeError, Decoder, Identity, Proof, Stream
from collectors.decode.protobuf import fields, integer, message, string, varint
from collectors.decode.wire import WIRE_ERRORS, levels, text_of
from collectors.events import BookEvent, Channel, Derivative, Event, Level, Quote, Trade

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_BIGINT: Final = 2**63
_SNAPSHOT_LIMIT: Final = 5000
_CHANNEL, _SYMBOL, _CREATED, _SENT, _DEPTHS, _DEALS, _TICKER = 1, 3, 5, 6, 313, 314, 315
"""Field numbers of PushDataV3ApiWrapper."""


class _Deal(Struct, gc=False):
    p: Raw
    v: Raw
    T: Literal[1, 2]  # the taker bought, sold
    t: _Id


class _Depth(Struct, gc=False):
    bids: Raw
    asks: Raw
    begin: _Id
    end: _Id


class _Ticker(Struct, gc=False):
    timestamp: _Id
    fairPrice: Raw  # noqa: N815 - the wire's own names
    indexPrice: Raw  # noqa: N815
    holdVol: Raw  # noqa: N815
    fundingRate: Raw  # noqa: N815


class _Funding(Struct, gc=False):
    rate: Raw
    nextSettleTime: _Id | None = None  # noqa: N815


class _DealsFrame(Struct, gc=False):
    symbol: str
    data: list[_Deal]


class _DepthFrame(Struct, gc=False):
    symbol: str
    data: _Depth
    ts: _Id | None = None


class _TickerFrame(Struct, gc=False):
    symbol: str
    data: _Ticker


class _FundingFrame(Struct, gc=False):
    symbol: str
    data: _Funding
    ts: _Id


class _SpotBook(Struct, gc=False):
    lastUpdateId: _Id  # noqa: N815
    bids: list[Level]
    asks: list[Level]


class _ContractBook(Struct, gc=False):
    version: _Id
    bids: Raw
    asks: Raw
    timestamp: _Id | None = None


class _ContractReply(Struct, gc=False):
    data: _ContractBook


class _Probe(Struct, gc=False):
    """What tells one kind of frame from another."""

    channel: str | UnsetType = UNSET
    msg: str | UnsetType = UNSET
    code: int | UnsetType = UNSET
    data: Raw | UnsetType = UNSET


_deals = Json(_DealsFrame).decode
_depth = Json(_DepthFrame).decode
_ticker = Json(_TickerFrame).decode
_funding = Json(_FundingFrame).decode
_spot_book = Json(_SpotBook).decode
_contract_book = Json(_ContractReply).decode
_probe = Json(_Probe).decode


def _ns(ms: int | None) -> int | None:
    return None if ms is None else ms * 1_000_000


def _id(text: str) -> int:
    value = int(text)
    if not 0 <= value < _BIGINT:
        raise DecodeError(f"version {text[:80]!r} is no bigint")
    return value


def _level(item: bytes) -> Level:
    """Price and quantity, fields 1 and 2; the exchange writes both in this order, and shorter than 128 bytes."""
    if item[:1] == b"\x0a":
        to = 2 + item[1]
        if item[to : to + 1] == b"\x12" and to + 2 + item[to + 1] == len(item) < 0x80:
            return item[2:to].decode(), item[to + 2 :].decode()
    of = dict(fields(item))
    return string(of[1]), string(of[2])


def _spot_trade(symbol: str, item: bytes) -> Trade:
    """Price, quantity, type and time, fields 1 to 4, which the exchange writes in this order."""
    to = 2 + item[1] if 10 < len(item) < 0x80 else 0
    until = to + 2 + item[to + 1] if 0 < to < len(item) - 1 else len(item)
    if until + 3 < len(item) and item[0] == 0x0A and item[to] == 0x12 and item[until::2][:2] == b"\x18\x20":
        time, end = varint(item, until + 3)
        if end == len(item) and item[until + 1] in (1, 2):
            price, amount = item[2:to].decode(), item[to + 2 : until].decode()
            return Trade(symbol, integer(time) * 1_000_000, None, item[until + 1] == 1, price, amount)
    of = dict(fields(item))
    side = of[3]
    if side not in (1, 2):
        raise DecodeError(f"trade type {side!r}; expected 1 or 2")
    return Trade(symbol, integer(of[4]) * 1_000_000, None, side == 1, string(of[1]), string(of[2]))


def _spot_quote(symbol: str, time: int | None, body: bytes) -> Quote:
    of = {number: string(value) or None for number, value in fields(body) if number <= 4}
    bid = (of[1], of.get(2)) if of.get(1) else (None, None)
    ask = (of[3], of.get(4)) if of.get(3) else (None, None)
    return Quote(symbol, time, None, *bid, *ask)


def _spot_update(symbol: str, time: int | None, body: bytes) -> BookEvent:
    of = fields(body)
    versions = dict(of)
    asks = [_level(message(value)) for number, value in of if number == 1]
    bids = [_level(message(value)) for number, value in of if number == 2]
    first, last = _id(string(versions[4])), _id(string(versions[5]))
    return BookEvent(symbol, time, "update", first, last, None, bids, asks)


def _spot(payload: bytes) -> list[Event]:
    """A PushDataV3ApiWrapper."""
    of = dict(fields(payload))
    symbol = string(of[_SYMBOL])
    sent = of.get(_SENT, of.get(_CREATED))
    time = None if sent is None else integer(sent) * 1_000_000
    if _DEALS in of:
        return [_spot_trade(symbol, message(item)) for number, item in fields(message(of[_DEALS])) if number == 1]
    if _TICKER in of:
        return [_spot_quote(symbol, time, message(of[_TICKER]))]
    if _DEPTHS in of:
        return [_spot_update(symbol, time, message(of[_DEPTHS]))]
    raise DecodeError(f"unknown channel {string(of.get(_CHANNEL, b''))[:80]!r}; expected deals, bookTicker or depth")


def _from_deals(payload: bytes) -> list[Event]:
    m = _deals(payload)
    return [Trade(m.symbol, one.t * 1_000_000, None, one.T == 1, text_of(one.p), text_of(one.v)) for one in m.data]


def _from_depth(payload: bytes) -> list[Event]:
    m = _depth(payload)
    of = m.data
    bids, asks = levels(of.bids, 3), levels(of.asks, 3)
    return [BookEvent(m.symbol, _ns(m.ts), "update", of.begin, of.end, None, bids, asks)]


def _from_ticker(payload: bytes) -> list[Event]:
    m = _ticker(payload)
    of = m.data
    return [
        Derivative(
            native_id=m.symbol,
            time=of.timestamp * 1_000_000,
            funding_rate=text_of(of.fundingRate),
            open_interest=text_of(of.holdVol),
            mark_price=text_of(of.fairPrice),
            index_price=text_of(of.indexPrice),
        )
    ]


def _from_funding(payload: bytes) -> list[Event]:
    m = _funding(payload)
    due = _ns(m.data.nextSettleTime)
    return [Derivative(native_id=m.symbol, time=_ns(m.ts), funding_rate=text_of(m.data.rate), funding_time=due)]


_HANDLERS: Final[dict[str, Callable[[bytes], list[Event]]]] = {
    "push.deal": _from_deals,
    "push.depth": _from_depth,
    "push.ticker": _from_ticker,
    "push.funding.rate": _from_funding,
}


def _reply(payload: bytes, text: str, code: int) -> Control:
    """Spot's ``{"id":0,"code":0,"msg":"spot@public.aggre.deals.v3.api.pb@100ms@BTCUSDT"}``"""
    if text == "PONG":
        return Control("other")
    if code or not text.startswith("spot@"):
        return Control("refused", detail=payload[:300].decode(errors="replace"))
    return Control("subscribed", tuple(one.rpartition("@")[2] for one in text.split(",")))


class Mexc(Decoder):
    """The decoder of MEXC."""

    exchange: ClassVar[str] = "mexc"
    version: ClassVar[str] = "mexc-1"
    documentation: ClassVar[str] = "https://www.mexc.com/api-docs/spot-v3/websocket-market-streams"
    rest: ClassVar[str] = "https://api.mexc.com"
    rest_of_contracts: ClassVar[str] = "https://contract.mexc.com"
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="spot@public.aggre.deals, push.deal", identity=Identity.TUPLE),
        "quotes": Stream(name="spot@public.aggre.bookTicker", identity=Identity.TUPLE),
        "book_events": Stream(
            name="spot@public.aggre.depth, push.depth",
            identity=Identity.CHAIN,
            proof=Proof.CONSECUTIVE,
            snapshot="rest",
            depth=_SNAPSHOT_LIMIT,
        ),
        "derivatives": Stream(name="push.ticker, push.funding.rate", identity=Identity.TUPLE),
    }

    def _events(self, payload: bytes) -> Sequence[Event]:
        if payload.startswith(b"\n"):
            try:
                return _spot(payload)
            except LookupError as missing:
                raise DecodeError(f"a field is missing or cut off ({missing}): {payload[:80]!r}") from missing
        handler = _HANDLERS.get(_probe(payload).channel or "")
        if handler is not None:
            return handler(payload)
        if self._control(payload) is None:
            raise DecodeError(f"neither data nor reply: {payload[:80]!r}; expected one of: {', '.join(_HANDLERS)}")
        return ()

    def _control(self, payload: bytes) -> Control | None:
        if payload.startswith(b"\n"):
            return None
        probe = _probe(payload)
        channel = probe.channel or ""
        if probe.msg is not UNSET:
            return _reply(payload, probe.msg, probe.code or 0)
        if channel == "rs.error" or (channel.startswith("rs.") and bytes(probe.data or b"") != b'"success"'):
            return Control("refused", detail=payload[:300].decode(errors="replace"))
        if channel.startswith("rs."):
            return Control("unsubscribed" if channel.startswith("rs.unsub.") else "subscribed")
        return Control("other") if channel == "pong" else None

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """``fromVersion`` and ``toVersion`` of spot, ``begin`` and ``end`` of contracts."""
        if not payload.startswith(b"\n"):
            return super().book_ids(payload) if b'"push.depth"' in payload else ()
        try:
            of = dict(fields(payload))
            if _DEPTHS not in of or _DEALS in of or _TICKER in of:
                return ()
            versions = dict(fields(message(of[_DEPTHS])))
            return (BookIds(string(of[_SYMBOL]), _id(string(versions[4])), _id(string(versions[5])), None),)
        except (LookupError, *WIRE_ERRORS):
            return ()

    def _snapshot(self, native_id: str, reply: bytes) -> BookEvent:
        if "_" in native_id:
            m = _contract_book(reply).data
            bids, asks = levels(m.bids, 3), levels(m.asks, 3)
            return BookEvent(native_id, _ns(m.timestamp), "snapshot", m.version, m.version, None, bids, asks)
        book = _spot_book(reply)
        return BookEvent(native_id, None, "snapshot", book.lastUpdateId, book.lastUpdateId, None, book.bids, book.asks)

    def snapshot_url(self, native_id: str, rest: str | None = None) -> str:
        """5,000 levels a side of spot; of contracts (``BTC_USDT``) as many as the exchange gives, on another host."""
        if "_" in native_id:
            return f"{rest or self.rest_of_contracts}/api/v1/contract/depth/{native_id}"
        return f"{rest or self.rest}/api/v3/depth?symbol={native_id}&limit={_SNAPSHOT_LIMIT}"


DECODER: Final = Mexc()
