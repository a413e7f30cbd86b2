"""Exchanges as the recorder sees them, one module each, named by ccxt's id like its decoder."""

from __future__ import annotations

from collectors.record.venues.binance import CONNECTION, VENUES, Venue

__all__ = ["CONNECTION", "VENUES", "Venue"]
