"""What is traded: symbols with their scales, and the exchange's text for numbers kept as integers."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct

WIRE_DIGITS = 8
"""Most decimals a step may have; Binance spot writes every price and amount with that many."""


def digits_of(step: str) -> int:
    """Decimals of a step: 2 for ``0.01``.

    Raises ValueError where the step is not a power of ten of at most eight decimals: only those exist on the wire.
    """
    digits = -int(Decimal(step).normalize().as_tuple().exponent)
    if not 0 <= digits <= WIRE_DIGITS or Decimal(step) != Decimal(1).scaleb(-digits):
        raise ValueError(f"step {step}: expected a power of ten between 1 and 0.00000001, such as 0.01")
    return digits


class Scale:
    """Turns whole steps into the exchange's decimal text and back, exactly."""

    __slots__ = ("_divisor", "_tail", "digits")

    def __init__(self, step: str, wire_digits: int | None = WIRE_DIGITS) -> None:
        """``wire_digits``: decimals of every text, None for as many as the step has."""
        self.digits = digits_of(step)
        self._divisor = 10**self.digits
        zeros = "0" * ((self.digits if wire_digits is None else wire_digits) - self.digits)
        self._tail = zeros if self.digits or not zeros else f".{zeros}"

    def text(self, steps: int) -> str:
        """Exact text as the exchange writes it: with eight decimals, 6168599 steps of 0.01 are ``61685.99000000``."""
        whole, fraction = divmod(steps, self._divisor)
        return f"{whole}.{fraction:0{self.digits}d}{self._tail}" if self.digits else f"{whole}{self._tail}"

    def steps(self, text: str) -> int:
        """Whole steps of a decimal text; raises ValueError where it lies between two steps."""
        steps = Decimal(text).scaleb(self.digits)
        if steps != int(steps):
            raise ValueError(f"{text} is not a multiple of the step, expected at most {self.digits} decimals")
        return int(steps)


class Market(Struct, frozen=True):
    """One spot symbol; ``price`` is where its book starts, ``amount`` the mean of an order, in base.

    ``wire_digits`` are the decimals of its numbers on the wire, None for those of their step.
    """

    native_id: str
    base: str
    quote: str
    price_tick: str = "0.01"
    amount_step: str = "0.00001"
    price: str = "50000"
    amount: str = "0.05"
    wire_digits: int | None = WIRE_DIGITS


MARKETS = {
    market.native_id: market
    for market in (
        Market("BTCUSDT", "BTC", "USDT", "0.01", "0.00001", "61685.99", "0.05"),
        Market("ETHUSDT", "ETH", "USDT", "0.01", "0.0001", "2684.60", "1.2"),
        Market("SOLUSDT", "SOL", "USDT", "0.01", "0.001", "154.37", "20"),
        Market("BNBUSDT", "BNB", "USDT", "0.01", "0.001", "511.20", "3"),
        Market("XRPUSDT", "XRP", "USDT", "0.0001", "0.1", "0.5921", "900"),
        Market("DOGEUSDT", "DOGE", "USDT", "0.00001", "1", "0.10463", "5000"),
        Market("ETHBTC", "ETH", "BTC", "0.00001", "0.0001", "0.04352", "1.2"),
    )
}
"""Symbols with the scales of the real exchange; prices are those of a day in 2024."""


def market_of(native_id: str) -> Market:
    """The market of a native id such as ``BTCUSDT``; raises ValueError where the simulator does not know it."""
    if native_id not in MARKETS:
        raise ValueError(f"symbol {native_id}: not simulated; expected one of {', '.join(MARKETS)}")
    return MARKETS[native_id]
