"""HitBTC as the recorder sees it.

Limits: https://api.hitbtc.com/#rate-limiting; not checked there: figures are given for requests alone (20 a second for
market data); none for subscriptions, so that the figures below are chosen well beneath.
"""

from __future__ import annotations

from collectors.record.venues.contract import Venue, Watch

VENUE = Venue(
    exchange="hitbtc",
    kinds=frozenset({"spot", "swap"}),
    watch={
        "trades": Watch(method="watch_trades", is_many=False),
        "quotes": Watch(method="watch_bids_asks", params={"method": "orderbook/top/{speed}", "speed": "100ms"}),
        "book_events": Watch(method="watch_order_book", is_many=False, params={"method": "orderbook/full"}),
    },
    data_prefix='{"ch":"',
    symbols_per_connection=50,
    requests_per_second=5.0,
)
