"""KuCoin futures as the recorder sees it.

Limits: https://www.kucoin.com/docs-new/rate-limit and .../websocket-api/base-info/introduction; not checked there.
"""

from __future__ import annotations

from typing import Final

from collectors.record.venues.contract import Venue, Watch

VENUE: Final = Venue(
    exchange="kucoinfutures",
    kinds=frozenset({"swap", "future"}),
    watch={
        "trades": Watch(method="watch_trades_for_symbols"),
        "quotes": Watch(method="watch_bids_asks"),  # at most 100 symbols a call
        "book_events": Watch(method="watch_order_book_for_symbols"),
        # On a connection of its own (Pro API). watch_funding_rate of the same adds funding-fee, which is decoded too.
        "derivatives": Watch(method="watch_mark_price", is_many=False),
    },
    data_prefix='{"topic":"',
    ping="messages",  # {"type":"ping"} within the welcome's pingInterval, {"type":"pong"}
    symbols_per_connection=100,  # 400 topics a connection
    requests_per_second=5,  # 100 messages in 10 s
    snapshot_burst=4,
    snapshots_per_minute=60,  # weight 3 of 2,000 in 30 s and address
    lifetime_hours=24,  # of the token
)
