"""COPY text from the wire's own strings. Pure.

Numbers go into it as sent, so that what PostgreSQL would refuse, or worse take for something else (``1,2`` inside an
array, ``NaN``, ``0x1F``), must be found before: ``are_numbers`` looks at many in one go.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, LiteralString

from collectors.events import Channel, Level

TIME_LIMIT_NS: Final = 86_400 * 10**9
"""An event's time may differ from its receive time by this much."""
RECEIVE_TIMES_NS: Final = range(1_230_940_800 * 10**9, 4_102_444_800 * 10**9)
"""2009 to 2099: what our own clock may say; the first block of Bitcoin is of 3 January 2009."""
FUNDING_TIMES_NS: Final = range(250 * 365 * 86_400 * 10**9)
"""1970 to 2219: what an exchange may say of when funding is due."""

_PROVENANCE: Final[LiteralString] = "received_at, time, batch, epoch, stream_id, instrument_id"
COLUMNS: Final[dict[Channel, LiteralString]] = {
    "trades": f"{_PROVENANCE}, is_buy, trade_id, price, amount, buy_order_id, sell_order_id",
    "quotes": f"{_PROVENANCE}, update_id, bid_price, bid_amount, ask_price, ask_amount",
    "book_events": (
        f"{_PROVENANCE}, first_id, last_id, previous_id, is_snapshot, bid_prices, bid_amounts, ask_prices, ask_amounts"
    ),
    "derivatives": f"{_PROVENANCE}, funding_rate, funding_time, open_interest, mark_price, index_price",
    "liquidations": f"{_PROVENANCE}, is_buy, liquidation_id, price, amount",
}
"""What a row of COPY text holds, in order."""

# Possessive: no backtracking, so linear in time and constant in memory. Bounded, since numeric is.
_NUMBER: Final = r"-?+[0-9]{1,1000}+(?:\.[0-9]{1,1000}+)?+(?:[eE][+-]?[0-9]{1,3}+)?+"
_LONG: Final = 16_000  # numeric holds 16,383 digits behind the point
_DIGITS: Final = b"0123456789"
_one = re.compile(_NUMBER).fullmatch
_many = re.compile(rf"(?:{_NUMBER},)*+").fullmatch


class UnstorableError(ValueError):
    """PostgreSQL has no place for this text."""


def is_number(text: str) -> bool:
    """Whether ``numeric`` takes the text as the number that it is."""
    return _one(text) is not None


def are_numbers(texts: Sequence[str], count: int) -> bool:
    """Whether the texts are ``count`` numbers in all; a text may hold several, separated by commas."""
    if not texts:
        return count == 0
    joined = f",{','.join(texts)},"
    # Nearly always: digits around one point each, ten times cheaper to see than with the expression.
    if (
        joined.isascii()
        and joined.encode().translate(None, _DIGITS) == b"," + b".," * count
        and ",." not in joined
        and (max(map(len, texts)) < _LONG or max(map(len, joined.split(","))) < _LONG)
    ):
        return True
    return joined.count(",") == count + 1 and _many(joined, 1) is not None


class Numbers:
    """Numbers of a batch, to be looked at in one go."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        """One number each, but for those of levels, which share a text."""
        self._levels = 0

    def levels(self, levels: Sequence[Level]) -> tuple[str, str]:
        """Prices and amounts of one side of a book, each joined by commas."""
        if not levels:
            return "", ""
        prices, amounts = zip(*levels, strict=True)
        both = ",".join(prices), ",".join(amounts)
        self.texts += both
        self._levels += 2 * (len(levels) - 1)
        return both

    def are_sound(self) -> bool:
        """Whether each is a number."""
        return are_numbers(self.texts, len(self.texts) + self._levels)


def split_sides(sides: Sequence[bytes]) -> list[tuple[str, str]] | None:
    """Prices and amounts, each joined by commas, of books' sides: levels in JSON, ``[["1.50","2.0"],["1.25","0.0"]]``.

    None where any is written in another way or may hold what is no number: then take them apart by the JSON decoder
    and look at each number.
    """
    joined = b"\n".join(sides)
    if not joined.isascii() or b'".' in joined:
        return None
    out: list[tuple[str, str]] = []
    skeletons: list[bytes] = []
    for side in sides:
        parts = side.decode().split('"')
        if len(side) >= _LONG and max(map(len, parts)) >= _LONG:
            return None
        skeletons.append(_skeleton(len(parts) >> 2))
        out.append((",".join(parts[1::4]), ",".join(parts[3::4])))
    # Without digits only the marks between them are left, and one point in each number.
    return out if joined.translate(None, _DIGITS) == b"\n".join(skeletons) else None


@lru_cache(maxsize=1_024)
def _skeleton(levels: int) -> bytes:
    return b"[" + b",".join([b'[".","."]'] * levels) + b"]"


def second_text(second: int) -> str:
    """``2024-08-09 00:00:01.`` for seconds since 1970; the session's time zone is UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S.", time.gmtime(second))


def timestamp_text(ns: int) -> str:
    """A time in ns as PostgreSQL reads it, floored to µs."""
    second, rest = divmod(ns, 10**9)
    return f"{second_text(second)}{rest // 1000:06d}"


def escaped(text: str) -> str:
    """Text for a COPY field. Raises UnstorableError for NUL, which PostgreSQL cannot hold."""
    if "\0" in text:
        raise UnstorableError(f"a NUL byte in {text!r}; expected text that PostgreSQL can hold")
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
