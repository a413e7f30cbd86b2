"""Bithumb as the recorder sees it.

Limits: https://apidocs.bithumb.com/reference (WebSocket, basic information), read 2026-11: an address may open 10
connections a second. ccxt asks for one symbol at a time, and no page says that a second request adds to the first: at
Upbit, whose protocol this is, it replaces it. So each connection carries one symbol.
"""

from __future__ import annotations

from collectors.record.venues.contract import Venue, Watch

VENUE = Venue(
    exchange="bithumb",
    watch={
        "trades": Watch(method="watch_trades", is_many=False, params={"generation": 2}),
        "book_events": Watch(method="watch_order_book", is_many=False, params={"generation": 2}),
    },
    data_prefix=('{"type":"trade"', '{"type":"orderbook"'),
    acknowledges="no",
    symbols_per_connection=1,
    requests_per_second=4.0,
)
