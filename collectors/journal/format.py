"""Lines of the journal: frames, marks, and the commit that makes a group of them durable. Pure, no I/O.

The format itself is described in the package's docstring.
"""

from __future__ import annotations

import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from msgspec import DecodeError, Struct, field
from msgspec.json import Decoder, Encoder

FORMAT = 1
ESCAPE = b"base64:"
COMMIT_START = b'{"mark":"commit",'
Reason = Literal["disconnect", "stall", "crash", "disk", "shutdown", "handover", "venue", "rotate"]
SEGMENT_NAME = re.compile(r"(?P<epoch>\d+)-(?P<seq>\d{6,})\.journal\.zst")


class JournalError(ValueError):
    """A line or a file is not what the journal's format says; the text tells what was found and what was expected."""


class _Mark(Struct, frozen=True, tag_field="mark", tag=str.lower):
    """A line of our own; ``at`` is ns since 1970, UTC."""

    at: int


class Header(_Mark, frozen=True):
    """First line of every segment: whose frames these are and what wrote them. ``epoch`` in ns, ``segment`` from 0."""

    stream: str
    exchange: str
    url: str
    ingestor: str
    epoch: int
    segment: int
    software: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT


class Subscribed(_Mark, frozen=True):
    """The exchange acknowledged a subscription; ``symbols`` are native ids."""

    channel: str
    symbols: list[str]


class Unsubscribed(_Mark, frozen=True):
    """The exchange acknowledged the end of a subscription; ``symbols`` are native ids."""

    channel: str
    symbols: list[str]


class Gap(_Mark, frozen=True):
    """The recorder saw that something is missing before this moment: an update id that does not follow the one before,
    a frame's number likewise, or a book's checksum (``expected``: the exchange's). Both None: a frame that cannot be
    read where nothing else would show what it was.

    Where ids chain readers check for themselves; elsewhere this mark is all there is to tell.
    """

    channel: str
    symbol: str
    expected: int | None = None
    found: int | None = None


class Snapshot(_Mark, frozen=True):
    """A REST snapshot of a book as received: ``at`` and ``requested_at`` in ns, ``reply`` the raw body."""

    channel: str
    symbol: str
    url: str
    requested_at: int
    reply: str


class Commit(_Mark, frozen=True):
    """Closes a group: what is before it is durable. ``alive`` = receive time of the last frame or heartbeat, ns."""

    alive: int
    lines: int
    offset: int
    crc: int


class Close(_Mark, frozen=True):
    """The connection ended, and why; ``rotate`` means that the epoch goes on in the next segment."""

    reason: Reason


Mark = Header | Subscribed | Unsubscribed | Gap | Snapshot | Commit | Close
_encode = Encoder().encode
_decode: Callable[[bytes], Mark] = Decoder(Mark).decode


class Position(Struct, frozen=True):
    """Where to resume: byte of a zstd frame's start, the same place in uncompressed bytes, first byte not consumed."""

    frame: int = 0
    frame_offset: int = 0
    line_offset: int = 0


class Group(Struct, frozen=True):
    """One committed group: whole lines (the commit mark left out), their place, and where to resume after it.

    ``start`` counts uncompressed bytes of the segment; ``at`` and ``alive`` are the commit's, in ns.
    """

    data: bytes
    start: int
    at: int
    alive: int
    end: Position


class Damage(Struct, frozen=True):
    """Bytes of a segment file that could not be read, half open, and what was found there."""

    from_byte: int
    to_byte: int
    detail: str


class Segment(Struct, frozen=True, order=True):
    """A segment's place in its stream: ``epoch`` in ns, ``seq`` from 0."""

    epoch: int
    seq: int

    @property
    def name(self) -> str:
        return f"{self.epoch}-{self.seq:06d}.journal.zst"


def segment_of(path: Path) -> Segment:
    """Epoch and number of a segment file, from its name. Raises JournalError for another kind of name."""
    match = SEGMENT_NAME.fullmatch(path.name)
    if match is None:
        raise JournalError(f"{path}: not a segment; expected a name like 1700000000000000000-000000.journal.zst")
    return Segment(int(match["epoch"]), int(match["seq"]))


def segments(folder: Path) -> list[Path]:
    """The segments of a stream's folder in order of (epoch, seq); empty where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if SEGMENT_NAME.fullmatch(path.name)), key=segment_of)


def encode_frame(recv_ns: int, payload: bytes) -> bytes:
    """The line of a frame, escaped where the payload would not survive as a line of text."""
    try:
        payload.decode()
        is_text = True
    except UnicodeDecodeError:
        is_text = False
    if not is_text or payload.startswith(ESCAPE) or b"\n" in payload or b"\r" in payload:
        payload = ESCAPE + b64encode(payload)
    return b"%d %b\n" % (recv_ns, payload)


Frames = tuple[int, Sequence[bytes]]
"""Receive time in ns, and the payloads that were received together."""


def runs(items: Sequence[Frames | bytes], frames: int = 256) -> Iterator[Sequence[Frames | bytes]]:
    """The items in runs of about so many frames: what is encoded while it lies in the processor's cache."""
    start = count = 0
    for end, item in enumerate(items, 1):
        count += 1 if isinstance(item, bytes) else len(item[1])
        if count >= frames:
            yield items[start:end]
            start, count = end, 0
    if start < len(items):
        yield items[start:]


def encode_lines(items: Sequence[Frames | bytes]) -> tuple[bytes, int]:
    """Lines of frames and marks (bytes: whole lines), escaped where needed, and how many they are.

    Nearly no frame needs escaping, and looking at all of them at once is several times cheaper than one by one.
    """
    parts: list[bytes] = []
    payloads: list[bytes] = []
    count = 0
    for item in items:
        if isinstance(item, bytes):
            parts.append(item)
            count += 1
        elif item[1]:
            stamp = b"%d " % item[0]
            parts += (stamp, (b"\n" + stamp).join(item[1]), b"\n")
            payloads += item[1]
            count += len(item[1])
    text, body = b"".join(parts), b"".join(payloads)
    # Each search is a pass over it all: a byte that is absent is four times faster than counting one that is there,
    # and the rare end of " base64:" twice as fast as the whole.
    is_plain = b"\n" not in body and b"\r" not in body and (b"e64:" not in body or b" " + ESCAPE not in text)
    if is_plain and (body.isascii() or _is_utf8(text)):
        return text, count
    return b"".join(map(_escaped, items)), count


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _escaped(item: Frames | bytes) -> bytes:
    if isinstance(item, bytes):
        return item
    return b"".join(encode_frame(item[0], payload) for payload in item[1])


def encode_mark(mark: Mark) -> str:
    """The line of a mark."""
    return _encode(mark).decode() + "\n"


def encode_commit(crc: int, *, at: int, alive: int, lines: int, offset: int) -> bytes:
    """The commit line of a group of this CRC-32, which starts at ``offset`` uncompressed bytes.

    Its ``crc`` is that of the group and of the line itself up to ``"crc":``, so that no field can change unnoticed.
    """
    line = b'{"mark":"commit","at":%d,"alive":%d,"lines":%d,"offset":%d,"crc":' % (at, alive, lines, offset)
    return line + b"%d}\n" % zlib.crc32(line, crc)


def crc_of(group: memoryview, line: bytes) -> int:
    """What the ``crc`` of the commit ``line`` must be for this group."""
    return zlib.crc32(line[: line.rfind(b":") + 1], zlib.crc32(group))


def lines(data: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    """Each line without its newline, with its offset, where ``data`` starts at offset ``start``."""
    offset = start
    for line in data.split(b"\n")[:-1]:
        yield offset, line
        offset += len(line) + 1


def is_mark(line: bytes) -> bool:
    """Whether the line is a mark; otherwise it is a frame."""
    return line.startswith(b"{")


def parse_frame(line: bytes) -> tuple[int, bytes]:
    """Receive time (ns) and payload as received. Raises JournalError where the line is no frame."""
    stamp, space, payload = line.partition(b" ")
    try:
        recv_ns = int(stamp)
        if payload.startswith(b"base64:"):
            payload = b64decode(payload[7:], validate=True)
    except ValueError as error:
        raise JournalError(f"not a frame: {line[:80]!r}; expected '<recv_ns> <payload>'") from error
    if not space:
        raise JournalError(f"not a frame: {line[:80]!r}; expected '<recv_ns> <payload>'")
    return recv_ns, payload


def parse_mark(line: bytes) -> Mark:
    """The mark of a line. Raises JournalError where it is none that this version knows."""
    try:
        return _decode(line)
    except DecodeError as error:
        raise JournalError(f"not a mark: {line[:80]!r}: {error}") from error
