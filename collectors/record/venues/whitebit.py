"""WhiteBIT as the recorder sees it.

Limits: https://docs.whitebit.com/websocket/rate-limits, read 2026-11: 1,000 connections a minute, 200 requests a minute
on a connection, which is closed when the client is silent for 60 s; ccxt sends a ping every 30 s. Each subscription to
trades names all markets of the connection anew. Depth: 1, 5, 10, 20, 30, 50 or 100 levels.
"""

from __future__ import annotations

from collectors.record.venues.contract import Venue, Watch

VENUE = Venue(
    exchange="whitebit",
    kinds=frozenset({"spot", "swap"}),
    watch={
        "trades": Watch(method="watch_trades", is_many=False),
        "book_events": Watch(method="watch_order_book", is_many=False, limit=100),
    },
    data_prefix=(
        '{"method":"trades_update"',
        '{"method":"depth_update"',
        '{"id":null,"method":"trades_update"',
        '{"id":null,"method":"depth_update"',
    ),
    ping="messages",
    symbols_per_connection=50,
    requests_per_second=2.0,
)
