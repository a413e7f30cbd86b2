"""Hyperliquid as the recorder sees it.

Limits: https://hyperliquid.gitbook.io/hyperliquid-docs/for-developers/api/rate-limits-and-user-limits; unchecked: an
address may hold 1,000 subscriptions, open 30 connections a minute and send 2,000 messages a minute. A connection on
which the client sent nothing for a minute is closed; ccxt sends a ping every 20 s.
"""

from __future__ import annotations

from collectors.record.venues.contract import Venue, Watch

VENUE = Venue(
    exchange="hyperliquid",
    kinds=frozenset({"spot", "swap"}),
    named={"swap": "baseName"},  # ccxt's id is the place in the exchange's list
    watch={
        "trades": Watch(method="watch_trades", is_many=False),
        "book_events": Watch(method="watch_order_book", is_many=False),
        "derivatives": Watch(method="watch_ticker", is_many=False),
    },
    data_prefix=('{"channel":"trades"', '{"channel":"l2Book"', '{"channel":"activeAssetCtx"'),
    acknowledges="symbol",
    ping="messages",
    symbols_per_connection=100,
    requests_per_second=10.0,
)
