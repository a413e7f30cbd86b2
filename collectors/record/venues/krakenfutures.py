"""Kraken Futures as the recorder sees it.

Limits: https://docs.kraken.com/api/docs/guides/futures-websockets, read 2026-11: 100 connections, 100 requests a
second; a connection must ping at least once a minute.
"""

from __future__ import annotations

from typing import Final

from collectors.record.venues.contract import Venue, Watch

VENUE: Final = Venue(
    exchange="krakenfutures",
    kinds=frozenset({"swap", "future"}),
    watch={
        "trades": Watch(method="watch_trades_for_symbols"),
        "book_events": Watch(method="watch_order_book_for_symbols"),
        "derivatives": Watch(method="watch_tickers"),
        "liquidations": Watch(method="watch_trades_for_symbols"),  # the same stream: ccxt asks for it once
    },
    data_prefix=(
        '{"feed":"book",',
        '{"feed":"trade",',
        '{"feed":"ticker",',
        '{"feed":"book_snapshot",',
        '{"feed":"trade_snapshot",',
    ),
    acknowledges="symbol",
    ping="protocol",
    symbols_per_connection=50,
    requests_per_second=10.0,
)
