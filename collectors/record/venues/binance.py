"""Binance spot.

Limits: the exchange's pages on WebSocket streams and REST limits, read 2026-11: a connection lives 24 hours, takes
1,024 streams and 5 requests a second; 6,000 of weight a minute and address, of which a book of 5,000 levels takes 250.
"""

from __future__ import annotations

from typing import Final

from collectors.record.venues.contract import Venue, Watch

VENUE: Final = Venue(
    exchange="binance",
    watch={
        "trades": Watch(method="watch_trades_for_symbols"),
        "quotes": Watch(method="watch_bids_asks"),
        "book_events": Watch(method="watch_order_book_for_symbols"),
    },
    config={"options": {"defaultType": "spot", "fetchMarkets": {"types": ["spot"]}}},
    data_prefix=('{"stream":"', '{"e":"', '{"u":'),
    symbols_per_connection=200,
    requests_per_second=3.0,
    snapshot_burst=8,
    snapshots_per_minute=14,
    lifetime_hours=24,
)
