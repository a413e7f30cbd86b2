"""Gemini as the recorder sees it.

What is subscribed to stands in the URL: one connection for the trades of a list of symbols, one for their books.
Nothing is sent, nothing acknowledged. Limits: https://docs.gemini.com/websocket-api/#rate-limits, read 2026-11: one new
connection a minute and symbol. Heartbeats come every 5 s.
"""

from __future__ import annotations

from typing import Final

from collectors.record.venues.contract import Venue, Watch

VENUE: Final = Venue(
    exchange="gemini",
    kinds=frozenset({"spot", "swap"}),
    watch={
        "trades": Watch(method="watch_trades_for_symbols"),
        "book_events": Watch(method="watch_order_book_for_symbols"),
    },
    acknowledges="no",
    ping="protocol",
    symbols_per_connection=25,
    requests_per_second=0.5,
)
