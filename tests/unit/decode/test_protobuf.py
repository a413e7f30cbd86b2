"""The reader of Protocol Buffers: what is written can be read, and nothing else is."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.decode.protobuf import fields, integer, message, string, varint


def encoded_varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def encoded(*pairs: tuple[int, int | str | bytes]) -> bytes:
    """A message with these fields."""
    out = b""
    for number, value in pairs:
        if isinstance(value, int):
            out += encoded_varint(number << 3) + encoded_varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += encoded_varint(number << 3 | 2) + encoded_varint(len(data)) + data
    return out


_FIELDS = st.lists(
    st.tuples(st.integers(1, 2**29 - 1), st.integers(0, 2**64 - 1) | st.binary(max_size=300)), max_size=6
)


@given(_FIELDS)
def test_what_is_written_is_read(pairs: list[tuple[int, int | bytes]]) -> None:
    assert fields(encoded(*pairs)) == pairs


def test_the_kinds_of_the_documentation_s_examples() -> None:
    assert fields(bytes.fromhex("089601")) == [(1, 150)]
    assert fields(bytes.fromhex("120774657374696e67")) == [(2, b"testing")]
    assert fields(bytes.fromhex("0d01020304" + "110102030405060708")) == [
        (1, bytes(range(1, 5))),
        (2, bytes(range(1, 9))),
    ]
    assert varint(bytes.fromhex("9601ff"), 0) == (150, 2)


def test_values_are_read_as_what_they_are() -> None:
    assert [integer(value) for _, value in fields(encoded((1, -2), (2, 7)))] == [-2, 7]
    assert [string(value) for _, value in fields(encoded((1, "é")))] == ["é"]
    for read, value in ((integer, b"1"), (message, 1), (string, 1), (string, b"\xff")):
        with pytest.raises(ValueError):  # noqa: PT011 - UnicodeDecodeError too
            read(value)


@pytest.mark.parametrize("data", ["08", "0880", "0a05616263", "0d010203", "0b", "0e01", "08" + "ff" * 11, "8a"])
def test_what_is_cut_off_or_unknown_raises(data: str) -> None:
    with pytest.raises(ValueError, match="protobuf"):
        fields(bytes.fromhex(data))


@given(st.binary(max_size=100))
def test_random_bytes_raise_nothing_but_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        fields(data)
