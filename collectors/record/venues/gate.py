"""Gate as the recorder sees it. Limits: https://www.gate.com/docs/developers/apiv4/ws/en/; not checked there."""

from __future__ import annotations

from typing import Final

from collectors.record.venues.contract import Venue, Watch

VENUE: Final = Venue(
    exchange="gate",
    # Contracts have the texts of spot (BTC_USDT) on connections of their own, and their whole books come by REST: they
    # follow when the universe lists them as futures.BTC_USDT, as they are decoded.
    kinds=frozenset({"spot"}),
    watch={
        "trades": Watch(method="watch_trades_for_symbols"),
        "quotes": Watch(method="watch_bids_asks"),
        "book_events": Watch(method="watch_order_book", is_many=False, limit=50),  # every 20 ms; 400 every 100 ms
        "derivatives": Watch(method="watch_tickers"),
    },
    config={"options": {"fetchMarkets": {"types": ["spot"]}}},
    symbols_per_connection=50,
    requests_per_second=5,
)
