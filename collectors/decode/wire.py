"""What several wire formats share: compressed payloads, JSON numbers as text, times as ns. All exact, none a float."""

from __future__ import annotations

import re
import zlib
from calendar import timegm
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Literal

from msgspec import DecodeError as JsonError
from msgspec import Raw, Struct, ValidationError
from msgspec.json import Decoder as Json

from collectors.events import Level

WIRE_ERRORS: Final = (JsonError, ValidationError, UnicodeDecodeError, RecursionError, ValueError, zlib.error)
"""What reading a frame that is not what it should be may raise; a decoder turns each into a DecodeError."""
_LARGEST: Final = 64 << 20
"""Bytes; what unpacks to more is no market data."""
_ISO: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:?\d\d)?", re.ASCII
)
_floats: Final = {2: Json(list[tuple[float, float]]).decode, 3: Json(list[tuple[float, float, float]]).decode}
_SECONDS: Final = re.compile(r"(\d{1,11})(?:\.(\d{1,9})\d*)?", re.ASCII)


def unpacked(payload: bytes) -> bytes:
    """The payload, unpacked where it is gzip or zlib. Raises ValueError or zlib.error."""
    if payload[:2] == b"\x1f\x8b" or payload[:2] in (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"):
        packed = zlib.decompressobj(wbits=47)
        out = packed.decompress(payload, _LARGEST)
        if not packed.eof:
            raise ValueError(f"compressed data that is cut off, or unpacks to more than {_LARGEST} bytes")
        return out
    return payload


def number(raw: Raw) -> str:
    """A JSON number, or a string that holds one, as its text: every digit as it was sent."""
    text = bytes(raw).decode()
    if text.startswith('"'):
        text = text[1:-1]
    if not text or text[0] not in "-0123456789":
        raise ValueError(f"{text[:80]!r} is no number")
    return text


def ns_of_ms(ms: int) -> int:
    """ms since 1970 as ns."""
    return ms * 1_000_000


def ns_of_seconds(text: str) -> int:
    """Decimal seconds since 1970, ``1700000000.123456``, as ns; digits behind the ninth are cut. Raises ValueError."""
    found = _SECONDS.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:80]!r}: expected seconds since 1970")
    seconds, fraction = found.groups()
    return int(seconds) * 10**9 + int((fraction or "").ljust(9, "0"))


def ns_of_iso(text: str) -> int:
    """ISO 8601, UTC unless it names another offset, as ns; digits behind the ninth are cut. Raises ValueError."""
    found = _ISO.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:80]!r}: expected a time such as 2023-11-14T22:13:20.123456Z")
    *date, fraction, zone = found.groups()
    year, month, day, hour, minute, second = (int(part) for part in date)
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        raise ValueError(f"{text[:80]!r} is no time")
    at = timegm((year, month, day, hour, minute, second))
    if zone and zone != "Z":
        offset = int(zone[1:3]) * 3600 + int(zone[-2:]) * 60
        at -= offset if zone[0] == "+" else -offset
    return at * 10**9 + int((fraction or "").ljust(9, "0"))


class PriceQty(Struct, gc=False):
    """A level written as an object of two JSON numbers."""

    price: Raw
    qty: Raw


def text_of(raw: Raw) -> str:
    """As ``number``, which it calls only for what is not a bare JSON number; three times as quick."""
    text = str(raw, "ascii")
    return text if text[0] in "-0123456789" else number(raw)


def texts_of(levels: Sequence[PriceQty]) -> list[Level]:
    """Levels as the texts of their numbers. Raises ValueError."""
    return [(text_of(level.price), text_of(level.qty)) for level in levels]


def ns_of_utc(text: str) -> int:
    """As ``ns_of_iso``; quicker where a time is written ``2023-11-14T22:13:20.123456Z`` and its second repeats."""
    fraction = text[20:-1]
    if (
        text[19:20] == "."
        and text[-1] == "Z"
        and 0 < len(fraction) <= 9
        and fraction.isascii()
        and fraction.isdecimal()
    ):
        return _whole_second(text[:19]) + int(fraction.ljust(9, "0"))
    return ns_of_iso(text)


_whole_second: Final = lru_cache(maxsize=1024)(ns_of_iso)


def levels(raw: Raw, width: Literal[2, 3] = 2) -> list[tuple[str, str]]:
    """A JSON array of ``[price,amount]`` or ``[price,amount,other]`` in JSON numbers as the texts of the first two.

    The floats only prove its shape: four times as quick as a Raw for each number. Raises one of WIRE_ERRORS.
    """
    _floats[width](raw)
    text = "".join(bytes(raw).decode().split())
    if text == "[]":
        return []
    numbers = text[2:-2].replace("],[", ",").split(",")
    return list(zip(numbers[::width], numbers[1::width], strict=True))
