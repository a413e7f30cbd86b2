"""Hyperliquid, perpetuals and spot.

Wire: https://hyperliquid.gitbook.io/hyperliquid-docs/for-developers/api/websocket/subscriptions (trades, l2Book and
activeAssetCtx), read 2026-11. Times are ms. A perpetual is named by its coin, ``BTC``; a spot pair ``PURR/USDC`` or
``@107``.

===========  ==============  ==================================================  =====================
channel      stream          identity                                            time
===========  ==============  ==================================================  =====================
trades       trades          tid, a hash of both orders; the exchange calls it   time, of the block
                             unique together with coin and time
book_events  l2Book          none: each message is a whole book of 20 levels     time, of the block
derivatives  activeAssetCtx  none                                                none on the wire
===========  ==============  ==================================================  =====================

- The first message of ``trades`` holds recent trades: those of before the subscription, told by their time and tid.
- No quotes: the exchange's stream ``bbo`` has no call in ccxt; the best levels of ``l2Book`` stand for it.
- Of a perpetual the amounts are coins, the funding rate is that of one hour, and the index is the oracle's price.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Final, Literal

from msgspec import Raw, Struct
from msgspec.json import Decoder as Json

from collectors.decode.contract import BookIds, Control, DecodeError, Decoder, Identity, Stream
from collectors.decode.wire import WIRE_ERRORS
from collectors.events import BookEvent, Channel, Derivative, Event, Level, Trade

_START: Final = b'{"channel":"'


class _Trade(Struct, gc=False):
    coin: str
    side: Literal["A", "B"]  # of the taker: B bought
    px: str
    sz: str
    time: int
    tid: int | str


class _Trades(Struct, gc=False):
    data: list[_Trade]


class _Level(Struct, gc=False):
    px: str
    sz: str


class _Book(Struct, gc=False):
    coin: str
    time: int
    levels: tuple[list[_Level], list[_Level]]


class _BookFrame(Struct, gc=False):
    data: _Book


class _Coin(Struct, gc=False):
    coin: str


class _CoinFrame(Struct, gc=False):
    data: _Coin


class _Context(Struct, gc=False):
    funding: str
    openInterest: str  # noqa: N815 - the wire's own name, as below
    oraclePx: str  # noqa: N815
    markPx: str  # noqa: N815


class _Asset(Struct, gc=False):
    coin: str
    ctx: _Context


class _AssetFrame(Struct, gc=False):
    data: _Asset


class _Subscription(Struct, gc=False):
    coin: str = ""


class _Answer(Struct, gc=False):
    method: Literal["subscribe", "unsubscribe"]
    subscription: _Subscription


class _Probe(Struct, gc=False):
    """What tells one kind of frame from another."""

    channel: str
    data: Raw = Raw(b"null")


_trades = Json(_Trades).decode
_book = Json(_BookFrame).decode
_coin = Json(_CoinFrame).decode
_asset = Json(_AssetFrame).decode
_answer = Json(_Answer).decode
_text = Json(str).decode
_probe = Json(_Probe).decode


def _of_trades(payload: bytes) -> list[Event]:
    """``{"channel":"trades","data":[{"coin":"BTC","side":"B","px":"1.0","sz":"2.0","time":1,"tid":7}]}``"""
    return [Trade(m.coin, m.time * 1_000_000, str(m.tid), m.side == "B", m.px, m.sz) for m in _trades(payload).data]


def _levels(side: list[_Level]) -> list[Level]:
    return [(level.px, level.sz) for level in side]


def _of_book(payload: bytes) -> list[Event]:
    """``{"channel":"l2Book","data":{"coin":"BTC","time":1,"levels":[[{"px":"1.0","sz":"2.0","n":3}],[]]}}``"""
    m = _book(payload).data
    bids, asks = m.levels
    return [BookEvent(m.coin, m.time * 1_000_000, "snapshot", None, None, None, _levels(bids), _levels(asks))]


def _of_asset(payload: bytes) -> list[Event]:
    """``{"channel":"activeAssetCtx","data":{"coin":"BTC","ctx":{"funding":"0.1","openInterest":"2.0","markPx":...}}}``"""
    m = _asset(payload).data
    return [
        Derivative(
            native_id=m.coin,
            time=None,
            funding_rate=m.ctx.funding,
            open_interest=m.ctx.openInterest,
            mark_price=m.ctx.markPx,
            index_price=m.ctx.oraclePx,
        )
    ]


_HANDLERS: Final[dict[bytes, Callable[[bytes], list[Event]]]] = {
    b"trades": _of_trades,
    b"l2Book": _of_book,
    b"activeAssetCtx": _of_asset,
}
_REPLIES: Final = ("subscriptionResponse", "error", "pong")


def _channel_of(payload: bytes) -> bytes:
    """The channel's name where the frame is laid out as the exchange writes it, else nothing."""
    return payload[12 : payload.find(b'"', 12, 40)] if payload.startswith(_START) else b""


class Hyperliquid(Decoder):
    """The decoder of Hyperliquid."""

    exchange: ClassVar = "hyperliquid"
    version: ClassVar = "hyperliquid-1"
    documentation: ClassVar = (
        "https://hyperliquid.gitbook.io/hyperliquid-docs/for-developers/api/websocket/subscriptions"
    )
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="trades", identity=Identity.ID),
        "book_events": Stream(name="l2Book", identity=Identity.EPOCH, snapshot="always", depth=20),
        "derivatives": Stream(name="activeAssetCtx", identity=Identity.EPOCH),
    }

    def _usual(self, payload: bytes) -> Sequence[Event] | None:
        known = _HANDLERS.get(_channel_of(payload))
        return None if known is None else known(payload)

    def _events(self, payload: bytes) -> Sequence[Event]:
        channel = _probe(payload).channel
        known = _HANDLERS.get(channel.encode(errors="replace"))
        if known is not None:
            return known(payload)
        if channel in _REPLIES:
            return []
        raise DecodeError(f"unknown channel {channel!r}; expected trades, l2Book or activeAssetCtx")

    def _control(self, payload: bytes) -> Control | None:
        if _channel_of(payload) in _HANDLERS:
            return None
        probe = _probe(payload)
        match probe.channel:
            case "subscriptionResponse":
                answer = _answer(probe.data)
                ids = (answer.subscription.coin,) if answer.subscription.coin else ()
                return Control("subscribed" if answer.method == "subscribe" else "unsubscribed", ids)
            case "error":
                detail = _text(probe.data)
                # What was asked for a second time goes on being sent.
                return Control("other" if detail.startswith("Already subscribed") else "refused", detail=detail)
            case "pong":
                return Control("other")
        return None

    def book_ids(self, payload: bytes) -> Sequence[BookIds]:
        """The coin of a book: there are no ids."""
        try:
            if (_channel_of(payload) or _probe(payload).channel.encode(errors="replace")) == b"l2Book":
                return (BookIds(_coin(payload).data.coin, None, None, None, True),)
        except WIRE_ERRORS:
            pass
        return ()


DECODER: Final = Hyperliquid()
