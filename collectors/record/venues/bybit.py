"""Bybit as the recorder sees it. Limits: https://bybit-exchange.github.io/docs/v5/ws/connect; in part unchecked."""

from __future__ import annotations

from typing import Final

from collectors.record.venues.contract import Venue, Watch

VENUE: Final = Venue(
    exchange="bybit",
    # Spot and inverse contracts have addresses of their own, and spot the same texts as linear contracts: frames do not
    # tell which they are of. They follow when the universe gives them texts of their own.
    kinds=frozenset({"swap", "future"}),
    watch={
        "trades": Watch(method="watch_trades_for_symbols"),
        "quotes": Watch(method="watch_bids_asks"),
        "book_events": Watch(method="watch_order_book_for_symbols", limit=1000),
        "derivatives": Watch(method="watch_tickers"),
        "liquidations": Watch(method="watch_liquidations", is_many=False),
    },
    config={"options": {"fetchMarkets": {"types": ["linear"]}}},
    data_prefix='{"topic":"',
    ping="messages",  # op ping each 20 s, answered
    symbols_per_connection=100,  # 21,000 characters of topics a connection, 500 new connections in 5 minutes
    requests_per_second=2.0,
)
