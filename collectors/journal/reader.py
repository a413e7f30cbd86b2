"""Reading segments: committed groups, while they are being written or after their writer died, around any damage."""

from __future__ import annotations

import fcntl
import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol, Self

import zstandard

from collectors.journal.format import (
    COMMIT_START,
    Close,
    Commit,
    Damage,
    Group,
    JournalError,
    Position,
    crc_of,
    parse_frame,
    parse_mark,
)

_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_PIECE: Final = 1 << 18
_WINDOW_LIMIT: Final = 1 << 23  # the writer stays below; a damaged header must not make us take more memory
_BLOCK_LIMIT: Final = 128 * 1024  # no zstd block is larger, compressed or not


class _Decompressor(Protocol):
    def decompress(self, data: bytes, /) -> bytes: ...


class _UndecodableError(Exception):
    """The bytes at this place are not what a zstd frame holds there."""


def is_writer_alive(path: Path) -> bool:
    """Whether a process still holds the segment's lock. Ask before reading: what is read afterwards is then all."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _frame_header_size(raw: bytes | bytearray, at: int) -> int | None:
    """Bytes of the zstd frame header at ``at``; None where more are needed (RFC 8878, 3.1.1)."""
    if raw[at : at + 4] != _MAGIC[: len(raw) - at]:
        raise _UndecodableError("no zstd frame starts here")
    if len(raw) - at < 5:
        return None
    descriptor = raw[at + 4]
    if descriptor & 0b1000:
        raise _UndecodableError("a zstd frame header with the reserved bit set")
    single = descriptor >> 5 & 1
    size = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + ((single, 2, 4, 8)[descriptor >> 6])
    return size if len(raw) - at >= size else None


def _block_size(raw: bytes | bytearray, at: int) -> tuple[int, bool] | None:
    """Bytes of the zstd block at ``at`` with its header, and whether it is its frame's last; None: more are needed."""
    if len(raw) - at < 3:
        return None
    header = int.from_bytes(raw[at : at + 3], "little")
    kind, size = header >> 1 & 3, header >> 3
    if kind == 3 or size > _BLOCK_LIMIT:
        raise _UndecodableError(f"a zstd block of type {kind} and {size} bytes")
    size = 3 + (1 if kind == 1 else size)
    return (size, bool(header & 1)) if len(raw) - at >= size else None


class _Blocks:
    """Decompresses block by block, so that one that is whole is never lost to a damaged one behind it."""

    def __init__(self, byte: int) -> None:
        self.byte = byte  # file offset of raw[0]: the next zstd frame or block
        self.raw = bytearray()
        self.frame = byte  # file offset of the zstd frame being read
        self.inside = False
        self._decompressor: _Decompressor | None = None

    def _take(self, size: int) -> bytes:
        data = bytes(self.raw[:size])
        del self.raw[:size]
        self.byte += size
        return data

    def next(self) -> tuple[bytes, bool] | None:
        """Content of the next block and whether it ends its zstd frame; None: more bytes are needed."""
        try:
            if not self.inside:
                header = _frame_header_size(self.raw, 0) if self.raw else None
                if header is None:
                    return None
                self.frame = self.byte
                self._decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_LIMIT).decompressobj()
                self._decompressor.decompress(self._take(header))
                self.inside = True
            block = _block_size(self.raw, 0)
            if block is None:
                return None
            size, last = block
            assert self._decompressor is not None
            content = self._decompressor.decompress(bytes(self.raw[:size]))
        except zstandard.ZstdError as error:
            raise _UndecodableError(str(error)) from error
        self._take(size)
        self.inside = not last
        return content, last

    def restart(self, skip: int) -> None:
        """Go on at the zstd frame ``skip`` bytes ahead."""
        self._take(skip)
        self.inside = False


def _starts_readable_frame(raw: bytearray, at: int) -> bool | None:
    """Whether a zstd frame starts here whose first group is whole: only then is it ours. None: more bytes may tell."""
    blocks, text = _Blocks(0), bytearray()
    blocks.raw = raw[at:]
    try:
        while (block := blocks.next()) is not None:
            text += block[0]
            commit = _find_commit(text, 0)
            if commit is not None:
                return _group_start(text, commit, None) is not None
            if block[1]:
                return False
    except _UndecodableError:
        return False
    return None


def _find_commit(text: bytearray, scan: int) -> tuple[int, int] | None:
    """First and one past the last byte of the first commit line from ``scan`` (a line's start or its newline) on."""
    at = 0 if scan == 0 and text.startswith(COMMIT_START) else text.find(b"\n" + COMMIT_START, scan) + 1
    if at == 0 and not (scan == 0 and text.startswith(COMMIT_START)):
        return None
    end = text.find(b"\n", at)
    return None if end < 0 else (at, end + 1)


def _group_start(text: bytearray, commit: tuple[int, int], offset: int | None) -> tuple[int, Commit] | None:
    """Where in ``text`` the group of this commit line starts, and the commit; None where its crc does not fit.

    It starts where the text does, or, behind a damaged group, where the commit's own offset says;
    ``offset`` is that of ``text``, None where it is not known.
    """
    first, past = commit
    line = bytes(text[first : past - 1])
    try:
        mark = parse_mark(line)
    except JournalError:
        return None
    if not isinstance(mark, Commit):
        return None
    starts = [0] if offset is None or not 0 < mark.offset - offset <= first else [0, mark.offset - offset]
    with memoryview(text) as view:
        for start in starts:
            with view[start:first] as group:
                if crc_of(group, line) == mark.crc:
                    return start, mark
    return None


class SegmentReader:
    """Reads one segment from ``position`` on; ``read`` again to follow a writer that is still at it.

    ``close_mark`` is set once the segment's close mark was read. Raises FileNotFoundError where there is no segment.
    """

    def __init__(self, path: Path, position: Position | None = None) -> None:
        start = position or Position()
        self.path = path
        self.close_mark: Close | None = None
        self._file = path.open("rb", buffering=0)
        self._blocks = _Blocks(start.frame)
        self._frame = start.frame
        self._frame_offset: int | None = start.frame_offset
        self._consumed = start.line_offset
        self._text = bytearray()
        self._offset: int | None = start.frame_offset  # of text[0] in the segment; None behind damage, till a commit
        self._scan = 0  # no commit line starts in the text before this
        self._good = start.frame  # one past the last byte of the file that belongs to a whole group
        self._lost: tuple[int, str] | None = None  # since where nothing could be read, and why
        self._damages: list[Damage] = []  # not told yet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; reading on is an error afterwards."""
        self._file.close()

    def read(self) -> Iterator[Group | Damage]:
        """The committed groups there are now, and the damage between them, in order of the file.

        Damage before the position is not told again. A torn tail is not damage here, see ``torn_tail``.
        """
        while piece := os.pread(self._file.fileno(), _PIECE, self._blocks.byte + len(self._blocks.raw)):
            self._blocks.raw += piece
            yield from self._drain()
        if self._lost is None and self._resync("a zstd block longer than what is left of it", certain=False):
            yield from self._drain()
        yield from self._tell_damages()

    def torn_tail(self) -> Damage | None:
        """What is left unread at the end, once ``read`` has nothing more and the writer is known to be dead."""
        end = os.fstat(self._file.fileno()).st_size
        if self._lost is not None:
            return Damage(self._lost[0], end, self._lost[1])
        if self._text or self._blocks.raw or (self._blocks.inside and self._good < self._blocks.byte):
            return Damage(self._good, end, "a group that was never committed")
        return None

    def _drain(self) -> Iterator[Group | Damage]:
        """Work off the bytes at hand."""
        while self._lost is None or self._resync(self._lost[1], certain=True):
            try:
                block = self._blocks.next()
            except _UndecodableError as error:
                self._lost = (self._good, str(error))
                continue
            if block is None:
                return
            if self._blocks.frame != self._frame:
                self._frame, self._frame_offset = self._blocks.frame, self._offset
            yield from self._groups(*block)

    def _groups(self, content: bytes, last: bool) -> Iterator[Group | Damage]:
        """The groups that this block completes."""
        self._text += content
        while (commit := _find_commit(self._text, self._scan)) is not None:
            first, past = commit
            self._scan = 0
            found = _group_start(self._text, commit, self._offset)
            if found is None:
                self._damage("a group whose checksum does not fit")
                self._offset = None if self._offset is None else self._offset + past
                del self._text[:past]
                continue
            start, mark = found
            if start:
                self._damage("a group whose checksum does not fit")
            data = bytes(self._text[start:first])
            del self._text[:past]
            self._offset = mark.offset + past - start
            self._good = self._blocks.byte
            if self._frame_offset is None:
                self._frame_offset = mark.offset
            yield from self._tell(data, mark, whole_frame=last and not self._text)
        self._scan = max(self._text.rfind(b"\n"), 0)
        if last and self._text:
            self._damage("a zstd frame that ends within a group")
            self._text.clear()
            self._scan, self._offset = 0, None

    def _tell(self, data: bytes, mark: Commit, *, whole_frame: bool) -> Iterator[Group | Damage]:
        assert self._offset is not None
        assert self._frame_offset is not None
        if self._offset <= self._consumed:
            self._damages.clear()
            return
        yield from self._tell_damages()
        tail = data.rfind(b"\n", 0, -1) + 1
        if data.startswith(b'{"mark":"close"', tail):
            close = parse_mark(data[tail:])
            self.close_mark = close if isinstance(close, Close) else None
        start = max(mark.offset, self._consumed)
        if whole_frame:
            end = Position(self._blocks.byte, self._offset, self._offset)
        else:
            end = Position(self._frame, self._frame_offset, self._offset)
        yield Group(data[start - mark.offset :], start, mark.at, mark.alive, end)

    def _damage(self, detail: str) -> None:
        self._damages.append(Damage(self._good, self._blocks.byte, detail))

    def _tell_damages(self) -> Iterator[Damage]:
        damages, self._damages = self._damages, []
        yield from damages

    def _resync(self, detail: str, *, certain: bool) -> bool:
        """Go on at the next zstd frame that is one of ours. Without one stay lost, where it is certain that we are."""
        raw, keep, at = self._blocks.raw, None, -1
        while (at := raw.find(_MAGIC, at + 1)) >= 0:
            readable = _starts_readable_frame(raw, at)
            if readable:
                self._damages.append(
                    Damage(self._lost[0] if self._lost else self._good, self._blocks.byte + at, detail)
                )
                self._blocks.restart(at)
                self._text.clear()
                self._scan, self._offset, self._lost, self._good = 0, None, None, self._blocks.byte
                return True
            if readable is None and keep is None:
                keep = at
        if certain:
            self._blocks.restart(max(len(raw) - len(_MAGIC) + 1, 0) if keep is None else keep)
        return False


def read_capture(path: Path) -> Iterator[tuple[int, bytes]]:
    """Receive time (ns) and payload of each line of a gzip file in hftbacktest's layout.

    Raises JournalError naming the line that is none, and EOFError or gzip.BadGzipFile where the file is damaged.
    """
    with gzip.open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield parse_frame(line.rstrip(b"\r\n"))
            except JournalError as error:
                raise JournalError(f"{path}, line {number}: {error}") from error
