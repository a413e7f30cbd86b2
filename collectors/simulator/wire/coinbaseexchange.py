"""Coinbase Exchange's wire format: matches with consecutive ids, books without any id, no best bid and ask.

Wire: https://docs.cdp.coinbase.com/exchange/docs/websocket-channels (matches, level2_batch, subscriptions) and
.../reference/exchangerestapi_getproducts, read 2026-11. A subscription to matches opens with the last match.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import msgspec

from collectors.simulator.engine import BookState, DepthEvent, PublicEvent, QuoteEvent, TradeEvent
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
    iso,
    json_pairs,
)

CHANNELS = ("matches", "level2_batch")


class Request(msgspec.Struct):
    """A client's request over its WebSocket."""

    type: str
    product_ids: list[str] = msgspec.field(default_factory=list)
    channels: list[str] = msgspec.field(default_factory=list)


class CoinbaseExchange(Wire):
    """Coinbase Exchange."""

    exchange: ClassVar = "coinbaseexchange"
    update_ids: ClassVar = "none"
    paths: ClassVar = ("/",)
    depth: ClassVar = 100_000
    sends_snapshots: ClassVar = True

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, TradeEvent] = {}

    def native_id(self, market: Market) -> str:
        """``BTC-USDT``"""
        return f"{market.base}-{market.quote}"

    def streams(self, markets: Iterable[Market]) -> set[str]:
        """``matches:BTC-USDT`` and so on."""
        return {f"{channel}:{market.native_id}" for market in markets for channel in CHANNELS}

    def stream(self, event: PublicEvent) -> str:
        """Channel and product; nobody can subscribe to quotes."""
        match event:
            case TradeEvent():
                return f"matches:{event.native_id}"
            case QuoteEvent():
                return ""
            case DepthEvent():
                return f"level2_batch:{event.native_id}"

    def outgoing(self, event: PublicEvent) -> Outgoing:
        """Remembers the last match."""
        if isinstance(event, TradeEvent):
            self._last[event.native_id] = event
        return super().outgoing(event)

    def payload(self, event: PublicEvent, skew_ms: int, flavour: str) -> Payload:
        """The event's JSON."""
        match event:
            case TradeEvent():
                return _match("match", event, skew_ms)
            case QuoteEvent():
                raise TypeError("no channel tells the best bid and ask")
            case DepthEvent():
                sides = (("buy", event.bids), ("sell", event.asks))
                changes = ",".join([f'["{side}","{p}","{amount}"]' for side, levels in sides for p, amount in levels])
                time = iso(event.time + skew_ms)
                return f'{{"type":"l2update","product_id":"{event.native_id}","changes":[{changes}],"time":"{time}"}}'

    def snapshot(self, state: BookState, stream: str, now_ms: int, flavour: str) -> Payload:
        """The whole book, every level."""
        return (
            f'{{"type":"snapshot","product_id":"{state.native_id}","asks":{json_pairs(state.asks)},'
            f'"bids":{json_pairs(state.bids)},"time":"{iso(now_ms)}"}}'
        )

    def answer(self, session: Session, message: Payload, known: set[str]) -> Answer:
        """Subscribe and unsubscribe: the reply lists all that the connection has by now."""
        try:
            request = msgspec.json.decode(message, type=Request)
        except msgspec.DecodeError:
            return Answer((_error("Malformed JSON", ""),))
        if request.type not in ("subscribe", "unsubscribe"):
            return Answer((_error("Failed to subscribe", f"{request.type} is not a valid type"),))
        asked = [(channel, product) for channel in request.channels for product in request.product_ids]
        for channel, product in asked:
            if f"{channel}:{product}" not in known:
                return Answer((_error("Failed to subscribe", f"no {channel} of {product}"),))
        streams = tuple(f"{channel}:{product}" for channel, product in asked)
        is_new = request.type == "subscribe"
        kept = session.streams | set(streams) if is_new else session.streams - set(streams)
        replies = [_subscriptions(kept)]
        if not is_new:
            return Answer(tuple(replies), unsubscribe=streams)
        last = [self._last[product] for channel, product in asked if channel == "matches" and product in self._last]
        return Answer((*(_match("last_match", one, 0) for one in last), *replies), subscribe=streams)

    def refusal(self, status: int) -> bytes:
        """Body of a refused request."""
        text = "Public rate limit exceeded" if status == 429 else "Internal server error"
        return msgspec.json.encode({"message": text})

    def routes(self) -> dict[tuple[str, str], Handler]:
        """What recorders and ccxt ask for."""
        return {
            ("GET", "/time"): lambda call: Reply(b'{"iso":"%b","epoch":%d}' % (iso(call.now_ms).encode(), call.now_ms)),
            ("GET", "/currencies"): _currencies,
            ("GET", "/products"): _products,
        }


WIRE = CoinbaseExchange


def _match(kind: str, event: TradeEvent, skew_ms: int) -> str:
    """The side is the maker's."""
    side = "sell" if event.is_buy else "buy"
    return (
        f'{{"type":"{kind}","trade_id":{event.trade_id},"maker_order_id":"m{event.trade_id}",'
        f'"taker_order_id":"t{event.trade_id}","side":"{side}","size":"{event.amount}","price":"{event.price}",'
        f'"product_id":"{event.native_id}","sequence":{event.trade_id},"time":"{iso(event.time + skew_ms)}"}}'
    )


def _subscriptions(streams: set[str]) -> str:
    channels: dict[str, list[str]] = {}
    for stream in sorted(streams):
        channel, _, product = stream.partition(":")
        channels.setdefault(channel, []).append(product)
    listed = [{"name": name, "product_ids": ids, "account_ids": None} for name, ids in channels.items()]
    return msgspec.json.encode({"type": "subscriptions", "channels": listed}).decode()


def _error(message: str, reason: str) -> str:
    return msgspec.json.encode({"type": "error", "message": message, "reason": reason}).decode()


def _currencies(call: Call) -> Reply:
    names = sorted({name for market in call.markets for name in (market.base, market.quote)})
    return Reply(
        msgspec.json.encode(
            [
                {"id": name, "name": name, "min_size": "0.00000001", "status": "online", "details": {"type": "crypto"}}
                for name in names
            ]
        )
    )


def _products(call: Call) -> Reply:
    products = [
        {
            "id": market.native_id,
            "base_currency": market.base,
            "quote_currency": market.quote,
            "quote_increment": market.price_tick,
            "base_increment": market.amount_step,
            "display_name": market.native_id,
            "min_market_funds": "1",
            "margin_enabled": False,
            "post_only": False,
            "limit_only": False,
            "cancel_only": False,
            "status": "online",
            "status_message": "",
            "trading_disabled": False,
            "auction_mode": False,
        }
        for market in call.markets
    ]
    return Reply(msgspec.json.encode(products))
