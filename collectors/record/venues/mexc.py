"""MEXC as the recorder sees it.

Limits: https://www.mexc.com/api-docs/spot-v3/websocket-market-streams and .../spot-v3/general-info; not checked there.
"""

from __future__ import annotations

from typing import Final

from collectors.record.venues.contract import Venue, Watch

VENUE: Final = Venue(
    exchange="mexc",
    kinds=frozenset({"spot", "swap"}),
    watch={
        "trades": Watch(method="watch_trades", is_many=False),
        "quotes": Watch(method="watch_bids_asks"),  # spot only: the ticker of contracts has no amounts
        "book_events": Watch(method="watch_order_book", is_many=False, params={"frequency": "10ms"}),  # the finest
        # Contracts only. watch_funding_rate subscribes to push.funding.rate, which is decoded too.
        "derivatives": Watch(method="watch_ticker", is_many=False),
    },
    ping="messages",  # {"method":"ping"}, PONG; a minute without a message ends the connection
    symbols_per_connection=10,  # 30 streams a connection, three channels of each symbol
    requests_per_second=10,  # 100 a second and address
    snapshot_burst=4,
    snapshots_per_minute=120,  # weight 1 of 500 in 10 s; of contracts 20 in 2 s
    lifetime_hours=24,
)
