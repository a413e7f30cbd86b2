"""Bitstamp as the recorder sees it.

Limits: https://www.bitstamp.net/api/#section/Response-codes, read 2026-11: 400 requests a second, 10,000 in 10 minutes;
https://www.bitstamp.net/websocket/v2/: a connection lives 90 days, bts:request_reconnect asks to dial anew earlier.
"""

from __future__ import annotations

from typing import Final

from collectors.record.venues.contract import Venue, Watch

VENUE: Final = Venue(
    exchange="bitstamp",
    kinds=frozenset({"spot", "swap"}),
    watch={
        "trades": Watch(method="watch_trades", is_many=False),
        "book_events": Watch(method="watch_order_book", is_many=False),
        "derivatives": Watch(method="watch_funding_rate", is_many=False),
    },
    data_prefix='{"data":{"timestamp"',
    acknowledges="symbol",
    ping="protocol",
    symbols_per_connection=50,
    requests_per_second=10.0,
    snapshot_burst=10,
    snapshots_per_minute=120.0,
    lifetime_hours=80 * 24.0,
)
