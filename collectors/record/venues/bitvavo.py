"""Bitvavo as the recorder sees it.

Limits: https://docs.bitvavo.com/docs/rate-limits, read 2026-11: 1,000 weight points a minute and address for REST, a
book weighs 1; 5,000 messages a second on a connection.
"""

from __future__ import annotations

from typing import Final

from collectors.record.venues.contract import Venue, Watch

VENUE: Final = Venue(
    exchange="bitvavo",
    watch={
        "trades": Watch(method="watch_trades_for_symbols"),
        "book_events": Watch(method="watch_order_book_for_symbols"),
    },
    data_prefix=('{"event":"book","market"', '{"event":"trade"'),
    acknowledges="request",
    ping="protocol",
    symbols_per_connection=100,
    requests_per_second=4.0,
    snapshot_burst=20,
    snapshots_per_minute=300.0,
)
