"""OKX as the recorder sees it. Limits: https://www.okx.com/docs-v5/en/#overview-websocket; in part unchecked."""

from __future__ import annotations

from typing import Final

from collectors.record.venues.contract import Venue, Watch

VENUE: Final = Venue(
    exchange="okx",
    kinds=frozenset({"spot", "swap", "future"}),
    watch={
        # Each fill alone. ccxt logs in before it subscribes to this one; the exchange asks for no login.
        "trades": Watch(method="watch_trades_for_symbols", params={"channel": "trades-all"}),
        "quotes": Watch(method="watch_bids_asks", params={"channel": "bbo-tbt"}),
        "book_events": Watch(method="watch_order_book_for_symbols", limit=400, params={"depth": "books"}),
        # The same call takes {"channel": "open-interest"} as well; watch_funding_rates subscribes to funding-rate.
        "derivatives": Watch(method="watch_mark_prices"),
        "liquidations": Watch(method="watch_liquidations_for_symbols"),  # of all instruments of a type at once
    },
    data_prefix='{"arg":',
    acknowledges="symbol",
    ping="messages",  # text ping within 30 s of silence, text pong
    symbols_per_connection=100,  # 64 KiB a request
    requests_per_second=0.1,  # 480 an hour and connection, 3 connections a second and address
)
