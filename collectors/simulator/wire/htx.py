"""HTX's wire format, spot: gzip frames of JSON numbers, pings to be answered, whole books on request.

Wire: https://www.htx.com/en-us/opend/newApiPages/ (market data on WebSocket: trade detail, BBO, MBP incremental and its
request; REST: symbols), read 2026-11. A requested book comes when later updates were sent already: its ``seqNum`` is
that of one of them. The engine's update ids serve as sequence numbers.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from typing import ClassVar

import msgspec

from collectors.simulator.engine import BookState, DepthEvent, Level, PublicEvent, QuoteEvent, TradeEvent
from collectors.simulator.market import Market, digits_of
from collectors.simulator.wire.contract import Answer, Call, Handler, Payload, Reply, Session, Wire

DEPTH = 150
KINDS = ("trade.detail", "bbo", f"mbp.{DEPTH}")
_PERPETUAL = {"symbol": "BTC", "contract_size": 0.001, "price_tick": 0.1, "contract_status": 1}


class Request(msgspec.Struct):
    """A client's request over its WebSocket."""

    sub: str = ""
    unsub: str = ""
    req: str = ""
    pong: int | None = None
    id: str | int = ""


class Htx(Wire):
    """HTX spot: books at /feed, the rest at /ws."""

    exchange: ClassVar = "htx"
    paths: ClassVar = ("/ws", "/feed")
    depth: ClassVar = DEPTH
    answers_late: ClassVar = True

    def native_id(self, market: Market) -> str:
        """``btcusdt``"""
        return f"{market.base}{market.quote}".lower()

    def streams(self, markets: Iterable[Market]) -> set[str]:
        """``market.btcusdt.trade.detail`` and so on."""
        return {f"market.{market.native_id}.{kind}" for market in markets for kind in KINDS}

    def stream(self, event: PublicEvent) -> str:
        """The topic."""
        match event:
            case TradeEvent():
                return f"market.{event.native_id}.trade.detail"
            case QuoteEvent():
                return f"market.{event.native_id}.bbo"
            case DepthEvent():
                return f"market.{event.native_id}.mbp.{DEPTH}"

    def payload(self, event: PublicEvent, skew_ms: int, flavour: str) -> Payload:
        """The event's JSON, packed."""
        time_ms = event.time + skew_ms
        match event:
            case TradeEvent():
                trade = (
                    f'{{"id":{event.trade_id}000000,"ts":{time_ms},"tradeId":{event.trade_id},"amount":{event.amount},'
                    f'"price":{event.price},"direction":"{"buy" if event.is_buy else "sell"}"}}'
                )
                tick = f'{{"id":{event.trade_id},"ts":{time_ms},"data":[{trade}]}}'
            case QuoteEvent():
                tick = (
                    f'{{"seqId":{event.update_id},"ask":{event.ask_price},"askSize":{event.ask_amount},'
                    f'"bid":{event.bid_price},"bidSize":{event.bid_amount},"quoteTime":{time_ms},'
                    f'"symbol":"{event.native_id}"}}'
                )
            case DepthEvent():
                tick = (
                    f'{{"seqNum":{event.last_id},"prevSeqNum":{event.first_id - 1},'
                    f'"bids":{_levels(event.bids)},"asks":{_levels(event.asks)}}}'
                )
        return _packed(f'{{"ch":"{self.stream(event)}","ts":{time_ms},"tick":{tick}}}')

    def snapshot(self, state: BookState, stream: str, now_ms: int, flavour: str) -> Payload:
        """The reply to a request: 150 levels a side."""
        data = f'{{"seqNum":{state.update_id},"bids":{_levels(state.bids)},"asks":{_levels(state.asks)}}}'
        return _packed(f'{{"id":"1","rep":"{stream}","status":"ok","ts":{now_ms},"data":{data}}}')

    def ping(self, now_ms: int) -> Payload:
        """Their own, which a client must answer."""
        return _packed(f'{{"ping":{now_ms}}}')

    def answer(self, session: Session, message: Payload, known: set[str]) -> Answer:
        """Pongs, sub, unsub and req of one topic each."""
        try:
            request = msgspec.json.decode(message, type=Request)
        except msgspec.DecodeError:
            return Answer((_error("", "bad-request", "invalid message"),))
        topic = request.sub or request.unsub or request.req
        if request.pong is not None:
            return Answer()
        if topic not in known or (request.req and not topic.endswith(KINDS[2])):
            return Answer((_error(request.id, "bad-request", f"invalid topic {topic}"),))
        if request.req:
            return Answer(books=(topic,))
        key = "subbed" if request.sub else "unsubbed"
        reply = _packed(msgspec.json.encode({"id": request.id, "status": "ok", key: topic, "ts": 0}).decode())
        return Answer((reply,), subscribe=(topic,)) if request.sub else Answer((reply,), unsubscribe=(topic,))

    def refusal(self, status: int) -> bytes:
        """Body of a refused request."""
        code = "api-limit" if status == 429 else "system-maintenance"
        return msgspec.json.encode({"status": "error", "err-code": code, "err-msg": code, "data": None})

    def routes(self) -> dict[tuple[str, str], Handler]:
        """What recorders and ccxt ask for; ccxt takes no list of contracts for an answer if it is empty."""
        swap = {**_PERPETUAL, "contract_code": "BTC-USDT", "pair": "BTC-USDT", "business_type": "swap"}
        inverse = {**_PERPETUAL, "contract_code": "BTC-USD"}
        dated = {
            **_PERPETUAL,
            "contract_code": "BTC270326",
            "delivery_date": "20270326",
            "delivery_time": "1806048000000",
        }
        return {
            ("GET", "/v1/common/timestamp"): lambda call: _data(call.now_ms),
            ("GET", "/v1/common/symbols"): _symbols,
            ("GET", "/v2/reference/currencies"): lambda _: Reply(b'{"code":200,"data":[]}'),
            ("GET", "/linear-swap-api/v1/swap_contract_info"): lambda _: _data([swap]),
            ("GET", "/swap-api/v1/swap_contract_info"): lambda _: _data([inverse]),
            ("GET", "/api/v1/contract_contract_info"): lambda _: _data([dated]),
        }


WIRE = Htx


def _packed(text: str) -> bytes:
    return gzip.compress(text.encode(), compresslevel=1, mtime=0)


def _levels(levels: list[Level]) -> str:
    return "[" + ",".join([f"[{price},{amount}]" for price, amount in levels]) + "]"


def _error(request_id: str | int, code: str, text: str) -> bytes:
    reply = {"status": "error", "ts": 0, "id": request_id, "err-code": code, "err-msg": text}
    return _packed(msgspec.json.encode(reply).decode())


def _data(data: object) -> Reply:
    return Reply(msgspec.json.encode({"status": "ok", "data": data}))


def _symbols(call: Call) -> Reply:
    return _data(
        [
            {
                "symbol": market.native_id,
                "base-currency": market.base.lower(),
                "quote-currency": market.quote.lower(),
                "price-precision": digits_of(market.price_tick),
                "amount-precision": digits_of(market.amount_step),
                "value-precision": 8,
                "symbol-partition": "main",
                "state": "online",
                "min-order-value": 10,
                "min-order-amt": float(market.amount_step),
                "max-order-amt": 1000,
                "api-trading": "enabled",
            }
            for market in call.markets
        ]
    )
