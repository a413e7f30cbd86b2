"""Exchanges as the recorder sees them, one module each, named by ccxt's id like its decoder."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from collectors.decode import EXCHANGES
from collectors.errors import UsageError
from collectors.record.venues.contract import Venue, Watch

__all__ = ["Venue", "Watch", "venue"]


@cache
def venue(exchange: str) -> Venue:
    """What the recorder knows of an exchange (ccxt's id). Raises UsageError where it knows nothing."""
    if exchange not in EXCHANGES:
        raise UsageError(f"exchange {exchange!r} cannot be recorded; known are: {', '.join(EXCHANGES)}")
    found = import_module(f"collectors.record.venues.{exchange}").VENUE
    assert isinstance(found, Venue)
    return found
