"""MEXC's wire format, spot: Protocol Buffers, no ids but those of books, whole books by REST.

Wire: https://www.mexc.com/api-docs/spot-v3/websocket-market-streams (aggre.deals, aggre.bookTicker, aggre.depth, and
the exchange's .proto files) and .../market-data-endpoints, read 2026-11. The engine's update ids serve as versions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import msgspec

from collectors.simulator.engine import DepthEvent, Level, PublicEvent, QuoteEvent, TradeEvent
from collectors.simulator.market import Market, digits_of
from collectors.simulator.wire.contract import Answer, Call, Handler, Payload, Reply, Session, Wire, json_pairs

DEPTH = 5000
_DEALS = "spot@public.aggre.deals.v3.api.pb@100ms"
_TICKER = "spot@public.aggre.bookTicker.v3.api.pb@100ms"
_BOOK = "spot@public.aggre.depth.v3.api.pb@10ms"
_CHANNEL, _SYMBOL, _SENT, _BODY = 1, 3, 6, {_BOOK: 313, _DEALS: 314, _TICKER: 315}
"""Field numbers of PushDataV3ApiWrapper."""


class Request(msgspec.Struct):
    """A client's request over its WebSocket."""

    method: str
    params: list[str] = msgspec.field(default_factory=list)
    id: int = 0


class Mexc(Wire):
    """MEXC spot."""

    exchange: ClassVar = "mexc"
    quote_ids: ClassVar = False
    paths: ClassVar = ("/ws",)
    depth: ClassVar = DEPTH

    def native_id(self, market: Market) -> str:
        """``BTCUSDT``"""
        return market.base + market.quote

    def trade_id(self, number: int) -> None:
        """They are not told."""

    def streams(self, markets: Iterable[Market]) -> set[str]:
        """``spot@public.aggre.deals.v3.api.pb@100ms@BTCUSDT`` and so on."""
        return {f"{channel}@{market.native_id}" for market in markets for channel in _BODY}

    def stream(self, event: PublicEvent) -> str:
        """Channel and symbol."""
        return f"{_channel(event)}@{event.native_id}"

    def payload(self, event: PublicEvent, skew_ms: int, flavour: str) -> Payload:
        """The event as a PushDataV3ApiWrapper."""
        time_ms = event.time + skew_ms
        match event:
            case TradeEvent():
                side = 1 if event.is_buy else 2
                deal = message((1, event.price), (2, event.amount), (3, side), (4, time_ms))
                body = message((1, deal), (2, _DEALS))
            case QuoteEvent():
                body = message((1, event.bid_price), (2, event.bid_amount), (3, event.ask_price), (4, event.ask_amount))
            case DepthEvent():
                versions = (4, str(event.first_id)), (5, str(event.last_id))
                body = message(*_levels(1, event.asks), *_levels(2, event.bids), (3, _BOOK), *versions)
        channel, stream = _channel(event), self.stream(event)
        return message((_CHANNEL, stream), (_SYMBOL, event.native_id), (_SENT, time_ms), (_BODY[channel], body))

    def answer(self, session: Session, message: Payload, known: set[str]) -> Answer:
        """Ping, SUBSCRIPTION and UNSUBSCRIPTION; what was carried out is named, what was not is told of."""
        try:
            request = msgspec.json.decode(message, type=Request)
        except msgspec.DecodeError:
            return Answer((_reply(0, "msg format error"),))
        if request.method.lower() == "ping":
            return Answer((_reply(request.id, "PONG"),))
        streams = tuple(stream for stream in request.params if stream in known)
        unknown = [stream for stream in request.params if stream not in known]
        replies = [_reply(request.id, ",".join(streams))] if streams else []
        if unknown:
            replies.append(_reply(request.id, f"Not Subscribed successfully! [{','.join(unknown)}]. Reason: Blocked!"))
        match request.method:
            case "SUBSCRIPTION":
                return Answer(tuple(replies), subscribe=streams)
            case "UNSUBSCRIPTION":
                return Answer(tuple(replies), unsubscribe=streams)
        return Answer((_reply(request.id, "msg format error"),))

    def refusal(self, status: int) -> bytes:
        """Body of a refused request."""
        return b'{"code":429,"msg":"Too Many Requests"}' if status == 429 else b'{"code":500,"msg":"Server error"}'

    def routes(self) -> dict[tuple[str, str], Handler]:
        """What recorders and ccxt ask for; there are no contracts here."""
        return {
            ("GET", "/api/v3/time"): lambda call: Reply(b'{"serverTime":%d}' % call.now_ms),
            ("GET", "/api/v3/exchangeInfo"): _symbols,
            ("GET", "/api/v1/contract/detail"): lambda _: Reply(b'{"success":true,"code":0,"data":[]}'),
            ("GET", "/api/v3/depth"): _book,
        }


WIRE = Mexc


def _channel(event: PublicEvent) -> str:
    match event:
        case TradeEvent():
            return _DEALS
        case QuoteEvent():
            return _TICKER
        case DepthEvent():
            return _BOOK


def varint(value: int) -> bytes:
    """An unsigned integer as Protocol Buffers write it: seven bits a byte, lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def message(*fields: tuple[int, int | str | bytes]) -> bytes:
    """A message of Protocol Buffers: field numbers with integers, texts, or messages."""
    out = bytearray()
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return bytes(out)


def _levels(number: int, levels: list[Level]) -> list[tuple[int, bytes]]:
    return [(number, message((1, price), (2, amount))) for price, amount in levels]


def _reply(request_id: int, text: str) -> str:
    return msgspec.json.encode({"id": request_id, "code": 0, "msg": text}).decode()


def _book(call: Call) -> Reply:
    symbol, limit = call.query.get("symbol", ""), call.query.get("limit", "100")
    is_known = symbol in {market.native_id for market in call.markets} and limit.isdecimal()
    state = call.snapshot(symbol, min(int(limit), DEPTH)) if is_known else None
    if state is None:
        return Reply(b'{"code":-1121,"msg":"Invalid symbol."}', 400)
    bids, asks = json_pairs(state.bids), json_pairs(state.asks)
    body = f'{{"lastUpdateId":{state.update_id},"bids":{bids},"asks":{asks},"timestamp":{call.now_ms}}}'
    return Reply(body.encode())


def _symbols(call: Call) -> Reply:
    symbols = [
        {
            "symbol": market.native_id,
            "status": "1",
            "baseAsset": market.base,
            "baseAssetPrecision": digits_of(market.amount_step),
            "quoteAsset": market.quote,
            "quotePrecision": digits_of(market.price_tick),
            "quoteAssetPrecision": digits_of(market.price_tick),
            "isSpotTradingAllowed": True,
            "isMarginTradingAllowed": False,
            "quoteAmountPrecision": "1",
            "baseSizePrecision": market.amount_step,
            "permissions": ["SPOT"],
            "maxQuoteAmount": "2000000",
            "makerCommission": "0",
            "takerCommission": "0.0005",
        }
        for market in call.markets
    ]
    return Reply(msgspec.json.encode({"timezone": "CST", "serverTime": call.now_ms, "symbols": symbols}))
