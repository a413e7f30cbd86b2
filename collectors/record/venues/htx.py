"""HTX as the recorder sees it. Limits: https://www.htx.com/en-us/opend/newApiPages/ (rate limits); unchecked."""

from __future__ import annotations

from typing import Final

from collectors.record.venues.contract import Venue, Watch

VENUE: Final = Venue(
    exchange="htx",
    kinds=frozenset({"spot", "swap", "future"}),
    watch={
        "trades": Watch(method="watch_trades", is_many=False),
        "quotes": Watch(method="watch_ticker", is_many=False),
        # On a connection of its own (/feed) for spot. ccxt asks for the whole book of spot when its ack comes.
        "book_events": Watch(method="watch_order_book", is_many=False, limit=150),
    },
    config={"options": {"watchTicker": {"name": "market.{marketId}.bbo"}}},
    data_prefix='{"ch":"market.',
    acknowledges="symbol",
    ping="messages",  # {"ping":ms} every 5 s, ccxt answers {"pong":ms}; two unanswered end the connection
    symbols_per_connection=50,
    requests_per_second=10,  # 50 a second and connection; req of a book 100 in 10 s
)
