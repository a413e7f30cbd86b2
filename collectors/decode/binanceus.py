"""Binance US: the streams of Binance spot, from an exchange of its own.

Wire: https://docs.binance.us/#websocket-market-data-streams, read 2026-11; see binance for the table of streams,
identities and times.
"""

from __future__ import annotations

from typing import ClassVar, Final

from collectors.decode.binance import Binance


class Binanceus(Binance):
    """The decoder of Binance US."""

    exchange: ClassVar = "binanceus"
    version: ClassVar = "binanceus-1"
    documentation: ClassVar = "https://docs.binance.us/#websocket-market-data-streams"
    rest: ClassVar = "https://api.binance.us"


DECODER: Final = Binanceus()
