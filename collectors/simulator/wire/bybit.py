"""Bybit's wire format, linear contracts: topics, books that open with a whole book and count their messages.

Wire: https://bybit-exchange.github.io/docs/v5/websocket/public/orderbook, its neighbours trade and connect, and
.../v5/market/instrument, read 2026-11. A trade's id is a UUID; a book's ``u`` rises by one a message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import ClassVar
from uuid import UUID

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
    json_pairs,
    kind,
)

DEPTH = 1000
_UUID_VERSION_4 = 0x4000 << 64
_UUID_VARIANT = 0x8 << 60


class Request(msgspec.Struct):
    """A client's request over its WebSocket."""

    op: str
    args: list[str] = msgspec.field(default_factory=list)
    req_id: str | int = ""


class Bybit(Wire):
    """Bybit's linear contracts, settled in their quote."""

    exchange: ClassVar = "bybit"
    market_kind: ClassVar = "swap"
    update_ids: ClassVar = "messages"
    paths: ClassVar = ("/v5/public/linear",)
    depth: ClassVar = DEPTH
    sends_snapshots: ClassVar = True

    def __init__(self) -> None:
        super().__init__()
        self._messages: Counter[str] = Counter()

    def native_id(self, market: Market) -> str:
        """``BTCUSDT``"""
        return market.base + market.quote

    def trade_id(self, number: int) -> str:
        """A UUID."""
        return str(UUID(int=number << 80 | _UUID_VERSION_4 | _UUID_VARIANT))

    def streams(self, markets: Iterable[Market]) -> set[str]:
        """``publicTrade.BTCUSDT`` and so on."""
        topics = ("publicTrade", "orderbook.1", f"orderbook.{DEPTH}")
        return {f"{topic}.{market.native_id}" for market in markets for topic in topics}

    def stream(self, event: PublicEvent) -> str:
        """The topic."""
        match event:
            case TradeEvent():
                return f"publicTrade.{event.native_id}"
            case QuoteEvent():
                return f"orderbook.1.{event.native_id}"
            case DepthEvent():
                return f"orderbook.{DEPTH}.{event.native_id}"

    def outgoing(self, event: PublicEvent) -> Outgoing:
        """Numbers the updates of a book."""
        if not isinstance(event, DepthEvent):
            return super().outgoing(event)
        self._messages[event.native_id] += 1
        render = partial(self._delta, event, self._messages[event.native_id])
        return Outgoing(self.stream(event), kind(event), event.native_id, ids(event), render)

    def payload(self, event: PublicEvent, skew_ms: int, flavour: str) -> Payload:
        """The JSON of a trade or a quote."""
        match event:
            case TradeEvent():
                time, side = event.time + skew_ms, "Buy" if event.is_buy else "Sell"
                return (
                    f'{{"topic":"publicTrade.{event.native_id}","type":"snapshot","ts":{event.event_time + skew_ms},'
                    f'"data":[{{"T":{time},"s":"{event.native_id}","S":"{side}","v":"{event.amount}",'
                    f'"p":"{event.price}","L":"ZeroPlusTick","i":"{self.trade_id(event.trade_id)}","BT":false}}]}}'
                )
            case QuoteEvent():
                sides = [(event.bid_price, event.bid_amount)], [(event.ask_price, event.ask_amount)]
                return _book(event.native_id, 1, "snapshot", event.update_id, *sides, event.time + skew_ms)
            case DepthEvent():
                raise TypeError("a book's update is numbered when it is published")

    def _delta(self, event: DepthEvent, number: int, skew_ms: int, flavour: str) -> Payload:
        return _book(event.native_id, DEPTH, "delta", number, event.bids, event.asks, event.time + skew_ms)

    def snapshot(self, state: BookState, stream: str, now_ms: int, flavour: str) -> Payload:
        """The whole book, 1,000 levels a side, under the number of the update before it."""
        number = self._messages[state.native_id]
        return _book(state.native_id, DEPTH, "snapshot", number, state.bids, state.asks, now_ms)

    def answer(self, session: Session, message: Payload, known: set[str]) -> Answer:
        """Ping, subscribe and unsubscribe; a request that names an unknown topic is refused as a whole."""
        try:
            request = msgspec.json.decode(message, type=Request)
        except msgspec.DecodeError:
            return Answer((_reply("", "", "Invalid request", success=False),))
        match request.op:
            case "ping":
                return Answer((_reply("ping", request.req_id, "pong"),))
            case "subscribe" | "unsubscribe":
                unknown = [topic for topic in request.args if topic not in known]
                if unknown:
                    text = f"error:handler not found,topic:{unknown[0]}"
                    return Answer((_reply(request.op, request.req_id, text, success=False),))
                answer = Answer((_reply(request.op, request.req_id, request.op),))
                topics = tuple(request.args)
                is_new = request.op == "subscribe"
                return answer._replace(subscribe=topics) if is_new else answer._replace(unsubscribe=topics)
        return Answer((_reply(request.op, request.req_id, f"Unknown op {request.op}", success=False),))

    def refusal(self, status: int) -> bytes:
        """Body of a refused request."""
        code, text = (10006, "Too many visits!") if status == 429 else (10016, "Internal server error")
        return msgspec.json.encode({"retCode": code, "retMsg": text, "result": {}, "retExtInfo": {}, "time": 0})

    def routes(self) -> dict[tuple[str, str], Handler]:
        """What recorders and ccxt ask for."""
        return {
            ("GET", "/v5/market/time"): lambda call: _result({"timeSecond": str(call.now_ms // 1000)}, call.now_ms),
            ("GET", "/v5/market/instruments-info"): _instruments,
        }


WIRE = Bybit


def _book(  # noqa: PLR0917
    native_id: str, depth: int, kind: str, number: int, bids: list[Level], asks: list[Level], time_ms: int
) -> str:
    return (
        f'{{"topic":"orderbook.{depth}.{native_id}","type":"{kind}","ts":{time_ms + 1},"data":{{"s":"{native_id}",'
        f'"b":{json_pairs(bids)},"a":{json_pairs(asks)},"u":{number},"seq":{number}}},"cts":{time_ms}}}'
    )


def _reply(op: str, request_id: str | int, text: str, *, success: bool = True) -> str:
    reply = {"success": success, "ret_msg": text, "conn_id": "7b1f20a3", "req_id": request_id, "op": op}
    return msgspec.json.encode(reply).decode()


def _result(result: object, now_ms: int) -> Reply:
    reply = {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": now_ms}
    return Reply(msgspec.json.encode(reply))


def _instruments(call: Call) -> Reply:
    """Those that trade; none is in its phase before launch."""
    is_asked = call.query.get("category") == "linear" and "status" not in call.query
    found = [
        {
            "symbol": market.native_id,
            "contractType": "LinearPerpetual",
            "status": "Trading",
            "baseCoin": market.base,
            "quoteCoin": market.quote,
            "settleCoin": market.quote,
            "launchTime": "1584230400000",
            "deliveryTime": "0",
            "deliveryFeeRate": "",
            "priceScale": "2",
            "priceFilter": {"minPrice": market.price_tick, "maxPrice": "1999999", "tickSize": market.price_tick},
            "lotSizeFilter": {
                "minOrderQty": market.amount_step,
                "maxOrderQty": "1190",
                "qtyStep": market.amount_step,
                "minNotionalValue": "5",
            },
            "fundingInterval": 480,
        }
        for market in call.markets
    ]
    return _result({"category": "linear", "list": found if is_asked else [], "nextPageCursor": ""}, call.now_ms)
