"""cryptofeed's own handling of frames, without a socket: ``python peer_cryptofeed.py FRAMES``, in a venv of its own.

It subscribes to aggregated trades, so trade frames are renamed to those; the work is the same. Prints JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from decimal import Decimal
from importlib.metadata import version
from typing import Any

from cryptofeed.defines import BINANCE, L2_BOOK, TICKER, TRADES
from cryptofeed.exchanges import Binance
from cryptofeed.symbols import Symbols
from cryptofeed.types import OrderBook


async def main(path: str) -> None:
    Symbols.set(BINANCE, {"BTC-USDT": "BTCUSDT"}, {"tick_size": {}, "instrument_type": {"BTC-USDT": "spot"}})
    seen = {"trades": 0, "quotes": 0, "book_events": 0}
    last: dict[str, Any] = {}

    def counting(channel: str) -> Any:
        async def callback(update: Any, _: float) -> None:
            seen[channel] += 1
            last[channel] = update

        return callback

    feed: Any = Binance(
        symbols=["BTC-USDT"],
        channels=[TRADES, TICKER, L2_BOOK],
        callbacks={TRADES: counting("trades"), TICKER: counting("quotes"), L2_BOOK: counting("book_events")},
    )
    frames: dict[str, list[str]] = {channel: [] for channel in seen}
    with open(path) as file:  # noqa: ASYNC230, PTH123
        for line in file:
            payload = line.rstrip("\n").split(" ", 1)[1]
            if '@trade"' in payload:
                renamed = payload.replace("@trade", "@aggTrade").replace('"e":"trade"', '"e":"aggTrade"')
                frames["trades"].append(renamed.replace('"t":', '"a":'))
            else:
                frames["quotes" if '@bookTicker"' in payload else "book_events"].append(payload)
    first = json.loads(frames["book_events"][0])["data"]
    feed.last_update_id["BTC-USDT"] = first["U"] - 1
    feed._l2_book["BTC-USDT"] = OrderBook(
        BINANCE, "BTC-USDT", bids={Decimal(1): Decimal(1)}, asks={Decimal(10**9): Decimal(1)}
    )
    spent = dict.fromkeys(seen, 0.0)
    for channel, payloads in frames.items():
        begun = time.process_time()
        for payload in payloads:
            await feed.message_handler(payload, None, 1.0)
        spent[channel] = time.process_time() - begun
    # Results before speed: every frame was called back, and the last is the last.
    assert seen == {channel: len(payloads) for channel, payloads in frames.items()}, seen
    assert last["trades"].id == str(json.loads(frames["trades"][-1])["data"]["a"])
    assert feed.last_update_id["BTC-USDT"] == json.loads(frames["book_events"][-1])["data"]["u"]
    print(json.dumps({"frames": seen, "cpu": spent, "version": version("cryptofeed")}))


asyncio.run(main(sys.argv[1]))
