"""What the datalake must hold of the truth, as an exchange tells it; and what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from msgspec import Struct

from collectors.simulator.engine import DepthEvent, Level
from collectors.simulator.truth import SymbolTruth
from collectors.simulator.wire import Wire

Row = tuple[Any, ...]
_TIME = "(extract(epoch FROM time) * 1000000)::bigint"
_RECEIVED = _TIME.replace("FROM time", "FROM received_at")
_TRADES = f"""
SELECT trade_id, {_TIME}, is_buy, price::text, amount::text
FROM trades WHERE instrument_id = %s
"""
_QUOTES = f"""
SELECT update_id, {_TIME}, bid_price::text, bid_amount::text, ask_price::text, ask_amount::text
FROM quotes WHERE instrument_id = %s
"""
# Where updates name the id before them rather than their first one, that tells the same.
_UPDATES = f"""
SELECT coalesce(first_id, previous_id + 1), last_id, {_TIME},
    bid_prices::text[], bid_amounts::text[], ask_prices::text[], ask_amounts::text[]
FROM book_events WHERE instrument_id = %s AND NOT is_snapshot
"""
_QUERIES = {"trades": _TRADES, "quotes": _QUOTES, "book_events": _UPDATES}


class Sent(Struct, frozen=True):
    """A true event: when it was sent (ns since 1970), its first and last id as the exchange tells them (of trades and
    quotes the engine's), and the row it must become.
    """

    sent_ns: int
    first_id: int
    last_id: int
    row: Row


def true_rows(truth: SymbolTruth, channel: str, wire: Wire) -> list[Sent]:
    """What the datalake must hold of one symbol and channel had somebody listened all along, in order."""
    match channel:
        case "trades":
            return [
                Sent(
                    t.sent_ns,
                    e.trade_id,
                    e.trade_id,
                    (wire.trade_id(e.trade_id), e.time * 1000, e.is_buy, e.price, e.amount),
                )
                for t in truth.trades
                for e in (t.event,)
            ]
        case "quotes":
            return [
                Sent(
                    t.sent_ns,
                    e.update_id,
                    e.update_id,
                    (
                        e.update_id if wire.quote_ids else None,
                        e.time * 1000 if wire.quote_times else None,
                        *(e.bid_price, e.bid_amount, e.ask_price, e.ask_amount),
                    ),
                )
                for t in truth.quotes
                for e in (t.event,)
            ]
        case _:
            return list(_true_updates(truth, wire))


def _true_updates(truth: SymbolTruth, wire: Wire) -> Iterator[Sent]:
    for number, true in enumerate(truth.book_events, 1):
        event = true.event
        first, last = (number, number) if wire.update_ids == "messages" else (event.first_id, event.last_id)
        ids = (None, None) if wire.update_ids == "none" else (first, last)
        yield Sent(
            true.sent_ns,
            first,
            last,
            (*ids, event.time * 1000, *map(tuple, (*columns(event.bids), *columns(event.asks)))),
        )


def engine_ids(truth: SymbolTruth, wire: Wire) -> dict[int, int]:
    """The engine's id behind each id that the exchange gives the book after an update."""

    def told(number: int, event: DepthEvent) -> int:
        return number if wire.update_ids == "messages" else event.last_id

    return {told(number, true.event): true.event.last_id for number, true in enumerate(truth.book_events, 1)}


def held_rows(
    connection: psycopg.Connection[Any],
    instrument: int,
    channel: str,
    wire: Wire,
    *,
    epoch: tuple[str, int] | None = None,
    received: tuple[int, int] | None = None,
) -> list[Row]:
    """What a database holds, ingestor's or datalake's, as ``true_rows`` has it, in no order; of one ingestor's epoch
    alone, and received from and until (µs, both included), where these are given.

    A quote's time is left out where the exchange sends none.
    """
    query, values = _QUERIES[channel], [instrument, *(epoch or ()), *(received or ())]
    query += " AND ingestor = %s AND epoch = %s" if epoch else ""
    query += f" AND {_RECEIVED} BETWEEN %s AND %s" if received else ""
    found = connection.execute(query.encode(), values).fetchall()
    if channel == "book_events":
        return [(*row[:3], *map(tuple, row[3:])) for row in found]
    if channel == "quotes" and not wire.quote_times:
        return [(row[0], None, *row[2:]) for row in found]
    return found


def columns(levels: list[Level]) -> tuple[list[str], list[str]]:
    """Prices and amounts, as the datalake keeps them."""
    return [price for price, _ in levels], [amount for _, amount in levels]


def ticks(price: str) -> int:
    """Prices of one symbol compare as integers: all have the same decimals."""
    return int(price.replace(".", ""))
