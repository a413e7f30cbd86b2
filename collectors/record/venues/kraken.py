"""Kraken spot as the recorder sees it.

Limits: https://support.kraken.com/articles/206548367 and https://docs.kraken.com/api/docs/guides/spot-ws-intro, read
2026-11: about 150 connections in ten minutes and address; heartbeats come once a second where nothing else does.
"""

from __future__ import annotations

from typing import Final

from collectors.record.venues.contract import Venue, Watch

VENUE: Final = Venue(
    exchange="kraken",
    watch={
        "trades": Watch(method="watch_trades_for_symbols"),
        "quotes": Watch(method="watch_bids_asks"),
        "book_events": Watch(method="watch_order_book_for_symbols", limit=1000),
    },
    named={"spot": "symbol"},  # ccxt's id is REST's, XXBTZUSD; frames say BTC/USD
    data_prefix=('{"channel":"book"', '{"channel":"trade"', '{"channel":"ticker"'),
    acknowledges="symbol",
    ping="messages",
    symbols_per_connection=50,
    requests_per_second=4.0,
)
