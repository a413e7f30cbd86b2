"""Bitget as the recorder sees it. Limits: https://www.bitget.com/api-doc/common/websocket-intro; not checked there."""

from __future__ import annotations

from typing import Final

from collectors.record.venues.contract import Venue, Watch

VENUE: Final = Venue(
    exchange="bitget",
    # Contracts have the texts of spot (BTCUSDT): they follow when the universe lists them as USDT-FUTURES.BTCUSDT, as
    # they are decoded.
    kinds=frozenset({"spot"}),
    watch={
        "trades": Watch(method="watch_trades_for_symbols", params={"uta": True}),
        # books1, whole best levels; a connection of its own, since ccxt takes it for the subscription to books.
        "quotes": Watch(method="watch_order_book_for_symbols", limit=1, params={"uta": True}),
        "book_events": Watch(method="watch_order_book_for_symbols", params={"uta": True}),
        "derivatives": Watch(method="watch_tickers"),  # classic: contracts only
    },
    config={"options": {"fetchMarkets": {"types": ["spot"]}}},
    data_prefix='{"action":"',
    acknowledges="symbol",
    ping="messages",  # text ping every 30 s, text pong; two minutes without one end the connection
    symbols_per_connection=50,  # 1,000 channels a connection, fewer than 50 recommended
    requests_per_second=0.06,  # 240 subscriptions an hour and connection
)
