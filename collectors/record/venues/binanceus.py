"""Binance US as the recorder sees it.

Limits: https://docs.binance.us/#rate-limits; not checked there: a connection lives 24 hours, takes 1,024 streams and 5
requests a second; 1,200 of weight a minute and address, of which a book of 5,000 levels takes 50.
"""

from __future__ import annotations

from typing import Final

from collectors.record.venues.contract import Venue, Watch

VENUE: Final = Venue(
    exchange="binanceus",
    watch={
        "trades": Watch(method="watch_trades_for_symbols"),
        "quotes": Watch(method="watch_bids_asks"),
        "book_events": Watch(method="watch_order_book_for_symbols"),
    },
    config={"options": {"defaultType": "spot", "fetchMarkets": {"types": ["spot"]}}},
    data_prefix=('{"stream":"', '{"e":"', '{"u":'),
    symbols_per_connection=200,  # ccxt takes no more in a call
    requests_per_second=3.0,
    snapshot_burst=5,
    snapshots_per_minute=12,
    lifetime_hours=24,
)
