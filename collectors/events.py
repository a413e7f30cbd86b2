"""What decoders yield: one event per row of the database.

Numbers are the exchange's own decimal text: they reach PostgreSQL's ``numeric`` untouched, never through a float.
Times are ns since 1970, UTC; ``None`` where the wire carries none.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Channel = Literal["trades", "quotes", "book_events"]
CHANNELS: tuple[Channel, ...] = ("trades", "quotes", "book_events")
Level = tuple[str, str]
"""Price and amount; amount 0 deletes the level."""


class Trade(Struct, gc=False):
    """One public trade; ``price`` in quote per base, ``amount`` in base (contracts on derivatives)."""

    native_id: str
    time: int
    trade_id: str
    is_buy: bool | None
    price: str
    amount: str
    buy_order_id: str | None = None
    sell_order_id: str | None = None


class Quote(Struct, gc=False):
    """Best bid and ask (L1)."""

    native_id: str
    time: int | None
    update_id: int | None
    bid_price: str
    bid_amount: str
    ask_price: str
    ask_amount: str


class BookEvent(Struct, gc=False):
    """One atomic change of an order book (L2), or a whole one where ``kind`` is ``snapshot``."""

    native_id: str
    time: int | None
    kind: Literal["snapshot", "update"]
    first_id: int | None
    last_id: int | None
    previous_id: int | None
    bids: list[Level]
    asks: list[Level]


Event = Trade | Quote | BookEvent
