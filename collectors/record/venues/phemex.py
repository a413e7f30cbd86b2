"""Phemex as the recorder sees it. Limits: https://phemex-docs.github.io/ (hedged contract WebSocket); unchecked."""

from __future__ import annotations

from typing import Final

from collectors.record.venues.contract import Venue, Watch

VENUE: Final = Venue(
    exchange="phemex",
    # Settled in USDT only: of spot and the others ccxt subscribes to streams of scaled integers, which are not decoded.
    kinds=frozenset({"swap"}),
    watch={
        "trades": Watch(method="watch_trades", is_many=False),
        "book_events": Watch(method="watch_order_book", is_many=False),
        "derivatives": Watch(method="watch_tickers"),  # all contracts at once
    },
    ping="messages",  # {"method":"server.ping"} within 30 s, {"result":"pong"}
    symbols_per_connection=10,  # 20 subscriptions a connection
    requests_per_second=5,  # 20 a second and connection
)
