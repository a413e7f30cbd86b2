"""Binance spot's wire format: JSON of stream events, REST replies, request replies.

Wire: the exchange's pages "WebSocket Streams for Binance" and "Market Data endpoints", and recorded frames of 2024.
"""

from __future__ import annotations

import msgspec

from collectors.simulator.engine import BookState, DepthEvent, Level, PublicEvent, QuoteEvent, TradeEvent
from collectors.simulator.market import Market, Scale

DEPTH_LIMIT = 5000
"""Most levels a side of a depth snapshot: the venue's horizon."""
MAX_STREAMS = 1024
"""Most streams a connection may subscribe to."""
STREAM_KINDS = ("trade", "bookTicker", "depth@100ms")
StreamKind = str


def stream_kind(event: PublicEvent) -> StreamKind:
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
                f'"u":{event.last_id},"b":{_levels(event.bids)},"a":{_levels(event.asks)}}}'
            )


def combined(stream: str, text: str) -> str:
    """A payload as a combined stream wraps it."""
    return f'{{"stream":"{stream}","data":{text}}}'


def _levels(levels: list[Level]) -> str:
    return "[" + ",".join([f'["{price}","{amount}"]' for price, amount in levels]) + "]"


def depth_reply(state: BookState) -> bytes:
    """Body of ``GET /api/v3/depth``."""
    return f'{{"lastUpdateId":{state.update_id},"bids":{_levels(state.bids)},"asks":{_levels(state.asks)}}}'.encode()


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
