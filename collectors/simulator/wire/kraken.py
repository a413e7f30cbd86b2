"""Kraken spot's wire format, WebSocket API v2: no ids but those of trades, books with a checksum, JSON numbers.

Wire: https://docs.kraken.com/api/docs/websocket-v2 (book, trade, ticker, ping, status) and .../guides/spot-ws-book-v2
(checksum), read 2026-11. A subscription to trades opens with the last 50. REST calls a market otherwise: ``XBTUSDT``.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar
from zlib import crc32

import msgspec

from collectors.simulator.engine import BookState, DepthEvent, Level, PublicEvent, QuoteEvent, TradeEvent
from collectors.simulator.market import Market
from collectors.simulator.wire.contract import (
    Answer,
    Call,
    Handler,
    Outgoing,
    Payload,
    Reply,
    Session,
    Wire,
    ids,
    iso,
    kind,
)

CHANNELS = ("trade", "ticker", "book")
DEPTH = 1000
_CHECKED = 10
_RECENT = 50
_STATUS = '{"channel":"status","type":"update","data":[{"system":"online","api_version":"v2","version":"2.0.10"}]}'
_ASSETS = {"BTC": "XXBT", "ETH": "XETH", "XRP": "XXRP", "DOGE": "XXDG"}
"""What REST calls them; others by their own name."""


class Params(msgspec.Struct):
    """Of a subscription."""

    channel: str = ""
    symbol: list[str] = msgspec.field(default_factory=list)
    depth: int = 10


class Request(msgspec.Struct):
    """A client's request over its WebSocket."""

    method: str
    params: Params = msgspec.field(default_factory=Params)
    req_id: int | None = None


class Kraken(Wire):
    """Kraken spot."""

    exchange: ClassVar = "kraken"
    update_ids: ClassVar = "none"
    quote_ids: ClassVar = False
    paths: ClassVar = ("/v2",)
    depth: ClassVar = DEPTH
    sends_snapshots: ClassVar = True

    def __init__(self) -> None:
        super().__init__()
        self._recent: defaultdict[str, deque[TradeEvent]] = defaultdict(partial(deque, maxlen=_RECENT))

    def native_id(self, market: Market) -> str:
        """``BTC/USDT``"""
        return f"{market.base}/{market.quote}"

    def streams(self, markets: Iterable[Market]) -> set[str]:
        """``trade:BTC/USDT`` and so on."""
        return {f"{channel}:{market.native_id}" for market in markets for channel in CHANNELS}

    def stream(self, event: PublicEvent) -> str:
        """Channel and symbol."""
        match event:
            case TradeEvent():
                return f"trade:{event.native_id}"
            case QuoteEvent():
                return f"ticker:{event.native_id}"
            case DepthEvent():
                return f"book:{event.native_id}"

    def outgoing(self, event: PublicEvent) -> Outgoing:
        """Remembers the last trades, and computes the checksum of the book as an update leaves it."""
        if isinstance(event, TradeEvent):
            self._recent[event.native_id].append(event)
        if not isinstance(event, DepthEvent):
            return super().outgoing(event)
        render = partial(self._update, event, checksum(self.book(event.native_id, _CHECKED)))
        return Outgoing(self.stream(event), kind(event), event.native_id, ids(event), render)

    def payload(self, event: PublicEvent, skew_ms: int, flavour: str) -> Payload:
        """The JSON of a trade or a quote."""
        match event:
            case TradeEvent():
                return _data("trade", "update", [_trade(event, skew_ms)])
            case QuoteEvent():
                sides = f'"bid":{event.bid_price},"bid_qty":{event.bid_amount},"ask":{event.ask_price},'
                rest = f'"ask_qty":{event.ask_amount},"last":{event.bid_price},"volume":0.0,"vwap":0.0'
                time = f'"timestamp":"{iso(event.time + skew_ms)}"'
                return _data("ticker", "update", [f'{{"symbol":"{event.native_id}",{sides}{rest},{time}}}'])
            case DepthEvent():
                raise TypeError("a book's update gets its checksum when it is published")

    def _update(self, event: DepthEvent, crc: int, skew_ms: int, flavour: str) -> Payload:
        return _book(event.native_id, "update", event.bids, event.asks, crc, event.time + skew_ms)

    def snapshot(self, state: BookState, stream: str, now_ms: int, flavour: str) -> Payload:
        """The whole book, 1,000 levels a side."""
        return _book(state.native_id, "snapshot", state.bids, state.asks, checksum(state), now_ms)

    def connect(self, path: str, query: Mapping[str, str]) -> Session:
        """The exchange tells of its state first."""
        return Session(streams=set(), greetings=(_STATUS,))

    def ping(self, now_ms: int) -> Payload:
        """A heartbeat."""
        return '{"channel":"heartbeat"}'

    def answer(self, session: Session, message: Payload, known: set[str]) -> Answer:
        """Ping, subscribe and unsubscribe; each symbol is acknowledged or refused alone."""
        try:
            request = msgspec.json.decode(message, type=Request)
        except msgspec.DecodeError:
            return Answer((_reply("", None, error="Malformed request"),))
        if request.method == "ping":
            return Answer((_reply("pong", request.req_id),))
        if request.method not in ("subscribe", "unsubscribe"):
            return Answer((_reply(request.method, request.req_id, success=False, error="Unsupported method"),))
        channel, replies, streams = request.params.channel, [], []
        for symbol in request.params.symbol:
            if f"{channel}:{symbol}" not in known or (channel == "book" and request.params.depth != DEPTH):
                text = f"Currency pair not supported {symbol}"
                replies.append(_reply(request.method, request.req_id, success=False, error=text, symbol=symbol))
                continue
            streams.append(f"{channel}:{symbol}")
            result = {"channel": channel, "snapshot": True, "symbol": symbol}
            replies.append(_reply(request.method, request.req_id, success=True, result=result))
            if channel == "trade" and request.method == "subscribe" and self._recent[symbol]:
                replies.append(_data("trade", "snapshot", [_trade(one, 0) for one in self._recent[symbol]]))
        if request.method == "subscribe":
            return Answer(tuple(replies), subscribe=tuple(streams))
        return Answer(tuple(replies), unsubscribe=tuple(streams))

    def refusal(self, status: int) -> bytes:
        """Body of a refused request."""
        return b'{"error":["EAPI:Rate limit exceeded"]}' if status == 429 else b'{"error":["EService:Unavailable"]}'

    def routes(self) -> dict[tuple[str, str], Handler]:
        """What recorders and ccxt ask for."""
        return {
            ("GET", "/0/public/Time"): lambda call: _result({"unixtime": call.now_ms // 1000}),
            ("GET", "/0/public/Assets"): _assets,
            ("GET", "/0/public/AssetPairs"): _pairs,
        }


WIRE = Kraken


def checksum(state: BookState) -> int:
    """CRC32 of the best ten asks and bids: their numbers without points and leading zeros."""
    digits = ""
    for side in (state.asks, state.bids):
        for level in side[:_CHECKED]:
            digits += "".join(text.replace(".", "").lstrip("0") for text in level)
    return crc32(digits.encode())


def _data(channel: str, kind: str, items: Sequence[str]) -> str:
    return f'{{"channel":"{channel}","type":"{kind}","data":[{",".join(items)}]}}'


def _trade(event: TradeEvent, skew_ms: int) -> str:
    return (
        f'{{"symbol":"{event.native_id}","side":"{"buy" if event.is_buy else "sell"}","price":{event.price},'
        f'"qty":{event.amount},"ord_type":"market","trade_id":{event.trade_id},'
        f'"timestamp":"{iso(event.time + skew_ms)}"}}'
    )


def _book(  # noqa: PLR0917
    native_id: str, kind: str, bids: list[Level], asks: list[Level], crc: int, time_ms: int
) -> str:
    item = (
        f'{{"symbol":"{native_id}","bids":{_levels(bids)},"asks":{_levels(asks)},"checksum":{crc},'
        f'"timestamp":"{iso(time_ms)}"}}'
    )
    return _data("book", kind, [item])


def _levels(levels: list[Level]) -> str:
    return "[" + ",".join([f'{{"price":{price},"qty":{amount}}}' for price, amount in levels]) + "]"


def _reply(method: str, request_id: int | None, **further: Any) -> str:
    times = {"time_in": "2026-11-01T00:00:00.000000Z", "time_out": "2026-11-01T00:00:00.000001Z"}
    reply = {"method": method, "req_id": request_id, **further, **times}
    return msgspec.json.encode({key: value for key, value in reply.items() if value is not None}).decode()


def _result(result: object) -> Reply:
    return Reply(msgspec.json.encode({"error": [], "result": result}))


def _assets(call: Call) -> Reply:
    names = {name for market in call.markets for name in (market.base, market.quote)}
    return _result(
        {
            _ASSETS.get(name, name): {
                "aclass": "currency",
                "altname": "XBT" if name == "BTC" else name,
                "decimals": 10,
                "display_decimals": 5,
                "status": "enabled",
            }
            for name in sorted(names)
        }
    )


def _pairs(call: Call) -> Reply:
    pairs = {}
    for market in call.markets:
        base = {"BTC": "XBT", "DOGE": "XDG"}.get(market.base, market.base)
        pairs[f"{base}{market.quote}"] = {
            "altname": f"{base}{market.quote}",
            "wsname": f"{base}/{market.quote}",
            "base": _ASSETS.get(market.base, market.base),
            "quote": _ASSETS.get(market.quote, market.quote),
            "aclass_base": "currency",
            "aclass_quote": "currency",
            "pair_decimals": len(market.price_tick.partition(".")[2]),
            "lot_decimals": 8,
            "leverage_buy": [],
            "leverage_sell": [],
            "fees": [[0, 0.4]],
            "fees_maker": [[0, 0.25]],
            "ordermin": market.amount_step,
            "costmin": "0.5",
            "tick_size": market.price_tick,
            "status": "online",
        }
    return _result(pairs)
