"""Upbit as the recorder sees it.

Limits: https://docs.upbit.com/kr/reference/rate-limits, read 2026-11: 5 connections a second, 5 requests a second and
100 a minute on a connection. Each request replaces the one before it; ccxt repeats what the connection has. A
connection silent for 120 s is closed; WebSocket pings are answered.
"""

from __future__ import annotations

from collectors.record.venues.contract import Venue, Watch

VENUE = Venue(
    exchange="upbit",
    watch={
        "trades": Watch(method="watch_trades_for_symbols"),
        "book_events": Watch(method="watch_order_book", is_many=False),
    },
    data_prefix=('{"type":"trade"', '{"type":"orderbook"'),
    acknowledges="no",
    symbols_per_connection=50,
    requests_per_second=1.5,
)
