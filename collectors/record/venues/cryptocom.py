"""Crypto.com Exchange as the recorder sees it.

Limits: https://exchange-docs.crypto.com/exchange/v1/rest-ws/index.html#rate-limits; not checked there: 100 requests of
market data a second and connection.
"""

from __future__ import annotations

from typing import Final

from collectors.record.venues.contract import Venue, Watch

VENUE: Final = Venue(
    exchange="cryptocom",
    kinds=frozenset({"spot", "swap", "future"}),
    watch={
        "trades": Watch(method="watch_trades_for_symbols"),
        "quotes": Watch(method="watch_bids_asks"),
        "book_events": Watch(
            method="watch_order_book_for_symbols",
            limit=50,
            # ccxt writes bookSubscriptionType, unknown to the exchange, which then sends whole books every 500 ms.
            params={"params": {"book_subscription_type": "SNAPSHOT_AND_UPDATE", "book_update_frequency": 10}},
        ),
        "derivatives": Watch(method="watch_tickers"),
    },
    data_prefix='{"id":-1,"method":"subscribe","code":0,"result":{',
    acknowledges="no",  # the first data, sent at once, is the answer
    ping="messages",  # public/heartbeat every 30 s, to be answered within 5
    symbols_per_connection=100,
    requests_per_second=5.0,
)
