"""Binance COIN-M futures as the recorder sees them.

Limits: https://developers.binance.com/docs/derivatives/coin-margined-futures (WebSocket market streams; general info on
REST limits), read 2026-11: a connection lives 24 hours, takes 1,024 streams and 10 requests a second; 2,400 of weight a
minute and address, of which a book of 1,000 levels takes 20.
"""

from __future__ import annotations

from typing import Final

from collectors.record.venues.contract import Venue, Watch

VENUE: Final = Venue(
    exchange="binancecoinm",
    kinds=frozenset({"swap", "future"}),
    watch={
        "trades": Watch(method="watch_trades_for_symbols", params={"name": "trade"}),
        "quotes": Watch(method="watch_bids_asks"),
        "book_events": Watch(method="watch_order_book_for_symbols"),
        "derivatives": Watch(method="watch_mark_prices"),
        "liquidations": Watch(method="watch_liquidations_for_symbols"),
    },
    data_prefix=('{"e":"', '{"stream":"'),
    symbols_per_connection=200,  # ccxt takes no more in a call
    requests_per_second=5.0,
    snapshot_burst=10,
    snapshots_per_minute=60,
    lifetime_hours=24,
)
