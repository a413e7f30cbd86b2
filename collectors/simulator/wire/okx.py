"""OKX's wire format, spot: subscriptions by channel and instrument, books that open with a whole book.

Wire: https://www.okx.com/docs-v5/en (WebSocket: trades-all, bbo-tbt, books; REST: public/instruments), read 2026-11.
The engine's update ids serve as ``seqId``; ``prevSeqId`` is the ``seqId`` of the message before, -1 in a whole book.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import ClassVar

import msgspec

from collectors.simulator.engine import BookState, DepthEvent, Level, PublicEvent, QuoteEvent, TradeEvent
from collectors.simulator.market import Market
from collectors.simulator.wire.contract import Answer, Call, Handler, Payload, Reply, Session, Wire, json_pairs

_TAIL = ',"0","1"'
MAX_TRADES = 100
"""Most trades of a reply."""
CHANNELS = ("trades-all", "bbo-tbt", "books")


class Arg(msgspec.Struct):
    """What is subscribed to."""

    channel: str
    instId: str = ""  # noqa: N815 - the wire's own name


class Request(msgspec.Struct):
    """A client's request over its WebSocket."""

    op: str
    args: list[Arg]
    id: str | int | None = None


class Okx(Wire):
    """OKX spot; trades come from the business address, the rest from the public one."""

    exchange: ClassVar = "okx"
    paths: ClassVar = ("/ws/v5/public", "/ws/v5/business")
    depth: ClassVar = 400
    sends_snapshots: ClassVar = True

    def native_id(self, market: Market) -> str:
        """``BTC-USDT``"""
        return f"{market.base}-{market.quote}"

    def streams(self, markets: Iterable[Market]) -> set[str]:
        """``books:BTC-USDT`` and so on."""
        return {f"{channel}:{market.native_id}" for market in markets for channel in CHANNELS}

    def stream(self, event: PublicEvent) -> str:
        """Channel and instrument."""
        match event:
            case TradeEvent():
                return f"trades-all:{event.native_id}"
            case QuoteEvent():
                return f"bbo-tbt:{event.native_id}"
            case DepthEvent():
                return f"books:{event.native_id}"

    def payload(self, event: PublicEvent, skew_ms: int, flavour: str) -> Payload:
        """The event's JSON."""
        match event:
            case TradeEvent():
                data = (
                    f'{{"instId":"{event.native_id}","tradeId":"{event.trade_id}","px":"{event.price}",'
                    f'"sz":"{event.amount}","side":"{"buy" if event.is_buy else "sell"}",'
                    f'"ts":"{event.time + skew_ms}","source":"0"}}'
                )
                return f'{{"arg":{_arg("trades-all", event.native_id)},"data":[{data}]}}'
            case QuoteEvent():
                data = (
                    f'{{"asks":[["{event.ask_price}","{event.ask_amount}","0","1"]],'
                    f'"bids":[["{event.bid_price}","{event.bid_amount}","0","1"]],'
                    f'"ts":"{event.time + skew_ms}","seqId":{event.update_id}}}'
                )
                return f'{{"arg":{_arg("bbo-tbt", event.native_id)},"data":[{data}]}}'
            case DepthEvent():
                return _book(
                    event.native_id,
                    "update",
                    event.bids,
                    event.asks,
                    event.time + skew_ms,
                    event.first_id - 1,
                    event.last_id,
                )

    def snapshot(self, state: BookState, stream: str, now_ms: int, flavour: str) -> Payload:
        """The whole book, 400 levels a side."""
        return _book(state.native_id, "snapshot", state.bids, state.asks, now_ms, -1, state.update_id)

    def answer(self, session: Session, message: Payload, known: set[str]) -> Answer:
        """Text ``ping``, subscribe and unsubscribe; each subscription is acknowledged alone."""
        if message == "ping":
            return Answer(("pong",))
        try:
            request = msgspec.json.decode(message, type=Request)
        except msgspec.DecodeError:
            return Answer((_error("60012", "Invalid request"),))
        if request.op not in ("subscribe", "unsubscribe"):
            return Answer((_error("60012", f"Invalid request: op {request.op}"),))
        replies, streams = [], []
        for arg in request.args:
            stream = f"{arg.channel}:{arg.instId}"
            if stream in known:
                streams.append(stream)
                replies.append(f'{{"event":"{request.op}","arg":{_arg(arg.channel, arg.instId)},"connId":"a4d3ae55"}}')
            else:
                text = f"Wrong URL or channel:{arg.channel},instId:{arg.instId} doesn't exist."
                replies.append(_error("60018", text))
        if request.op == "subscribe":
            return Answer(tuple(replies), subscribe=tuple(streams))
        return Answer(tuple(replies), unsubscribe=tuple(streams))

    def refusal(self, status: int) -> bytes:
        """Body of a refused request."""
        return (
            b'{"code":"50011","data":[],"msg":"Too Many Requests"}' if status == 429 else b'{"code":"50001","msg":""}'
        )

    def routes(self) -> dict[tuple[str, str], Handler]:
        """What recorders and ccxt ask for."""
        return {
            ("GET", "/api/v5/public/time"): lambda call: Reply(
                b'{"code":"0","msg":"","data":[{"ts":"%d"}]}' % call.now_ms
            ),
            ("GET", "/api/v5/public/instruments"): _instruments,
            ("GET", "/api/v5/market/history-trades"): _history,
        }


WIRE = Okx


def _arg(channel: str, native_id: str) -> str:
    return f'{{"channel":"{channel}","instId":"{native_id}"}}'


def _book(  # noqa: PLR0917
    native_id: str, action: str, bids: list[Level], asks: list[Level], time_ms: int, previous: int, last: int
) -> str:
    return (
        f'{{"arg":{_arg("books", native_id)},"action":"{action}","data":[{{"asks":{json_pairs(asks, _TAIL)},'
        f'"bids":{json_pairs(bids, _TAIL)},"ts":"{time_ms}","checksum":0,"seqId":{last},"prevSeqId":{previous}}}]}}'
    )


def _error(code: str, text: str) -> str:
    return msgspec.json.encode({"event": "error", "code": code, "msg": text, "connId": "a4d3ae55"}).decode()


def _history(call: Call) -> Reply:
    """The trades before the id ``after``, the newest first."""
    native_id, limit, after = (call.query.get(name) for name in ("instId", "limit", "after"))
    if native_id not in {market.native_id for market in call.markets}:
        return Reply(b'{"code":"51001","data":[],"msg":"Instrument ID does not exist"}')
    if not (limit or "1").isdigit() or not (after or "1").isdigit():
        return Reply(b'{"code":"51000","data":[],"msg":"Parameter limit or after error"}')
    known = call.history(native_id)
    older = (trade for trade in reversed(known) if not after or trade.trade_id < int(after))
    data = [
        {
            "instId": native_id,
            "side": "buy" if trade.is_buy else "sell",
            "sz": trade.amount,
            "source": "0",
            "px": trade.price,
            "tradeId": str(trade.trade_id),
            "ts": str(trade.time),
        }
        for trade in islice(older, min(int(limit or MAX_TRADES), MAX_TRADES))
    ]
    return Reply(msgspec.json.encode({"code": "0", "msg": "", "data": data}))


def _instruments(call: Call) -> Reply:
    """Spot only: other types have no instrument here."""
    markets = call.markets if call.query.get("instType") == "SPOT" else []
    data = [
        {
            "instType": "SPOT",
            "instId": market.native_id,
            "baseCcy": market.base,
            "quoteCcy": market.quote,
            "tickSz": market.price_tick,
            "lotSz": market.amount_step,
            "minSz": market.amount_step,
            "state": "live",
            "listTime": "1548133413000",
            "lever": "1",
            "ctVal": "",
            "ctMult": "",
            "ctValCcy": "",
            "ctType": "",
            "settleCcy": "",
            "uly": "",
            "stk": "",
            "optType": "",
            "expTime": "",
            "alias": "",
            "category": "1",
        }
        for market in markets
    ]
    return Reply(msgspec.json.encode({"code": "0", "msg": "", "data": data}))
