"""Frames out of a socket's bytes, against aiohttp's own reader of the same bytes."""

from __future__ import annotations

import asyncio
import itertools
import struct
import zlib
from typing import Any

import pytest
from aiohttp import WSMsgType
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from hypothesis import given
from hypothesis import strategies as st

from collectors.record.tap import DataToSink, FrameSplitter

LARGEST = 200_000
MESSAGES = st.tuples(
    st.sampled_from(["text", "binary", "fragments", "compressed", "ping", "pong"]),
    st.one_of(
        st.binary(max_size=130),
        st.integers(0, 70_000).map(lambda size: b"x" * size),
        st.sampled_from([b"", b"\x81\x7e", b"\n" * 10]),
    ),
)


class Kept:
    """A sink that keeps all, in order."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, bytes]] = []
        self.times: list[int] = []

    def texts(self, now: int, payloads: list[bytes]) -> None:
        self.taken += [("TEXT", payload) for payload in payloads]
        self.times.append(now)

    def binary(self, now: int, payload: bytes) -> None:
        self.taken.append(("BINARY", payload))
        self.times.append(now)


class Protocol:
    """What aiohttp's queue asks of a connection."""

    _reading_paused = False

    def pause_reading(self) -> None:
        self._reading_paused = True


def frame(first: int, payload: bytes) -> bytes:
    """RFC 6455, 5.2, without a mask."""
    if len(payload) < 126:
        return struct.pack(">BB", first, len(payload)) + payload
    if len(payload) < 65536:
        return struct.pack(">BBH", first, 126, len(payload)) + payload
    return struct.pack(">BBQ", first, 127, len(payload)) + payload


def sent(kind: str, payload: bytes) -> bytes:
    """The bytes of a message."""
    match kind:
        case "text":
            return frame(0x81, payload)
        case "binary":
            return frame(0x82, payload)
        case "ping" | "pong":
            return frame(0x89 if kind == "ping" else 0x8A, payload[:125])
        case "compressed":  # RFC 7692, 7.2.1
            packer = zlib.compressobj(wbits=-15)
            packed = packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH)
            return frame(0xC1, packed.removesuffix(b"\x00\x00\xff\xff"))
    half = len(payload) // 2
    return frame(0x01, payload[:half]) + frame(0x89, b"between") + frame(0x80, payload[half:])


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


def queue_of(loop: Any) -> Any:
    protocol: Any = Protocol()
    return WebSocketDataQueue(protocol, 1 << 30, loop=loop)


def control_of(queue: Any) -> list[tuple[str, Any]]:
    return [(message.type.name, message.data) for message, _ in queue._buffer]


def split(data: list[bytes]) -> tuple[Kept, Any, list[bool]]:
    """What comes out of the splitter: data, aiohttp's queue, and whether the protocol was broken."""
    loop = asyncio.new_event_loop()
    try:
        kept, control = Kept(), queue_of(loop)
        reader = WebSocketReader(DataToSink(kept, control, Protocol(), loop), LARGEST, compress=True, decode_text=False)
        splitter = FrameSplitter(kept, reader, LARGEST)
        broken = [splitter.feed_data(piece)[0] for piece in data]
        return kept, control, broken
    finally:
        loop.close()


def aiohttps_own(data: bytes) -> list[tuple[str, Any]]:
    loop = asyncio.new_event_loop()
    try:
        queue = queue_of(loop)
        assert not WebSocketReader(queue, LARGEST, compress=True, decode_text=False).feed_data(data)[0]
        return control_of(queue)
    finally:
        loop.close()


@given(st.lists(MESSAGES, max_size=12), st.lists(st.integers(0, 1 << 20), max_size=12))
def test_all_comes_out_as_aiohttp_reads_it_wherever_the_bytes_are_cut(
    messages: list[tuple[str, bytes]], cuts: list[int]
) -> None:
    data = b"".join(sent(*message) for message in messages)
    truth = aiohttps_own(data)
    kept, control, broken = split(pieces(data, cuts))
    assert not any(broken)
    is_data = {WSMsgType.TEXT.name, WSMsgType.BINARY.name}
    assert kept.taken == [message for message in truth if message[0] in is_data]
    assert control_of(control) == [message for message in truth if message[0] not in is_data]
    assert kept.times == sorted(kept.times)


def test_byte_by_byte() -> None:
    messages = [("text", b"a"), ("text", b"b" * 300), ("binary", b""), ("text", b"c" * 70_000), ("ping", b"?")]
    data = b"".join(sent(*message) for message in messages)
    kept, control, _ = split([data[at : at + 1] for at in range(len(data))])
    assert kept.taken == [("TEXT", b"a"), ("TEXT", b"b" * 300), ("BINARY", b""), ("TEXT", b"c" * 70_000)]
    assert control_of(control) == [("PING", b"?")]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("too large", frame(0x81, b"x" * (LARGEST + 1))),
        ("an unknown opcode", frame(0x83, b"x")),
        ("a length of 2^63", struct.pack(">BBQ", 0x81, 127, 1 << 63)),
        ("a compressed frame that is none", frame(0xC1, b"\xff\xff\xff")),
    ],
)
def test_what_breaks_the_protocol_is_told_to_aiohttp(name: str, wrong: bytes) -> None:
    kept, control, broken = split([frame(0x81, b"before") + wrong, frame(0x81, b"after")])
    assert kept.taken == [("TEXT", b"before")], name
    assert broken[0], name
    assert control.exception() is not None, name


def test_masked_frames_are_left_to_aiohttp() -> None:
    mask = b"\x01\x02\x03\x04"
    masked = bytes([0x81, 0x80 | 3]) + mask + bytes(byte ^ key for byte, key in zip(b"abc", mask, strict=False))
    kept, _, broken = split([masked[:4], masked[4:] + frame(0x81, b"after")])
    assert kept.taken == [("TEXT", b"abc"), ("TEXT", b"after")]
    assert not any(broken)
