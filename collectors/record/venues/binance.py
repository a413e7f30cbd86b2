"""What the recorder must know of each exchange beside its decoder: ccxt's class, its streams, its REST budget."""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import ccxt.pro
from msgspec import Struct

from collectors.config import Endpoint
from collectors.events import Channel

if TYPE_CHECKING:
    from collectors.record.connection import Connection

CONNECTION: contextvars.ContextVar[Connection] = contextvars.ContextVar("CONNECTION")
"""Whose new WebSocket client ccxt is making: each of its ``watch`` calls runs in a task of its connection."""


class Binance(ccxt.pro.binance):  # type: ignore[misc]  # ccxt has no types
    """Binance spot: ccxt dials, subscribes and keeps the list of markets; data frames never reach its handlers."""

    def client(self, url: str) -> Any:
        """ccxt's client of a URL, handed to its connection when it is new."""
        is_new = url not in (self.clients or {})
        client = super().client(url)
        if is_new:
            CONNECTION.get().adopt(client)
        return client

    def on_connected(self, client: Any, message: Any = None) -> None:
        """ccxt's hook: the socket is open."""
        super().on_connected(client, message)
        client.connection_of_ours.opened()

    def handle_subscription_status(self, client: Any, message: Any) -> Any:
        """ccxt's handler of ``{"result":null,"id":1}``; its own next step would be a book that we do not need."""
        client.connection_of_ours.acknowledged()
        return message


class Venue(Struct, frozen=True):
    """One exchange. ``watch`` is ccxt's call per channel for a list of symbols, all on one socket.

    Frames of data are told from replies by ``data_prefix`` where they begin so, else by the decoder.
    ``snapshot_burst`` and ``snapshots_per_minute`` leave part of the exchange's REST budget unused.
    """

    exchange: str
    make: Callable[[Endpoint], Any]
    kind: str
    watch: dict[Channel, Callable[[Any, list[str]], Awaitable[Any]]]
    data_prefix: str
    symbols_per_connection: int
    snapshot_burst: int
    snapshots_per_minute: float


def _binance(endpoint: Endpoint) -> Any:
    exchange = Binance({"options": {"defaultType": "spot", "fetchMarkets": {"types": ["spot"]}}})
    if endpoint.rest is not None:
        exchange.urls["api"]["public"] = endpoint.rest.rstrip("/") + "/api/v3"
    if endpoint.ws is not None:
        # ccxt tells spot from swap by "/stream" in the path.
        exchange.urls["api"]["ws"]["spot"] = endpoint.ws.rstrip("/") + "/stream/ws"
    return exchange


# Weights (exchange's page on REST limits, read 2026-11): 6,000 a minute and address, a snapshot of 5,000 levels 250.
_BINANCE = Venue(
    exchange="binance",
    make=_binance,
    kind="spot",
    watch={
        "trades": lambda exchange, symbols: exchange.watch_trades_for_symbols(symbols),
        "quotes": lambda exchange, symbols: exchange.watch_bids_asks(symbols),
        "book_events": lambda exchange, symbols: exchange.watch_order_book_for_symbols(symbols),
    },
    data_prefix='{"stream":"',
    symbols_per_connection=200,
    snapshot_burst=8,
    snapshots_per_minute=14,
)

VENUES: dict[str, Venue] = {venue.exchange: venue for venue in (_BINANCE,)}
