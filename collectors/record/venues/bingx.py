"""BingX as the recorder sees it. Limits: https://bingx-api.github.io/docs/ (WebSocket, limits); not checked there."""

from __future__ import annotations

from typing import Final

from collectors.record.venues.contract import Venue, Watch

VENUE: Final = Venue(
    exchange="bingx",
    # USDT-M has the texts of spot (BTC-USDT): it follows when the universe lists it as swap.BTC-USDT, as it is decoded.
    kinds=frozenset({"spot"}),
    watch={
        "trades": Watch(method="watch_trades", is_many=False),
        "book_events": Watch(method="watch_order_book", is_many=False),
    },
    config={"options": {"watchOrderBook": {"depth": 100}}},
    ping="messages",  # {"ping":id} or the text Ping every 5 s, which ccxt answers
    symbols_per_connection=50,  # 200 subscriptions a connection
    requests_per_second=5,  # 10 messages a second
)
