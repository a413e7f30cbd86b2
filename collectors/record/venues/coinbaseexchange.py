"""Coinbase Exchange as the recorder sees it.

Limits: https://docs.cdp.coinbase.com/exchange/docs/websocket-rate-limits, read 2026-11: 8 requests a second and
address, bursts of 20, 100 messages a second and connection.
"""

from __future__ import annotations

from typing import Final

from collectors.record.venues.contract import Venue, Watch

VENUE: Final = Venue(
    exchange="coinbaseexchange",
    watch={
        "trades": Watch(method="watch_trades_for_symbols"),
        # ccxt's own call for books logs in. This one sends our list of channels instead of its own, for one symbol, and
        # waits under another name than the call for many symbols does.
        "book_events": Watch(method="watch_trades", is_many=False, params={"channels": ["level2_batch"]}),
    },
    data_prefix=('{"type":"l2update"', '{"type":"match"', '{"type":"snapshot"', '{"type":"last_match"'),
    acknowledges="request",
    ping="protocol",
    symbols_per_connection=50,
    requests_per_second=4.0,
)
