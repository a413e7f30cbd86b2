"""KuCoin spot as the recorder sees it.

Limits: https://www.kucoin.com/docs-new/rate-limit and .../websocket-api/base-info/introduction; not checked there.
"""

from __future__ import annotations

from typing import Final

from collectors.record.venues.contract import Venue, Watch

VENUE: Final = Venue(
    exchange="kucoin",
    kinds=frozenset({"spot"}),
    watch={
        "trades": Watch(method="watch_trades_for_symbols"),
        "quotes": Watch(method="watch_bids_asks"),  # at most 100 symbols a call
        "book_events": Watch(method="watch_order_book_for_symbols"),
    },
    config={"options": {"fetchMarkets": {"types": ["spot"], "fetchTickersFees": False}}},
    data_prefix='{"topic":"',
    ping="messages",  # {"type":"ping"} within the welcome's pingInterval, {"type":"pong"}
    symbols_per_connection=100,  # 400 topics a connection, three channels of each symbol
    requests_per_second=5,  # 100 messages in 10 s
    snapshot_burst=8,
    snapshots_per_minute=120,  # weight 2 of 2,000 in 30 s and address
    lifetime_hours=24,  # of the token
)
