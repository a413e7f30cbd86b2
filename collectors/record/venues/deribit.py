"""Deribit as the recorder sees it. Limits: https://docs.deribit.com/articles/rate-limits; not checked there."""

from __future__ import annotations

from typing import Final

from collectors.record.venues.contract import Venue, Watch

VENUE: Final = Venue(
    exchange="deribit",
    kinds=frozenset({"spot", "swap", "future", "option"}),
    watch={
        "trades": Watch(method="watch_trades_for_symbols", params={"interval": "100ms"}),
        "quotes": Watch(method="watch_bids_asks"),
        "book_events": Watch(method="watch_order_book_for_symbols", params={"interval": "100ms"}),
        "derivatives": Watch(method="watch_tickers", params={"interval": "100ms"}),
        "liquidations": Watch(method="watch_trades_for_symbols", params={"interval": "100ms"}),  # marks on trades
    },
    data_prefix='{"jsonrpc":"2.0","method":"subscription"',
    symbols_per_connection=250,  # 500 channels and 32 KiB a request, 32 connections an address
    requests_per_second=2.0,
)
