"""Binance spot's wire format: JSON of stream events, REST replies, request replies.

Wire: the exchange's pages "WebSocket Streams for Binance" and "Market Data endpoints", and recorded frames of 2024.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import ClassVar

import msgspec

from collectors.simulator.engine import BookState, DepthEvent, PublicEvent, QuoteEvent, TradeEvent
from collectors.simulator.market import Market, Scale
from collectors.simulator.wire.contract import Answer, Call, Handler, Payload, Reply, Session, Wire, json_pairs

DEPTH_LIMIT = 5000
"""Most levels a side of a depth snapshot: the venue's horizon."""
MAX_TRADES = 1000
"""Most trades of a reply."""
MAX_STREAMS = 1024
"""Most streams a connection may subscribe to."""
STREAM_KINDS = ("trade", "bookTicker", "depth@100ms")


class Request(msgspec.Struct):
    """A client's request over its WebSocket."""

    method: str
    params: list[str | bool] = msgspec.field(default_factory=list)
    id: int | str | None = None


class Binance(Wire):
    """Binance spot. Under /ws events come bare, under /stream wrapped; ccxt numbers its connections behind /ws."""

    exchange: ClassVar = "binance"
    paths: ClassVar = ("/ws", "/ws/{streams:.*}", "/stream", "/stream/{streams:.*}")
    digits: ClassVar = 8
    quote_times: ClassVar = False
    depth: ClassVar = DEPTH_LIMIT

    def native_id(self, market: Market) -> str:
        """``BTCUSDT``"""
        return market.base + market.quote

    def streams(self, markets: Iterable[Market]) -> set[str]:
        """``btcusdt@trade`` and so on."""
        return {f"{market.native_id.lower()}@{kind}" for market in markets for kind in STREAM_KINDS}

    def stream(self, event: PublicEvent) -> str:
        """The stream as a client names it: ``btcusdt@trade``."""
        return stream_name(event)

    def payload(self, event: PublicEvent, skew_ms: int, flavour: str) -> Payload:
        """The event's JSON, wrapped where the connection takes combined streams."""
        text = payload(event, skew_ms)
        return combined(stream_name(event), text) if flavour == "combined" else text

    def connect(self, path: str, query: Mapping[str, str]) -> Session:
        """Streams may be named in the path or the query."""
        asked = (*query.get("streams", "").split("/"), *path.split("/"))
        return Session("" if "/ws" in path else "combined", set(), subscribe=tuple(one for one in asked if "@" in one))

    def answer(self, session: Session, message: Payload, known: set[str]) -> Answer:
        """Carry out SUBSCRIBE, UNSUBSCRIBE, LIST_SUBSCRIPTIONS; errors as the real exchange words them."""
        try:
            request = msgspec.json.decode(message, type=Request)
        except msgspec.DecodeError:
            return _reply({"error": {"code": 3, "msg": "Invalid JSON: expected a request with method, params and id"}})
        match request.method:
            case "SUBSCRIBE" | "UNSUBSCRIBE":
                return _subscription(request, session, known)
            case "LIST_SUBSCRIPTIONS":
                return _reply({"result": sorted(session.streams), "id": request.id})
            case _:
                return _reply(_error(f"Invalid request: unknown method {request.method}", request.id))

    def refusal(self, status: int) -> bytes:
        """Body of a refused request."""
        return error_reply(-1003, "Too many requests." if status in (418, 429) else "Service unavailable.")

    def routes(self) -> dict[tuple[str, str], Handler]:
        """What recorders and ccxt ask for."""
        return {
            ("GET", "/api/v3/ping"): lambda _: Reply(b"{}"),
            ("GET", "/api/v3/time"): lambda call: Reply(b'{"serverTime":%d}' % call.now_ms),
            ("GET", "/api/v3/exchangeInfo"): lambda call: Reply(exchange_info(call.markets, call.now_ms)),
            ("GET", "/api/v3/depth"): _depth,
            ("GET", "/api/v3/trades"): _trades,
            ("GET", "/api/v3/historicalTrades"): _trades,
        }


WIRE = Binance


def _subscription(request: Request, session: Session, known: set[str]) -> Answer:
    streams = tuple(param for param in request.params if isinstance(param, str))
    unknown = [stream for stream in streams if stream not in known]
    if unknown:
        return _reply(_error(f"Invalid stream: {unknown[0]}", request.id))
    if len(session.streams | set(streams)) > MAX_STREAMS:
        return _reply(_error("Invalid request: too many streams", request.id))
    answer = _reply({"result": None, "id": request.id})
    return answer._replace(subscribe=streams) if request.method == "SUBSCRIBE" else answer._replace(unsubscribe=streams)


def _error(message: str, request_id: int | str | None) -> dict[str, object]:
    return {"error": {"code": 2, "msg": message}, "id": request_id}


def _reply(value: dict[str, object]) -> Answer:
    return Answer((msgspec.json.encode(value).decode(),))


def _refused(call: Call, numbers: Mapping[str, str]) -> Reply | None:
    for name, number in numbers.items():
        if not number.isascii() or not number.isdigit() or (name == "limit" and int(number) < 1):
            return Reply(error_reply(-1100, f"Illegal parameter {name}: {number}."), 400)
    if call.query.get("symbol", "") not in {market.native_id for market in call.markets}:
        return Reply(error_reply(-1121, "Invalid symbol."), 400)
    return None


def _trades(call: Call) -> Reply:
    """From ``fromId`` on (of historicalTrades), else the newest; the oldest first."""
    limit, first = call.query.get("limit", "500"), call.query.get("fromId", "0")
    if refused := _refused(call, {"limit": limit, "fromId": first}):
        return refused
    most, known = min(int(limit), MAX_TRADES), call.history(call.query["symbol"])
    if "fromId" in call.query and call.path.endswith("/historicalTrades"):
        found = list(islice((trade for trade in known if trade.trade_id >= int(first)), most))
    else:
        found = list(known)[-most:]
    return Reply(("[" + ",".join(map(trade_reply, found)) + "]").encode())


def trade_reply(trade: TradeEvent) -> str:
    """A trade as REST tells it."""
    return (
        f'{{"id":{trade.trade_id},"price":"{trade.price}","qty":"{trade.amount}",'
        f'"time":{trade.time},"isBuyerMaker":{"false" if trade.is_buy else "true"},"isBestMatch":true}}'
    )


def _depth(call: Call) -> Reply:
    limit = call.query.get("limit", "100")
    if refused := _refused(call, {"limit": limit}):
        return refused
    symbol = call.query["symbol"]
    state = call.snapshot(symbol, min(int(limit), DEPTH_LIMIT))
    if state is None:
        return Reply(error_reply(-1000, "No book yet."), 503)
    return Reply(depth_reply(state))


def stream_kind(event: PublicEvent) -> str:
    """The stream an event belongs to, without its symbol: one of ``STREAM_KINDS``."""
    match event:
        case TradeEvent():
            return "trade"
        case QuoteEvent():
            return "bookTicker"
        case DepthEvent():
            return "depth@100ms"


def stream_name(event: PublicEvent) -> str:
    """The stream as a client names it: ``btcusdt@trade``."""
    return f"{event.native_id.lower()}@{stream_kind(event)}"


def payload(event: PublicEvent, skew_ms: int = 0) -> str:
    """The event's JSON, its times moved by ``skew_ms``."""
    match event:
        case TradeEvent():
            return (
                f'{{"e":"trade","E":{event.event_time + skew_ms},"s":"{event.native_id}","t":{event.trade_id},'
                f'"p":"{event.price}","q":"{event.amount}","T":{event.time + skew_ms},'
                f'"m":{"false" if event.is_buy else "true"},"M":true}}'
            )
        case QuoteEvent():
            return (
                f'{{"u":{event.update_id},"s":"{event.native_id}","b":"{event.bid_price}","B":"{event.bid_amount}",'
                f'"a":"{event.ask_price}","A":"{event.ask_amount}"}}'
            )
        case DepthEvent():
            return (
                f'{{"e":"depthUpdate","E":{event.time + skew_ms},"s":"{event.native_id}","U":{event.first_id},'
                f'"u":{event.last_id},"b":{json_pairs(event.bids)},"a":{json_pairs(event.asks)}}}'
            )


def combined(stream: str, text: str) -> str:
    """A payload as a combined stream wraps it."""
    return f'{{"stream":"{stream}","data":{text}}}'


def depth_reply(state: BookState) -> bytes:
    """Body of ``GET /api/v3/depth``."""
    return (
        f'{{"lastUpdateId":{state.update_id},"bids":{json_pairs(state.bids)},"asks":{json_pairs(state.asks)}}}'.encode()
    )


def error_reply(code: int, message: str) -> bytes:
    """Body of a REST error."""
    return msgspec.json.encode({"code": code, "msg": message})


def exchange_info(markets: list[Market], now_ms: int) -> bytes:
    """Body of ``GET /api/v3/exchangeInfo``, with all that ccxt reads of it."""
    return msgspec.json.encode(
        {
            "timezone": "UTC",
            "serverTime": now_ms,
            "rateLimits": [
                {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000},
                {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 61000},
            ],
            "exchangeFilters": [],
            "symbols": [_symbol(market) for market in markets],
        }
    )


def _symbol(market: Market) -> dict[str, object]:
    tick, step = Scale(market.price_tick), Scale(market.amount_step)
    return {
        "symbol": market.native_id,
        "status": "TRADING",
        "baseAsset": market.base,
        "baseAssetPrecision": 8,
        "quoteAsset": market.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": True,
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": tick.text(1),
                "maxPrice": tick.text(10 ** (6 + tick.digits)),
                "tickSize": tick.text(1),
            },
            {
                "filterType": "LOT_SIZE",
                "minQty": step.text(1),
                "maxQty": step.text(9000 * 10**step.digits),
                "stepSize": step.text(1),
            },
            {
                "filterType": "MARKET_LOT_SIZE",
                "minQty": "0.00000000",
                "maxQty": step.text(100 * 10**step.digits),
                "stepSize": "0.00000000",
            },
            {
                "filterType": "NOTIONAL",
                "minNotional": "5.00000000",
                "applyMinToMarket": True,
                "maxNotional": "9000000.00000000",
                "applyMaxToMarket": False,
                "avgPriceMins": 5,
            },
        ],
        "permissions": ["SPOT", "MARGIN"],
        "permissionSets": [["SPOT", "MARGIN"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"],
    }
