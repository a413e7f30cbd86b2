"""Binance spot's frames in groups: see collectors.decode.plain. The wire is described in collectors.decode.binance."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from types import NoneType
from typing import Annotated, Any, Final

from msgspec import Meta, Raw, Struct
from msgspec.json import Decoder as Json

from collectors.decode.plain import Plain, PlainQuotes, PlainTrades, PlainUpdates, Stamp, stamped
from collectors.decode.wire import WIRE_ERRORS

Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""As PostgreSQL's bigint holds it; what is larger is a changed wire format."""
_MICROSECONDS_FROM: Final = 10**14
"""Read as ms it is the year 5138, read as µs 1973: no time of one unit is mistaken for the other."""


class _Event(Struct, gc=False):
    """A trade or a quote: which of the two, ``e`` tells; what is missing shows as something that neither holds."""

    s: str
    e: str | None = None
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
    stream: str
    data: _Event


class _Depth(Struct, tag_field="e", tag="depthUpdate", gc=False):
    s: str
    E: int
    U: Id
    u: Id
    b: Raw
    a: Raw


class _DepthFrame(Struct, gc=False):
    stream: str
    data: _Depth


_decode = Json(Stamp | _Frame).decode_lines
_decode_depth = Json(Stamp | _DepthFrame).decode_lines


def ns(time: int) -> int:
    """A time of the wire, ms or µs, as ns."""
    return time * (1_000 if time >= _MICROSECONDS_FROM else 1_000_000)


def plain(lines: bytes) -> Plain | None:
    """The events of a group's lines; None where any line is another than a plain frame of a combined stream."""
    depth, others = _parted(lines)
    out = Plain()
    try:
        if others and not _add_events(out, others):
            return None
        if depth and not _add_updates(out, depth):
            return None
    except WIRE_ERRORS:
        return None
    return out


def _parted(lines: bytes) -> tuple[bytes, bytes]:
    """Lines of depth updates, and the others."""
    at = lines.find(b"@depth")
    depth: list[bytes] = []
    others: list[bytes] = []
    start = 0
    while at >= 0:
        begin = max(lines.rfind(b"\n", start, at) + 1, start)
        end = lines.find(b"\n", at) + 1 or len(lines)
        others.append(lines[start:begin])
        depth.append(lines[begin:end])
        start = end
        at = lines.find(b"@depth", start)
    others.append(lines[start:])
    return b"".join(depth), b"".join(others)


def _add_events(out: Plain, lines: bytes) -> bool:
    """Add trades and quotes; whether that is what all the lines are."""
    found = stamped(lines, _decode)
    if found is None:
        return False
    stamps, frames = found
    kinds = [frame.data.e for frame in frames]
    present = set(kinds)
    if not present <= {None, "trade"}:
        return False
    if "trade" in present:
        is_trade = [kind is not None for kind in kinds]
        trades = _picked(stamps, is_trade), _picked(frames, is_trade)
        out.trades = _trades(*trades)
        if out.trades is None:
            return False
    if None in present:
        is_quote = [kind is None for kind in kinds]
        out.quotes = _quotes(_picked(stamps, is_quote), _picked(frames, is_quote))
        if out.quotes is None:
            return False
    return True


def _picked(items: list[Any], mask: list[bool]) -> list[Any]:
    return items if all(mask) else list(compress(items, mask))


def _are_of(frames: Sequence[_Frame | _DepthFrame], *suffixes: str) -> bool:
    """Whether all frames are of streams with one of these suffixes."""
    return all(stream[stream.find("@") :] in suffixes for stream in {frame.stream for frame in frames})


def _trades(stamps: list[int], frames: Sequence[_Frame]) -> PlainTrades | None:
    found = [frame.data for frame in frames]
    makers: list[Any] = [m.m for m in found]
    prices: list[Any] = [m.p for m in found]
    amounts: list[Any] = [m.q for m in found]
    ids = [m.t for m in found]
    orders = [m.a for m in found] + [m.b for m in found]
    if (
        set(map(type, orders)) != {NoneType}
        or set(map(type, makers)) != {bool}
        or set(map(type, prices)) != {str}
        or set(map(type, amounts)) != {str}
        or min(ids) < 0
        or not _are_of(frames, "@trade")
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


def _quotes(stamps: list[int], frames: Sequence[_Frame]) -> PlainQuotes | None:
    found = [frame.data for frame in frames]
    columns: list[list[Any]] = [
        [m.b for m in found],
        [m.B for m in found],
        [m.a for m in found],
        [m.A for m in found],
    ]
    ids = [m.u for m in found]
    are_texts = all(set(map(type, column)) == {str} for column in columns)
    if not are_texts or min(ids) < 0 or not _are_of(frames, "@bookTicker"):
        return None
    return PlainQuotes(stamps, [m.s for m in found], ids, *columns)


def _add_updates(out: Plain, lines: bytes) -> bool:
    """Add book updates; whether that is what all the lines are."""
    found = stamped(lines, _decode_depth)
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
    return _are_of(frames, "@depth", "@depth@100ms")
