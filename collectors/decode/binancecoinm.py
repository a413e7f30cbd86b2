"""Binance COIN-M futures: USD-M's streams with a field more (``ps``, the pair), amounts in contracts.

Wire: https://developers.binance.com/docs/derivatives/coin-margined-futures/websocket-market-streams, read 2026-11; see
binanceusdm for the table of streams, identities and times.
"""

from __future__ import annotations

from typing import ClassVar, Final

from collectors.decode.binanceusdm import Binanceusdm


class Binancecoinm(Binanceusdm):
    """The decoder of Binance COIN-M futures."""

    exchange: ClassVar = "binancecoinm"
    version: ClassVar = "binancecoinm-1"
    documentation: ClassVar = (
        "https://developers.binance.com/docs/derivatives/coin-margined-futures/websocket-market-streams"
    )
    rest: ClassVar = "https://dapi.binance.com"
    path: ClassVar = "/dapi/v1/depth"


DECODER: Final = Binancecoinm()
