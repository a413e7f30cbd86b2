"""ccxt's own handling of frames, without a socket: ``python peer_ccxt.py FRAMES``, in a venv of its own.

Prints JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import ccxt.pro
from ccxt.async_support.base.ws.client import json_parser

MARKET = {
    "id": "BTCUSDT",
    "symbol": "BTC/USDT",
    "base": "BTC",
    "quote": "USDT",
    "baseId": "BTC",
    "quoteId": "USDT",
    "type": "spot",
    "spot": True,
    "swap": False,
    "future": False,
    "option": False,
    "margin": False,
    "contract": False,
    "linear": None,
    "inverse": None,
    "active": True,
    "precision": {"price": 0.01, "amount": 0.00001},
    "limits": {"amount": {}, "price": {}, "cost": {}},
}


async def main(path: str) -> None:
    exchange: Any = ccxt.pro.binance({"options": {"defaultType": "spot"}})
    exchange.set_markets([MARKET])
    client = exchange.client("wss://stream.binance.com:9443/stream/ws")
    handled = {"trades": 0, "quotes": 0, "book_events": 0}
    spent = dict.fromkeys(handled, 0.0)
    frames: dict[str, list[str]] = {channel: [] for channel in handled}
    with open(path) as file:  # noqa: ASYNC230, PTH123
        for line in file:
            payload = line.rstrip("\n").split(" ", 1)[1]
            channel = "trades" if '@trade"' in payload else "quotes" if '@bookTicker"' in payload else "book_events"
            frames[channel].append(payload)
    first = json.loads(frames["book_events"][0])["data"]
    book = exchange.order_book({})
    book.reset({"bids": [], "asks": [], "nonce": first["U"] - 1, "symbol": "BTC/USDT"})
    book["symbol"], book["nonce"] = "BTC/USDT", first["U"] - 1
    exchange.orderbooks["BTC/USDT"] = book
    for channel, payloads in frames.items():
        begun = time.process_time()
        for payload in payloads:
            exchange.handle_message(client, json_parser.loads(payload))
        spent[channel] = time.process_time() - begun
        handled[channel] = len(payloads)
    # Results before speed: the last trade, the last quote and the book's last id are those of the last frames.
    last = {channel: json.loads(payloads[-1])["data"] for channel, payloads in frames.items()}
    assert exchange.trades["BTC/USDT"][-1]["id"] == str(last["trades"]["t"])
    assert str(exchange.bidsasks["BTC/USDT"]["bid"]) == str(float(last["quotes"]["b"]))
    assert exchange.orderbooks["BTC/USDT"]["nonce"] == last["book_events"]["u"]
    await exchange.close()
    print(json.dumps({"frames": handled, "cpu": spent, "version": ccxt.__version__}))


asyncio.run(main(sys.argv[1]))
