"""dYdX v4 as the recorder sees it.

Limits: https://docs.dydx.xyz/indexer-client/websockets, read 2026-11: 32 subscriptions a channel and connection, 2
requests a second. The exchange sends WebSocket pings every 30 s and closes where no pong follows within 10 s.
"""

from __future__ import annotations

from collectors.record.venues.contract import Venue, Watch

VENUE = Venue(
    exchange="dydx",
    kinds=frozenset({"swap"}),
    watch={
        "trades": Watch(method="watch_trades", is_many=False),
        "book_events": Watch(method="watch_order_book", is_many=False),
    },
    data_prefix=('{"type":"channel_data"', '{"type":"channel_batch_data"'),
    acknowledges="symbol",
    symbols_per_connection=30,
    requests_per_second=1.5,
)
