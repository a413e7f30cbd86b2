"""Wire formats of simulated exchanges, one module each, named by ccxt's id."""

from __future__ import annotations

from importlib import import_module

from collectors.simulator.wire.contract import Wire

__all__ = ["SIMULATED", "Wire", "wire"]

SIMULATED: tuple[str, ...] = (
    "binance",
    "bybit",
    "coinbaseexchange",
    "deribit",
    "htx",
    "kraken",
    "kucoin",
    "mexc",
    "okx",
)
"""ccxt's ids of the exchanges that can be simulated."""


def wire(exchange: str) -> Wire:
    """A fresh wire format of an exchange; raises ValueError where it is not simulated."""
    if exchange not in SIMULATED:
        raise ValueError(f"exchange {exchange!r}: not simulated; expected one of {', '.join(SIMULATED)}")
    made = import_module(f"collectors.simulator.wire.{exchange}").WIRE()
    assert isinstance(made, Wire)
    return made
