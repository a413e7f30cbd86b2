"""Binance spot's frames in groups: see collectors.decode.plain. The wire is described in collectors.decode.binance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Raw, Struct
from msgspec.json import Decoder as Json

from collectors.decode.plain import (
    STAMP_DIGITS,
    Plain,
    PlainQuotes,
    PlainTrades,
    PlainUpdates,
    Stamp,
    count_of,
    stamped,
)
from collectors.decode.wire import WIRE_ERRORS

Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""As PostgreSQL's bigint holds it; what is larger is a changed wire format."""
_MICROSECONDS_FROM: Final = 10**14
"""Read as ms it is the year 5138, read as µs 1973: no time of one unit is mistaken for the other."""


class _Event(Struct, gc=False):
    """A trade or a quote: which of the two, ``e`` tells; what is missing shows as something that neither holds."""

    s: str
    e: Literal["trade"] | None = None
    t: Id = -1
    T: int = -1
    p: str | None = None
    q: str | None = None
    m: bool | None = None
    u: Id = -1
    b: str | int | None = None
    B: str | None = None
    a: str | int | None = None
    A: str | None = None


class _Frame(Struct, gc=False):
    data: _Event


class _Trade(Struct, gc=False):
    """A trade that names no orders."""

    e: Literal["trade"]
    s: str
    t: Id
    T: int
    p: str
    q: str
    m: bool
    b: None = None
    a: None = None


class _TradeFrame(Struct, gc=False):
    data: _Trade


class BookTicker(Struct, gc=False):
    """The stream of that name: a quote."""

    s: str
    u: Id
    b: str
    B: str
    a: str
    A: str


class BookTickerFrame(Struct, gc=False):
    """One in a combined stream."""

    data: BookTicker


class _Depth(Struct, tag_field="e", tag="depthUpdate", gc=False):
    s: str
    E: int
    U: Id
    u: Id
    b: Raw
    a: Raw


class _DepthFrame(Struct, gc=False):
    data: _Depth


# Where the stream's name and the event's kind meet, as the exchange writes a frame; also faster to find than less.
_OPENING: Final = b' {"stream":"'
_BRIEF: Final = _OPENING[:4]
"""Counted in less than half the time."""
_CLOSING: Final = b"}}"
_TRADE: Final = b'@trade","data":{"e":"trade",'
_QUOTE: Final = b'@bookTicker","data":{"u":'
_DEPTH: Final = b'","data":{"e":"depthUpdate",'
_DEPTHS: Final = (b"@depth", b"@depth@100ms")
_FIRST_LINE: Final = 128
"""Within so many bytes of a group's first line its kind shows."""
_decode = Json(Stamp | _Frame).decode_lines
_decode_trades = Json(Stamp | _TradeFrame).decode_lines
_decode_quotes = Json(Stamp | BookTickerFrame).decode_lines
_decode_depth = Json(Stamp | _DepthFrame).decode_lines


def ns(time: int) -> int:
    """A time of the wire, ms or µs, as ns."""
    return time * (1_000 if time >= _MICROSECONDS_FROM else 1_000_000)


def plain(lines: bytes) -> Plain | None:
    """The events of a group's lines; None where any line is another than a plain frame of a combined stream."""
    out = Plain()
    try:
        return out if _add_one_channel(out, lines) or _add_channels(out, lines) else None
    except WIRE_ERRORS:
        return None


def _add_one_channel(out: Plain, lines: bytes) -> bool:
    """Add trades, or quotes, where that is what the lines are: a connection mostly carries one channel."""
    if lines.find(_TRADE, 0, _FIRST_LINE) > 0 and (found := _all(lines, _TRADE, _decode_trades)) is not None:
        out.trades = _trades(*found)
    elif lines.find(_QUOTE, 0, _FIRST_LINE) > 0 and (found := _all(lines, _QUOTE, _decode_quotes)) is not None:
        out.quotes = _quotes(*found)
    return out.trades is not None or out.quotes is not None


def _add_channels(out: Plain, lines: bytes) -> bool:
    """Add what the lines are, whichever of the three; whether they are no more than that."""
    parted = _parted(lines)
    if parted is None:
        return False
    depth, others = parted
    return (not others or _add_events(out, others)) and (not depth or _add_updates(out, depth))


def _all(lines: bytes, kind: bytes, decode: Callable[[bytes], list[Any]]) -> tuple[list[int], list[Any]] | None:
    """Receive times and events where every line is of this kind; raises WIRE_ERRORS where one is not what it seems."""
    count = lines.count(kind)
    if count != count_of(lines, _BRIEF, _CLOSING):
        return None
    found = stamped(lines, count, decode)
    return None if found is None else (found[0], [frame.data for frame in found[1]])


def _parted(lines: bytes) -> tuple[list[bytes], bytes] | None:
    """Lines of depth updates, and the others; None where one of the former is no whole line."""
    at = lines.find(_DEPTH)
    depth: list[bytes] = []
    others: list[bytes] = []
    start = 0
    while at >= 0:
        begin = max(lines.rfind(b"\n", start, at) + 1, start)
        end = lines.find(b"\n", at) + 1
        if not (
            lines.startswith(_OPENING, begin + STAMP_DIGITS)
            and lines.endswith(b"}\n", at, end)
            and lines.endswith(_DEPTHS, begin, at)
        ):
            return None
        others.append(lines[start:begin])
        depth.append(lines[begin:end])
        start = end
        at = lines.find(_DEPTH, start)
    others.append(lines[start:])
    return depth, b"".join(others)


def _add_events(out: Plain, lines: bytes) -> bool:
    """Add trades and quotes; whether that is what all the lines are."""
    found = stamped(lines, count_of(lines, _BRIEF, _CLOSING), _decode)
    if found is None:
        return False
    stamps, frames = found
    events = [frame.data for frame in frames]
    is_trade = [event.e is not None for event in events]
    trades = sum(is_trade)
    if lines.count(_TRADE) != trades or lines.count(_QUOTE) != len(events) - trades:
        return False
    if trades:
        picked = list(compress(events, is_trade))
        out.trades = _trades(list(compress(stamps, is_trade)), picked)
        if out.trades is None or not _are_trades(out.trades, picked):
            return False
    if trades < len(events):
        is_quote = [not one for one in is_trade]
        out.quotes = _quotes(list(compress(stamps, is_quote)), list(compress(events, is_quote)))
        if not _are_quotes(out.quotes):
            return False
    return True


def _are_trades(found: PlainTrades, events: Sequence[_Event]) -> bool:
    """Whether nothing that a trade has is missing, and nothing else is there."""
    return (
        all(m.a is None is m.b and m.m is not None for m in events)
        and set(map(type, found.price)) == {str} == set(map(type, found.amount))
        and min(found.trade_id) >= 0
    )


def _are_quotes(found: PlainQuotes) -> bool:
    """Whether nothing that a quote has is missing."""
    columns = (found.bid_price, found.bid_amount, found.ask_price, found.ask_amount)
    return all(set(map(type, column)) == {str} for column in columns) and min(found.update_id) >= 0


def _trades(stamps: list[int], found: Sequence[_Trade | _Event]) -> PlainTrades | None:
    """Columns of trades; None where their times are of both units."""
    times = [m.T for m in found]
    unit = 1_000 if min(times) >= _MICROSECONDS_FROM else 1_000_000
    if unit == 1_000_000 and max(times) >= _MICROSECONDS_FROM:
        return None
    return PlainTrades(
        stamps,
        [m.s for m in found],
        [time * unit for time in times],
        [m.t for m in found],
        [not m.m for m in found],
        [m.p for m in found],  # type: ignore[misc]  # where it may be None, _are_trades looks
        [m.q for m in found],  # type: ignore[misc]
    )


def _quotes(stamps: list[int], found: Sequence[BookTicker | _Event]) -> PlainQuotes:
    columns: list[list[Any]] = [
        [m.b for m in found],
        [m.B for m in found],
        [m.a for m in found],
        [m.A for m in found],
    ]
    return PlainQuotes(stamps, [m.s for m in found], [m.u for m in found], *columns)


def _add_updates(out: Plain, lines: list[bytes]) -> bool:
    """Add book updates; whether that is what all the lines are."""
    found = stamped(b"".join(lines), len(lines), _decode_depth)
    if found is None:
        return False
    stamps, frames = found
    data: list[_Depth] = [frame.data for frame in frames]
    out.updates = PlainUpdates(
        stamps,
        [m.s for m in data],
        [ns(m.E) for m in data],
        [m.U for m in data],
        [m.u for m in data],
        [m.b for m in data],
        [m.a for m in data],
    )
    return True
