"""KuCoin's wire format, spot: a token by REST first, topics of several symbols, books by REST.

Wire: https://www.kucoin.com/docs-new (apply connect token; match, level1 and level2 of the classic API; part order
book, all symbols), read 2026-11. The engine's update ids serve as sequences.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import msgspec

from collectors.simulator.engine import DepthEvent, Level, PublicEvent, QuoteEvent, TradeEvent
from collectors.simulator.market import Market
from collectors.simulator.wire.contract import Answer, Call, Handler, Payload, Reply, Session, Wire, json_pairs

TOPICS = ("/market/match", "/spotMarket/level1", "/market/level2")
_TOKEN = "2neAiuYvAU61ZDXANAGAsiL4"  # noqa: S105  everybody is given the same
_WELCOME = '{"id":"public","type":"welcome"}'


class Request(msgspec.Struct):
    """A client's request over its WebSocket."""

    type: str
    id: str = ""
    topic: str = ""
    response: bool = False


class Kucoin(Wire):
    """KuCoin spot."""

    exchange: ClassVar = "kucoin"
    quote_ids: ClassVar = False
    paths: ClassVar = ("/endpoint",)
    depth: ClassVar = 100

    def native_id(self, market: Market) -> str:
        """``BTC-USDT``"""
        return f"{market.base}-{market.quote}"

    def streams(self, markets: Iterable[Market]) -> set[str]:
        """``/market/match:BTC-USDT`` and so on."""
        return {f"{topic}:{market.native_id}" for market in markets for topic in TOPICS}

    def stream(self, event: PublicEvent) -> str:
        """The topic of this one symbol."""
        match event:
            case TradeEvent():
                return f"/market/match:{event.native_id}"
            case QuoteEvent():
                return f"/spotMarket/level1:{event.native_id}"
            case DepthEvent():
                return f"/market/level2:{event.native_id}"

    def payload(self, event: PublicEvent, skew_ms: int, flavour: str) -> Payload:
        """The event's JSON."""
        topic = self.stream(event)
        match event:
            case TradeEvent():
                side, time_ns = "buy" if event.is_buy else "sell", (event.time + skew_ms) * 1_000_000
                data = (
                    f'{{"makerOrderId":"m{event.trade_id}","price":"{event.price}","sequence":"{event.trade_id}",'
                    f'"side":"{side}","size":"{event.amount}","symbol":"{event.native_id}",'
                    f'"takerOrderId":"t{event.trade_id}","time":"{time_ns}","tradeId":"{event.trade_id}",'
                    '"type":"match"}'
                )
                return _message(topic, "trade.l3match", data)
            case QuoteEvent():
                data = (
                    f'{{"asks":["{event.ask_price}","{event.ask_amount}"],'
                    f'"bids":["{event.bid_price}","{event.bid_amount}"],"timestamp":{event.time + skew_ms}}}'
                )
                return _message(topic, "level1", data)
            case DepthEvent():
                data = (
                    f'{{"changes":{{"asks":{_changes(event.asks, event.last_id)},'
                    f'"bids":{_changes(event.bids, event.last_id)}}},"sequenceEnd":{event.last_id},'
                    f'"sequenceStart":{event.first_id},"symbol":"{event.native_id}","time":{event.time + skew_ms}}}'
                )
                return _message(topic, "trade.l2update", data)

    def connect(self, path: str, query: Mapping[str, str]) -> Session:
        """A welcome for whoever brings the token, an error for others."""
        expired = '{"id":"public","type":"error","code":401,"data":"token is expired"}'
        return Session(streams=set(), greetings=(_WELCOME if query.get("token") == _TOKEN else expired,))

    def answer(self, session: Session, message: Payload, known: set[str]) -> Answer:
        """Ping, subscribe and unsubscribe; one topic may name several symbols, and is acknowledged once."""
        try:
            request = msgspec.json.decode(message, type=Request)
        except msgspec.DecodeError:
            return Answer((_error("", 400, "invalid request"),))
        match request.type:
            case "ping":
                return Answer((_reply(request.id, "pong"),))
            case "subscribe" | "unsubscribe":
                topic, _, symbols = request.topic.partition(":")
                streams = tuple(f"{topic}:{symbol}" for symbol in symbols.split(","))
                if not known.issuperset(streams):
                    return Answer((_error(request.id, 404, f"topic {request.topic} is not found"),))
                answer = Answer((_reply(request.id, "ack"),) if request.response else ())
                is_new = request.type == "subscribe"
                return answer._replace(subscribe=streams) if is_new else answer._replace(unsubscribe=streams)
        return Answer((_error(request.id, 415, "type is not supported"),))

    def refusal(self, status: int) -> bytes:
        """Body of a refused request."""
        return b'{"code":"429000","msg":"too many requests"}' if status == 429 else b'{"code":"500000","msg":"error"}'

    def routes(self) -> dict[tuple[str, str], Handler]:
        """What recorders and ccxt ask for."""
        return {
            ("GET", "/api/v1/timestamp"): lambda call: _data(call.now_ms),
            ("POST", "/api/v1/bullet-public"): _token,
            ("GET", "/api/v2/symbols"): _symbols,
            ("GET", "/api/v3/currencies"): _currencies,
            ("GET", "/api/v1/market/orderbook/level2_100"): _book,
        }


WIRE = Kucoin


def _message(topic: str, subject: str, data: str) -> str:
    return f'{{"topic":"{topic}","type":"message","subject":"{subject}","data":{data}}}'


def _changes(levels: list[Level], sequence: int) -> str:
    """Price, amount, sequence."""
    return json_pairs(levels, f',"{sequence}"')


def _reply(request_id: str, kind: str) -> str:
    return msgspec.json.encode({"id": request_id, "type": kind}).decode()


def _error(request_id: str, code: int, text: str) -> str:
    return msgspec.json.encode({"id": request_id, "type": "error", "code": code, "data": text}).decode()


def _data(data: object) -> Reply:
    return Reply(msgspec.json.encode({"code": "200000", "data": data}))


def _token(call: Call) -> Reply:
    server = {
        "endpoint": f"ws://{call.base}/endpoint",
        "encrypt": False,
        "protocol": "websocket",
        "pingInterval": 18000,
        "pingTimeout": 10000,
    }
    return _data({"token": _TOKEN, "instanceServers": [server]})


def _book(call: Call) -> Reply:
    symbol = call.query.get("symbol", "")
    state = call.snapshot(symbol, 100) if symbol in {market.native_id for market in call.markets} else None
    if state is None:
        return Reply(b'{"code":"400100","msg":"symbol not exists"}', 400)
    bids, asks = json_pairs(state.bids), json_pairs(state.asks)
    data = f'{{"time":{call.now_ms},"sequence":"{state.update_id}","bids":{bids},"asks":{asks}}}'
    return Reply(f'{{"code":"200000","data":{data}}}'.encode())


def _currencies(call: Call) -> Reply:
    names = sorted({name for market in call.markets for name in (market.base, market.quote)})
    return _data([{"currency": name, "name": name, "fullName": name, "precision": 8, "chains": []} for name in names])


def _symbols(call: Call) -> Reply:
    return _data(
        [
            {
                "symbol": market.native_id,
                "name": market.native_id,
                "baseCurrency": market.base,
                "quoteCurrency": market.quote,
                "feeCurrency": market.quote,
                "market": "USDS",
                "baseMinSize": market.amount_step,
                "quoteMinSize": "0.1",
                "baseMaxSize": "10000000000",
                "quoteMaxSize": "99999999",
                "baseIncrement": market.amount_step,
                "quoteIncrement": "0.000001",
                "priceIncrement": market.price_tick,
                "priceLimitRate": "0.1",
                "minFunds": "0.1",
                "isMarginEnabled": False,
                "enableTrading": True,
            }
            for market in call.markets
        ]
    )
