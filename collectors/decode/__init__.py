"""Decoders by exchange: adding one is a file, a fixture and a row here."""

from __future__ import annotations

from collectors.decode.binance import BINANCE
from collectors.decode.contract import BookIds, DecodeError, Decoder, Identity, UnknownExchangeError

__all__ = ["DECODERS", "BookIds", "DecodeError", "Decoder", "Identity", "UnknownExchangeError", "decoder", "exchanges"]

DECODERS: dict[str, Decoder] = {one.exchange: one for one in (BINANCE,)}


def decoder(exchange: str) -> Decoder:
    """The decoder of an exchange (ccxt's id). Raises UnknownExchangeError, which lists those there are."""
    try:
        return DECODERS[exchange]
    except KeyError:
        known = ", ".join(sorted(DECODERS))
        raise UnknownExchangeError(f"unknown exchange {exchange!r}; expected one of: {known}") from None


def exchanges() -> list[str]:
    """The exchanges (ccxt's ids) that have a decoder, in order."""
    return sorted(DECODERS)
