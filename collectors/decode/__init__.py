"""Decoders by exchange, one module each, named by ccxt's id: adding one is a file, a test and a name here."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from collectors.decode.contract import (
    BookIds,
    Control,
    DecodeError,
    Decoder,
    Identity,
    Proof,
    Stream,
    UnknownExchangeError,
)

__all__ = [
    "EXCHANGES",
    "BookIds",
    "Control",
    "DecodeError",
    "Decoder",
    "Identity",
    "Proof",
    "Stream",
    "UnknownExchangeError",
    "decoder",
]

EXCHANGES: tuple[str, ...] = (
    "binance",
    "binancecoinm",
    "binanceus",
    "binanceusdm",
    "bingx",
    "bitfinex",
    "bitget",
    "bithumb",
    "bitstamp",
    "bitvavo",
    "bybit",
    "coinbaseexchange",
    "cryptocom",
    "deribit",
    "dydx",
    "gate",
    "gemini",
    "hitbtc",
    "htx",
    "hyperliquid",
    "kraken",
    "krakenfutures",
    "kucoin",
    "kucoinfutures",
    "mexc",
    "okx",
    "phemex",
    "poloniex",
    "upbit",
    "whitebit",
)
"""ccxt's ids of the exchanges that have a decoder, in order."""


@cache
def decoder(exchange: str) -> Decoder:
    """The decoder of an exchange (ccxt's id). Raises UnknownExchangeError, which lists those there are."""
    if exchange not in EXCHANGES:
        raise UnknownExchangeError(f"unknown exchange {exchange!r}; expected one of: {', '.join(EXCHANGES)}")
    found = import_module(f"collectors.decode.{exchange}").DECODER
    assert isinstance(found, Decoder)
    return found
