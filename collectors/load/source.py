"""Where batches come from: segments of a journal while they grow, and captures."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, Protocol

from msgspec import Struct

from collectors.errors import CryptopipError
from collectors.journal import Damage, Group, Position, SegmentReader, is_writer_alive, segment_of
from collectors.load.coverage import EndedBy

PIECE_BYTES: Final = 4 << 20
"""Uncompressed journal in one batch: some 25,000 trades, at 10 MB of memory for each piece under way."""


class Piece(Struct):
    """What one read of a source gave. ``ended_by`` where nothing will follow."""

    items: list[Group | Damage] = []
    ended_by: EndedBy | Literal["rotate"] | None = None


class Source(Protocol):
    """Something batches are read from: a segment, or a file like one."""

    segment: str
    epoch: int

    def take(self, limit: int = PIECE_BYTES) -> Piece:
        """Up to about ``limit`` bytes of what is there now; empty where there is nothing new."""

    def close(self) -> None:
        """Give the file back."""


class SegmentSource:
    """A segment of a journal, from ``position`` on."""

    def __init__(self, path: Path, position: Position) -> None:
        self.path = path
        self.segment = path.name
        self.epoch = segment_of(path).epoch
        self._reader = SegmentReader(path, position)
        self._items: Iterator[Group | Damage] = iter(())

    def take(self, limit: int = PIECE_BYTES) -> Piece:
        """See Source. A segment without close mark ends once its writer is dead and everything is read."""
        piece = Piece()
        if self._read(piece, limit):
            return piece
        if self._reader.close_mark is not None:
            piece.ended_by = self._reader.close_mark.reason
        elif not piece.items and not is_writer_alive(self.path) and not self._read(piece, limit) and not piece.items:
            torn = self._reader.torn_tail()
            piece.items = [] if torn is None else [torn]
            # Where the epoch went on in another segment it was the file that broke, not the connection.
            following = self.path.with_name(f"{self.epoch}-{segment_of(self.path).seq + 1:06d}.journal.zst")
            mark = self._reader.close_mark
            piece.ended_by = mark.reason if mark is not None else "rotate" if following.exists() else "crash"
        return piece

    def close(self) -> None:
        """See Source."""
        self._reader.close()

    def _read(self, piece: Piece, limit: int) -> bool:
        """Add what there is; whether there may be more because the limit was reached."""
        size = 0
        for item in self._items:
            piece.items.append(item)
            size += len(item.data) if isinstance(item, Group) else 0
            if size >= limit:
                return True
        self._items = self._reader.read()
        for item in self._items:
            piece.items.append(item)
            size += len(item.data) if isinstance(item, Group) else 0
            if size >= limit:
                return True
        return False


class CaptureSource:
    """A gzip file of ``<recv_ns> <frame>`` lines, as one connection without marks."""

    def __init__(self, path: Path, segment: str, epoch: int, position: Position) -> None:
        self.segment = segment
        self.epoch = epoch
        self._path = path
        self._raw = path.open("rb")
        self._file = gzip.GzipFile(fileobj=self._raw)
        self._file.seek(position.line_offset)
        self._offset = position.line_offset
        self._alive = epoch
        self.total = path.stat().st_size

    @property
    def done(self) -> int:
        """Compressed bytes read so far."""
        return self._raw.tell()

    def take(self, limit: int = PIECE_BYTES) -> Piece:
        """See Source. Raises CaptureError where the file is damaged."""
        try:
            data = self._file.read(limit) + self._file.readline()
        except (EOFError, gzip.BadGzipFile, OSError) as error:
            raise CaptureError(
                f"{self._path}: unreadable behind uncompressed byte {self._offset}: {error}; what stands before it is"
                " loaded: take a whole copy of the file and replay it"
            ) from error
        if not data:
            return Piece(ended_by="shutdown")
        start, self._offset = self._offset, self._offset + len(data)
        last = data.rstrip(b"\n").rpartition(b"\n")[2].partition(b" ")[0]
        self._alive = max(self._alive, int(last)) if last.isdigit() and len(last) < 20 else self._alive
        end = Position(0, 0, self._offset)
        return Piece([Group(data, start, self._alive, self._alive, end)])

    def close(self) -> None:
        """See Source."""
        self._file.close()
        self._raw.close()


class CaptureError(CryptopipError):
    """A capture cannot be read to its end."""


def capture_name(path: Path) -> str:
    """What names a capture whatever its path: part of its SHA-256."""
    with path.open("rb") as file:
        return f"capture-{hashlib.file_digest(file, 'sha256').hexdigest()[:32]}"


def capture_epoch(path: Path) -> int:
    """Receive time (ns) of a capture's first frame. Raises CaptureError where its first line is none."""
    try:
        with gzip.open(path, "rb") as file:
            line = file.readline()
    except (EOFError, OSError) as error:
        raise CaptureError(f"{path}: {error}; expected a gzip file of '<recv_ns> <frame>' lines") from error
    stamp = line.partition(b" ")[0]
    if not (stamp.isdigit() and len(stamp) < 20):
        raise CaptureError(f"{path}: starts with {line[:60]!r}; expected '<recv_ns> <frame>'")
    return int(stamp)
