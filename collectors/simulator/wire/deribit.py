"""Deribit's wire format, spot: JSON-RPC, books whose changes name the change before them, numbers as JSON numbers.

Wire: https://docs.deribit.com/ (public/subscribe; book, trades and quote channels; public/get_instruments), read
2026-11. The engine's update ids serve as change ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import msgspec

from collectors.simulator.engine import BookState, DepthEvent, Level, PublicEvent, QuoteEvent, TradeEvent
from collectors.simulator.market import Market
from collectors.simulator.wire.contract import Answer, Call, Handler, Payload, Reply, Session, Wire


class Params(msgspec.Struct):
    """Of a subscription."""

    channels: list[str] = msgspec.field(default_factory=list)


class Request(msgspec.Struct):
    """A client's request over its WebSocket."""

    method: str
    params: Params = msgspec.field(default_factory=Params)
    id: int | str | None = None


class Deribit(Wire):
    """Deribit's spot market; nothing is sent raw, as that needs a login."""

    exchange: ClassVar = "deribit"
    quote_ids: ClassVar = False
    paths: ClassVar = ("/ws/api/v2",)
    depth: ClassVar = 100_000
    sends_snapshots: ClassVar = True

    def native_id(self, market: Market) -> str:
        """``BTC_USDT``"""
        return f"{market.base}_{market.quote}"

    def streams(self, markets: Iterable[Market]) -> set[str]:
        """``trades.BTC_USDT.100ms`` and so on."""
        ids = [market.native_id for market in markets]
        return {name for one in ids for name in (f"trades.{one}.100ms", f"quote.{one}", f"book.{one}.100ms")}

    def stream(self, event: PublicEvent) -> str:
        """The channel."""
        match event:
            case TradeEvent():
                return f"trades.{event.native_id}.100ms"
            case QuoteEvent():
                return f"quote.{event.native_id}"
            case DepthEvent():
                return f"book.{event.native_id}.100ms"

    def payload(self, event: PublicEvent, skew_ms: int, flavour: str) -> Payload:
        """The event's JSON."""
        channel, time_ms = self.stream(event), event.time + skew_ms
        match event:
            case TradeEvent():
                data = (
                    f'[{{"trade_seq":{event.trade_id},"trade_id":"{event.trade_id}","timestamp":{time_ms},'
                    f'"tick_direction":0,"price":{event.price},"mark_price":{event.price},'
                    f'"instrument_name":"{event.native_id}","index_price":{event.price},'
                    f'"direction":"{"buy" if event.is_buy else "sell"}","amount":{event.amount}}}]'
                )
            case QuoteEvent():
                data = (
                    f'{{"timestamp":{time_ms},"instrument_name":"{event.native_id}",'
                    f'"best_bid_price":{event.bid_price},"best_bid_amount":{event.bid_amount},'
                    f'"best_ask_price":{event.ask_price},"best_ask_amount":{event.ask_amount}}}'
                )
            case DepthEvent():
                previous = f'"prev_change_id":{event.first_id - 1},'
                data = (
                    f'{{"type":"change","timestamp":{time_ms},{previous}"instrument_name":"{event.native_id}",'
                    f'"change_id":{event.last_id},"bids":{_changes(event.bids)},"asks":{_changes(event.asks)}}}'
                )
        return _notification(channel, data)

    def snapshot(self, state: BookState, stream: str, now_ms: int, flavour: str) -> Payload:
        """The whole book, every level."""
        data = (
            f'{{"type":"snapshot","timestamp":{now_ms},"instrument_name":"{state.native_id}",'
            f'"change_id":{state.update_id},"bids":{_changes(state.bids, "new")},"asks":{_changes(state.asks, "new")}}}'
        )
        return _notification(stream, data)

    def answer(self, session: Session, message: Payload, known: set[str]) -> Answer:
        """Subscribe and unsubscribe: the reply lists the channels that exist, and no others."""
        try:
            request = msgspec.json.decode(message, type=Request)
        except msgspec.DecodeError:
            return Answer((_reply(None, "error", _error(-32700, "Parse error", "not JSON-RPC")),))
        match request.method:
            case "public/subscribe" | "public/unsubscribe":
                channels = tuple(channel for channel in request.params.channels if channel in known)
                answer = Answer((_reply(request.id, "result", channels),))
                is_new = request.method == "public/subscribe"
                return answer._replace(subscribe=channels) if is_new else answer._replace(unsubscribe=channels)
            case "public/test":
                return Answer((_reply(request.id, "result", {"version": "1.2.26"}),))
        return Answer((_reply(request.id, "error", _error(-32601, "Method not found", request.method)),))

    def refusal(self, status: int) -> bytes:
        """Body of a refused request."""
        code, text = (10028, "too_many_requests") if status == 429 else (13009, "unavailable")
        return msgspec.json.encode({"jsonrpc": "2.0", "error": _error(code, text, "")})

    def routes(self) -> dict[tuple[str, str], Handler]:
        """What recorders and ccxt ask for."""
        return {
            ("GET", "/api/v2/public/get_time"): lambda call: _result(call.now_ms),
            ("GET", "/api/v2/public/get_currencies"): _currencies,
            ("GET", "/api/v2/public/get_instruments"): _instruments,
        }


WIRE = Deribit


def _notification(channel: str, data: str) -> str:
    return f'{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"{channel}","data":{data}}}}}'


def _changes(levels: list[Level], kind: str = "change") -> str:
    """What happened to each level, its price, its amount: ``["delete",60999.9,0]``."""
    parts = []
    for price, amount in levels:
        parts.append(f'["{kind}",{price},{amount}]' if amount.strip("0.") else f'["delete",{price},{amount}]')
    return "[" + ",".join(parts) + "]"


def _reply(request_id: int | str | None, key: str, value: object) -> str:
    reply = {"jsonrpc": "2.0", "id": request_id, key: value, "usIn": 0, "usOut": 1, "usDiff": 1, "testnet": False}
    return msgspec.json.encode(reply).decode()


def _error(code: int, message: str, reason: str) -> dict[str, object]:
    return {"message": message, "data": {"reason": reason}, "code": code}


def _result(result: object) -> Reply:
    return Reply(msgspec.json.encode({"jsonrpc": "2.0", "result": result, "testnet": False}))


def _currencies(call: Call) -> Reply:
    names = sorted({name for market in call.markets for name in (market.base, market.quote)})
    return _result([{"currency": name, "currency_long": name, "fee_precision": 4, "coin_type": name} for name in names])


def _instruments(call: Call) -> Reply:
    return _result(
        [
            {
                "kind": "spot",
                "instrument_name": market.native_id,
                "base_currency": market.base,
                "counter_currency": market.quote,
                "quote_currency": market.quote,
                "price_index": f"{market.base}_{market.quote}".lower(),
                "tick_size": float(market.price_tick),
                "tick_size_steps": [],
                "min_trade_amount": float(market.amount_step),
                "contract_size": float(market.amount_step),
                "taker_commission": 0.0,
                "maker_commission": 0.0,
                "is_active": True,
                "creation_timestamp": 1_680_000_000_000,
                "expiration_timestamp": 32_503_708_800_000,
            }
            for market in call.markets
        ]
    )
