"""Poloniex spot as the recorder sees it.

Limits: https://api-docs.poloniex.com/spot/websocket/, read 2026-11: an address may hold 2,000 connections to public
channels and subscribe 500 times a second. A connection without a message of the client for 30 s is closed; ccxt sends
a ping every 15 s.
"""

from __future__ import annotations

from collectors.record.venues.contract import Venue, Watch

VENUE = Venue(
    exchange="poloniex",
    watch={
        "trades": Watch(method="watch_trades_for_symbols"),
        "book_events": Watch(method="watch_order_book", is_many=False),
    },
    config={"options": {"watchOrderBook": {"name": "book_lv2"}}},
    data_prefix=('{"channel":"trades","data":', '{"channel":"book_lv2","data":'),
    ping="messages",
    symbols_per_connection=100,
    requests_per_second=20.0,
)
