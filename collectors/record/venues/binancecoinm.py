"""Binance COIN-M futures as the recorder sees them.

Limits: https://developers.binance.com/docs/derivatives/coin-margined-futures (WebSocket market streams; general info on
REST limits), read 2026-11: a connection lives 24 hours, takes 1,024 streams and 10 requests a second; 2,400 of weight a
minute and address, of which a book of 1,000 levels takes 20.
"""

from __future__ import annotations

from typing import Final

from msgspec import structs

from collectors.record.venues import binanceusdm

VENUE: Final = structs.replace(binanceusdm.VENUE, exchange="binancecoinm")
