"""What decoders yield: one event per row of the database.

Numbers are the exchange's own decimal text: they reach PostgreSQL's ``numeric`` untouched, never through a float.
Times are ns since 1970, UTC; ``None`` where the wire carries none.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Channel = Literal["trades", "quotes", "book_events", "derivatives", "liquidations"]
CHANNELS: tuple[Channel, ...] = ("trades", "quotes", "book_events", "derivatives", "liquidations")
Level = tuple[str, str]
"""Price and amount; amount 0 deletes the level."""


class Trade(Struct, gc=False):
    """One public trade; ``price`` in quote per base, ``amount`` in base (contracts on derivatives).

    ``is_buy`` is the taker's side; ``trade_id`` is None where the exchange gives none.
    """

    native_id: str
    time: int
    trade_id: str | None
    is_buy: bool | None
    price: str
    amount: str
    buy_order_id: str | None = None
    sell_order_id: str | None = None


class Quote(Struct, gc=False):
    """Best bid and ask (L1); an empty side has neither price nor amount."""

    native_id: str
    time: int | None
    update_id: int | None
    bid_price: str | None
    bid_amount: str | None
    ask_price: str | None
    ask_amount: str | None


class BookEvent(Struct, gc=False):
    """One atomic change of an order book (L2), or a whole one where ``kind`` is ``snapshot``.

    ``checksum`` is the exchange's own of the book after this event, as sent.
    """

    native_id: str
    time: int | None
    kind: Literal["snapshot", "update"]
    first_id: int | None
    last_id: int | None
    previous_id: int | None
    bids: list[Level]
    asks: list[Level]
    checksum: str | None = None


class Derivative(Struct, gc=False, kw_only=True):
    """What an exchange says of a derivative's state; None is what this message does not carry (unchanged).

    ``funding_rate`` is the rate of one funding interval, a fraction (0.0001 is 0.01 %); ``funding_time`` (ns) when it
    is due; ``open_interest`` in contracts as the exchange counts them; prices in quote per base.
    """

    native_id: str
    time: int | None
    funding_rate: str | None = None
    funding_time: int | None = None
    open_interest: str | None = None
    mark_price: str | None = None
    index_price: str | None = None


class Liquidation(Struct, gc=False):
    """One forced order; ``is_buy`` is the side of that order, so True closes a short position."""

    native_id: str
    time: int
    liquidation_id: str | None
    is_buy: bool | None
    price: str
    amount: str


Event = Trade | Quote | BookEvent | Derivative | Liquidation
