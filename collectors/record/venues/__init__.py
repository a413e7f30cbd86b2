"""Exchanges as the recorder sees them, one module each, named by ccxt's id like its decoder."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from collectors.decode import EXCHANGES
from collectors.errors import UsageError
from collectors.record.venues.contract import Venue, Watch

__all__ = ["Venue", "Watch", "native_id", "venue"]


def native_id(of: Venue, market: Mapping[str, Any]) -> str:
    """What the exchange's frames call one of ccxt's markets: the ``native_id`` of its instrument."""
    return str(market[of.named.get(market["type"], "id")])


@cache
def venue(exchange: str) -> Venue:
    """What the recorder knows of an exchange (ccxt's id). Raises UsageError where it knows nothing."""
    if exchange not in EXCHANGES:
        raise UsageError(f"exchange {exchange!r} cannot be recorded; known are: {', '.join(EXCHANGES)}")
    found = import_module(f"collectors.record.venues.{exchange}").VENUE
    assert isinstance(found, Venue)
    return found
