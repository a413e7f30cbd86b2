"""The short way for the bulk of the traffic: a whole group of journal lines decoded in a few calls, into columns.

A decoder may offer it beside ``decode``. It must yield the very events that ``decode`` yields line by line, or refuse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Protocol, runtime_checkable

from msgspec import Meta, Raw, Struct

STAMP_DIGITS: Final = 19
Stamp = Annotated[int, Meta(ge=1_230_940_800 * 10**9, lt=2 * 10**18)]
"""Our clock in ns from 2009 to 2033: nineteen digits that start with a 1."""


class PlainTrades(Struct, gc=False):
    """Columns of trades with numeric ids and a known side, without order ids; times in ns."""

    received_at: list[int]
    native_id: list[str]
    time: list[int]
    trade_id: list[int]
    is_buy: list[bool]
    price: list[str]
    amount: list[str]


class PlainQuotes(Struct, gc=False):
    """Columns of quotes with both sides, with an update id and without a time; times in ns."""

    received_at: list[int]
    native_id: list[str]
    update_id: list[int]
    bid_price: list[str]
    bid_amount: list[str]
    ask_price: list[str]
    ask_amount: list[str]


class PlainUpdates(Struct, gc=False):
    """Columns of book updates with first and last id; levels in JSON, ``[["1.1","2.0"],...]``; times in ns."""

    received_at: list[int]
    native_id: list[str]
    time: list[int]
    first_id: list[int]
    last_id: list[int]
    bids: list[Raw]
    asks: list[Raw]


class Plain(Struct, gc=False, kw_only=True):
    """The events of some lines, one each; every channel's in the order of the lines."""

    trades: PlainTrades | None = None
    quotes: PlainQuotes | None = None
    updates: PlainUpdates | None = None


@runtime_checkable
class PlainDecoder(Protocol):
    """A decoder that offers the short way."""

    def plain(self, lines: bytes) -> Plain | None:
        """The events of whole lines ``<recv_ns> <payload>``; None unless each is a frame of exactly one plain event."""


def count_of(lines: bytes, opening: bytes, closing: bytes = b"}") -> int | None:
    """How many lines these are, where a JSON decoder that takes any white space for a separator sees the same ones.

    None otherwise: a newline behind a frame and before a stamp cannot stand inside a value, and here all are such.
    ``opening`` is the space behind a stamp, and how every frame begins; ``closing`` is how every frame ends.
    """
    count = len(lines) - len(lines.replace(b"\n", b""))  # eight times as fast as to count them
    end = closing + b"\n"
    is_plain = lines[:1] == b"1" and lines.endswith(end) and lines.count(end + b"1") == count - 1
    return count if is_plain and lines.count(opening) == count else None


def stamped(
    lines: bytes, count: int | None, decode: Callable[[bytes], list[Any]]
) -> tuple[list[int], list[Any]] | None:
    """Receive times and frames; None unless each of ``count`` lines is one of each. ``decode`` is a JSON decoder's."""
    items = decode(lines)
    stamps, frames = items[::2], items[1::2]
    if not len(stamps) == len(frames) == count or set(map(type, stamps)) != {int} or int in set(map(type, frames)):
        return None
    return stamps, frames
