"""Binance spot's frames in groups: see collectors.decode.plain. The wire is described in collectors.decode.binance."""

from __future__ import annotations

from collections.abc import Sequence
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
_TRADE: Final = b'@trade","data":{"e":"trade",'
_QUOTE: Final = b'@bookTicker","data":{"u":'
_DEPTH: Final = b'","data":{"e":"depthUpdate",'
_DEPTHS: Final = (b"@depth", b"@depth@100ms")
_decode = Json(Stamp | _Frame).decode_lines
_decode_depth = Json(Stamp | _DepthFrame).decode_lines


def ns(time: int) -> int:
    """A time of the wire, ms or µs, as ns."""
    return time * (1_000 if time >= _MICROSECONDS_FROM else 1_000_000)


def plain(lines: bytes) -> Plain | None:
    """The events of a group's lines; None where any line is another than a plain frame of a combined stream."""
    parted = _parted(lines)
    if parted is None:
        return None
    depth, others = parted
    out = Plain()
    try:
        if others and not _add_events(out, others):
            return None
        if depth and not _add_updates(out, depth):
            return None
    except WIRE_ERRORS:
        return None
    return out


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
    found = stamped(lines, count_of(lines, _OPENING), _decode)
    if found is None:
        return False
    stamps, frames = found
    events = [frame.data for frame in frames]
    is_trade = [event.e is not None for event in events]
    trades = sum(is_trade)
    if lines.count(_TRADE) != trades or lines.count(_QUOTE) != len(events) - trades:
        return False
    if trades:
        out.trades = _trades(_picked(stamps, is_trade), _picked(events, is_trade))
        if out.trades is None:
            return False
    if trades < len(events):
        is_quote = [not one for one in is_trade]
        out.quotes = _quotes(_picked(stamps, is_quote), _picked(events, is_quote))
        if out.quotes is None:
            return False
    return True


def _picked(items: list[Any], mask: list[bool]) -> list[Any]:
    return items if all(mask) else list(compress(items, mask))


def _trades(stamps: list[int], found: Sequence[_Event]) -> PlainTrades | None:
    makers: list[Any] = [m.m for m in found]
    prices: list[Any] = [m.p for m in found]
    amounts: list[Any] = [m.q for m in found]
    ids = [m.t for m in found]
    orders = [one for m in found if (one := m.a) is not None or (one := m.b) is not None]
    if (
        orders
        or set(map(type, makers)) != {bool}
        or set(map(type, prices)) != {str}
        or set(map(type, amounts)) != {str}
        or min(ids) < 0
    ):
        return None
    times = [m.T for m in found]
    unit = 1_000 if min(times) >= _MICROSECONDS_FROM else 1_000_000
    if unit == 1_000_000 and max(times) >= _MICROSECONDS_FROM:
        return None
    return PlainTrades(
        stamps,
        [m.s for m in found],
        [time * unit for time in times],
        ids,
        [not is_maker for is_maker in makers],
        prices,
        amounts,
    )


def _quotes(stamps: list[int], found: Sequence[_Event]) -> PlainQuotes | None:
    columns: list[list[Any]] = [
        [m.b for m in found],
        [m.B for m in found],
        [m.a for m in found],
        [m.A for m in found],
    ]
    ids = [m.u for m in found]
    are_texts = all(set(map(type, column)) == {str} for column in columns)
    if not are_texts or min(ids) < 0:
        return None
    return PlainQuotes(stamps, [m.s for m in found], ids, *columns)


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
