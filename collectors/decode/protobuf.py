"""Protocol Buffers' wire format, read without a schema compiler: https://protobuf.dev/programming-guides/encoding/."""

from __future__ import annotations


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The unsigned integer of at most 64 bits that begins at ``at``, and where it ends. Raises ValueError."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError(f"protobuf: an integer that is cut off or too long at byte {at}")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """Numbers and values of the fields in order: integers, else bytes (fixed width: 4 or 8). May raise ValueError."""
    found: list[tuple[int, int | bytes]] = []
    at, end = 0, len(data)
    while at < end:
        tag = data[at]
        if tag < 0x80:
            at += 1
        else:
            tag, at = varint(data, at)
        kind = tag & 7
        if kind == 2:
            if at < end and data[at] < 0x80:
                length = data[at]
                at += 1
            else:
                length, at = varint(data, at)
        elif kind == 0:
            value, at = varint(data, at)
            found.append((tag >> 3, value))
            continue
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"protobuf: wire type {kind} before byte {at}; expected 0, 1, 2 or 5")
        if at + length > end:
            raise ValueError(f"protobuf: field {tag >> 3} of {length} bytes is cut off at byte {end}")
        found.append((tag >> 3, data[at : at + length]))
        at += length
    return found


def integer(value: int | bytes) -> int:
    """The value of an int32, int64 or bool field. Raises ValueError where it is another kind's."""
    if not isinstance(value, int):
        raise ValueError(f"protobuf: {value[:40]!r} is no integer")  # noqa: TRY004 - it is the data that is wrong
    return value if value < 1 << 63 else value - (1 << 64)


def message(value: int | bytes) -> bytes:
    """The bytes of an embedded message. Raises ValueError where it is an integer."""
    if not isinstance(value, bytes):
        raise ValueError(f"protobuf: {value} is no message")  # noqa: TRY004
    return value


def string(value: int | bytes) -> str:
    """The text of a string field. Raises ValueError."""
    return message(value).decode()
