"""Bitfinex as the recorder sees it.

Limits: https://docs.bitfinex.com/docs/requirements-and-limitations, read 2026-11: 30 channels a connection, 20 new
connections a minute and address.
"""

from __future__ import annotations

from typing import Final

from collectors.record.venues.contract import Venue, Watch

VENUE: Final = Venue(
    exchange="bitfinex",
    watch={
        "trades": Watch(method="watch_trades", is_many=False),
        # ccxt takes 25 or 100 as its limit; the exchange gives 250.
        "book_events": Watch(method="watch_order_book", is_many=False, params={"len": "250"}),
    },
    acknowledges="symbol",
    ping="protocol",  # and "hb" on each channel every 15 s
    symbols_per_connection=14,  # two channels each
    requests_per_second=4.0,
)
