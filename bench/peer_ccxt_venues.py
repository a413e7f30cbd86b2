"""ccxt's handlers of many exchanges, without a socket: ``python peer_ccxt_venues.py FRAMES SECONDS``, in its own venv.

FRAMES is what bench.decode wrote. Prints JSON: frames per CPU-second by venue and channel, and why there is none: where
a handler needs more of a connection than can be made up here, or leaves no trace of the frame, it is not compared.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import zlib
from base64 import b64decode
from pathlib import Path
from typing import Any

import ccxt.pro
from ccxt.async_support.base.ws.client import json_parser

BATCH = 50
QUOTES = {"hyperliquid": "USDC"}  # its handlers build the symbol with it


def market(native_id: str, quote: str, is_swap: bool) -> dict[str, Any]:
    return {
        "id": native_id,
        "lowercaseId": native_id.lower(),
        "symbol": f"BTC/{quote}:{quote}" if is_swap else f"BTC/{quote}",
        "base": "BTC",
        "quote": quote,
        "settle": quote if is_swap else None,
        "baseId": "BTC",
        "quoteId": quote,
        "settleId": quote if is_swap else None,
        "type": "swap" if is_swap else "spot",
        "spot": not is_swap,
        "swap": is_swap,
        "future": False,
        "option": False,
        "margin": False,
        "contract": is_swap,
        "linear": True if is_swap else None,
        "inverse": False if is_swap else None,
        "contractSize": 1.0 if is_swap else None,
        "active": True,
        "precision": {"price": 0.01, "amount": 0.00001},
        "limits": {"amount": {}, "price": {}, "cost": {}},
        "info": {},
    }


def trace(exchange: Any, channel: str) -> Any:
    """What a handled frame leaves behind; None where there is nothing."""
    if channel == "trades":
        return sum(len(cache) for cache in exchange.trades.values()) or None
    return sum(len(book["bids"]) + len(book["asks"]) for book in exchange.orderbooks.values()) or None


async def rate(one: dict[str, Any], seconds: float) -> tuple[float | None, str]:
    kind = getattr(ccxt.pro, one["exchange"], None)
    if kind is None:
        return None, "ccxt.pro has no such exchange"
    exchange = kind()
    try:
        exchange.set_markets([market(one["native_id"], QUOTES.get(one["exchange"], "USDT"), one["is_derivative"])])
        client = exchange.client("wss://localhost/ws")
        payload = b64decode(one["payload"])
        is_packed = payload[:2] == b"\x1f\x8b"

        def handle() -> None:
            text = zlib.decompress(payload, 47) if is_packed else payload
            exchange.handle_message(client, json_parser.loads(text))

        if one["channel"] == "book_events":
            for symbol in exchange.symbols:
                exchange.orderbooks[symbol] = exchange.order_book({})
        handle()
        if trace(exchange, one["channel"]) is None:
            return None, "its handler leaves no trace of the frame"
        count, begun = 0, time.process_time()
        while (spent := time.process_time() - begun) < seconds:
            for _ in range(BATCH):
                handle()
            count += BATCH
    except Exception as error:  # noqa: BLE001  whatever it lacks, it cannot be compared
        return None, f"{type(error).__name__}: {error}"[:120]
    else:
        return count / spent, ""
    finally:
        await exchange.close()


async def main(path: str, seconds: str) -> None:
    asked = json.loads(Path(path).read_text())  # noqa: ASYNC240
    found = {one["name"]: await rate(one, float(seconds)) for one in asked}
    rates = {name: found_rate for name, (found_rate, _) in found.items()}
    reasons = {name: reason for name, (_, reason) in found.items() if reason}
    print(json.dumps({"rates": rates, "reasons": reasons, "version": ccxt.__version__}))


asyncio.run(main(*sys.argv[1:]))
