"""ccxt as the engine that dials, subscribes and lists markets. No data frame reaches its handlers; see connection."""

from __future__ import annotations

import asyncio
import inspect
import re
from functools import cache
from typing import Any, Final, Protocol

import ccxt.pro

from collectors.config import Endpoint
from collectors.errors import UsageError
from collectors.record.venues import Venue

_ORIGIN: Final = re.compile(r"^(wss?|https?)://[^/?]*")


class Tap(Protocol):
    """Who takes over ccxt's new WebSocket client."""

    def adopt(self, client: Any) -> None: ...

    def opened(self) -> None: ...


class _Tapped:
    """What is overridden in ccxt's class of every exchange."""

    tap: Tap | None = None
    clients: Any

    def client(self, url: str) -> Any:
        """ccxt's client of a URL, handed to the tap when it is new."""
        is_new = url not in (self.clients or {})
        client = super().client(url)  # type: ignore[misc]  # of ccxt's class
        if is_new and self.tap is not None:
            self.tap.adopt(client)
        return client

    def on_connected(self, client: Any, message: Any = None) -> None:
        """ccxt's hook: the socket is open."""
        super().on_connected(client, message)  # type: ignore[misc]
        if self.tap is not None:
            self.tap.opened()

    async def fetch_rest_order_book_safe(self, *_: Any, **__: Any) -> Any:
        """ccxt would fetch a book after each subscription; ours are fetched within a budget, and journalled."""
        raise asyncio.CancelledError

    async def load_order_book(self, *_: Any, **__: Any) -> None:
        """Likewise."""


@cache
def _class(exchange: str) -> Any:
    base = getattr(ccxt.pro, exchange, None)
    if base is None:
        raise UsageError(f"ccxt {ccxt.__version__} no longer has {exchange!r}: pin a version that has, or disable it")
    overridden: dict[str, Any] = {}
    if inspect.iscoroutinefunction(getattr(base, "authenticate", None)):
        overridden["authenticate"] = _no_login
    return type(base.__name__, (_Tapped, base), overridden)


async def _no_login(*_: Any, **__: Any) -> None:
    """All that is recorded is public; ccxt logs in for some of it nonetheless, and without a key it cannot."""


def dialler(venue: Venue, endpoint: Endpoint, tap: Tap | None = None, markets_of: Any = None) -> Any:
    """ccxt's object of an exchange, dialling ``endpoint``; with the markets of another one where there is one.

    Each connection has its own: the state of one never survives into the next. Raises UsageError.
    """
    exchange = _class(venue.exchange)(dict(venue.config))
    exchange.urls = redirected(exchange.urls, endpoint)
    exchange.tap = tap
    if markets_of is not None:
        exchange.set_markets_from_exchange(markets_of)
    return exchange


def redirected(urls: Any, endpoint: Endpoint) -> Any:
    """All URLs within ccxt's tree of them with scheme and host of ``endpoint``; their paths stay."""
    if isinstance(urls, dict):
        return {key: redirected(value, endpoint) for key, value in urls.items()}
    if isinstance(urls, list):
        return [redirected(value, endpoint) for value in urls]
    found = _ORIGIN.match(urls) if isinstance(urls, str) else None
    if found is None:
        return urls
    origin = endpoint.ws if found[1].startswith("ws") else endpoint.rest
    return urls if origin is None else origin.rstrip("/") + urls[found.end() :]
