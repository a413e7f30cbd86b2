"""Writing segments: frames are collected on the event loop, made durable group by group in a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import structlog
import zstandard
from msgspec import Struct
from msgspec.structs import replace

from collectors.files import fsync_folder
from collectors.journal.format import (
    Close,
    Frames,
    Header,
    Mark,
    Reason,
    Segment,
    encode_commit,
    encode_lines,
    encode_mark,
    runs,
    segment_of,
    segments,
)

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")
# Level 1: 4.0-4.3x on real traffic with flushed blocks; higher ones cost more than receiving the frames. A hash table
# that fits the processor's first cache is faster by a twentieth, and on most exchanges' frames even a little denser.
_COMPRESSION: Final = zstandard.ZstdCompressionParameters.from_level(1, hash_log=12)
_LEFTOVER_S: Final = 60.0
_STAMP_BYTES: Final = 21  # of a line, beside its payload


class Limits(Struct, frozen=True):
    """When a zstd frame ends, when a segment does, and how much may wait for the disk (bytes; ns)."""

    frame_bytes: int = 4 << 20
    frame_ns: int = 60 * 10**9
    segment_bytes: int = 256 << 20
    segment_ns: int = 3600 * 10**9
    buffer_bytes: int = 64 << 20
    early_bytes: int = 4 << 20  # a group of this size is committed before its time


def next_epoch(journal: Path) -> int:
    """An epoch (ns) later than any in this journal's streams, even where the clock was set back."""
    taken = (segment_of(path).epoch for stream in journal.glob("*/") for path in segments(stream))
    return max(time.time_ns(), max(taken, default=0) + 1)


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove what crashed writers were about to open as segments; those removed. Raises OSError."""
    removed = []
    for path in folder.glob(".*.opening"):
        with path.open("rb") as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A living writer locks at once what it made; a young one may be about to.
            if time.time() - path.stat().st_mtime > _LEFTOVER_S:
                path.unlink()
                removed.append(path)
    return removed


class _SegmentFile:
    """One segment: its file, lock and compressor. Lives in the writer's thread; every method may raise OSError.

    The file appears under its name only with its header durable and its lock held: a reader never sees a segment
    that looks abandoned while it is being opened.
    """

    def __init__(self, folder: Path, header: Header, limits: Limits) -> None:
        self.header = header
        self.at = header.at
        self.alive = 0  # of the last group added
        self.path = folder / Segment(header.epoch, header.segment).name
        self._limits = limits
        self._compressor = zstandard.ZstdCompressor(compression_params=_COMPRESSION)
        self._stream: zstandard.ZstdCompressionObj | None = None
        self._stream_at = 0
        self._stream_offset = 0
        self._offset = 0  # uncompressed
        self._unwritten = b""
        self.durable = 0  # bytes of the file that fsync returned for
        self.is_finished = False  # its close mark was added
        self.is_rotated = False  # and the epoch goes on
        folder.mkdir(parents=True, exist_ok=True)
        opening = folder / f".{self.path.name}.opening"
        self._fd = os.open(opening, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.add([encode_mark(header).encode()], at=header.at, alive=header.at, last=False)
            self.flush()
            os.link(opening, self.path)  # unlike a rename it refuses to replace a segment that is there
            opening.unlink()
            fsync_folder(folder)
        except BaseException:
            os.close(self._fd)
            opening.unlink(missing_ok=True)
            raise

    def add(self, items: Sequence[Frames | bytes], *, at: int, alive: int, last: bool) -> None:
        """Compress a group with its commit; ``last`` ends the zstd frame and so makes the segment whole."""
        assert not self.is_finished, f"{self.path}: written to after its close mark"
        self.is_finished = last
        self.alive = alive
        if self._stream is None:
            self._stream, self._stream_at, self._stream_offset = self._compressor.compressobj(), at, self._offset
        out, start = [self._unwritten], self._offset
        lines = crc = 0
        for run in runs(items):
            text, count = encode_lines(run)
            lines += count
            crc = zlib.crc32(text, crc)
            out.append(self._stream.compress(text))
            self._offset += len(text)
        commit = encode_commit(crc, at=at, alive=alive, lines=lines, offset=start)
        out.append(self._stream.compress(commit))
        self._offset += len(commit)
        ends = (
            last
            or self._offset - self._stream_offset >= self._limits.frame_bytes
            or at - self._stream_at >= self._limits.frame_ns
        )
        out.append(
            self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH if ends else zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        )
        self._unwritten = b"".join(out)
        if ends:
            self._stream = None

    def flush(self) -> None:
        """Make all groups durable. After an OSError call it again: it writes the same bytes at the same place.

        That is right after a failed fsync too, which may have dropped the written pages.
        """
        view = memoryview(self._unwritten)
        done = 0
        while done < len(view):
            done += os.pwrite(self._fd, view[done:], self.durable + done)
        os.fsync(self._fd)
        self.durable += done
        self._unwritten = b""

    def is_full(self, at: int) -> bool:
        size = self.durable + len(self._unwritten)
        return size >= self._limits.segment_bytes or at - self.at >= self._limits.segment_ns

    def close(self) -> None:
        """Close the file and give up its lock, whatever is in it."""
        os.close(self._fd)


class _Group(Struct, frozen=True):
    items: list[Frames | bytes]
    at: int
    alive: int
    last: bool


class JournalWriter:
    """The journal of one epoch. Used from one event loop; the disk is touched in a thread of its own.

    ``append`` and ``mark`` never wait and never drop. Who appends must ask ``is_full`` from time to time and stop
    receiving while it is (see ``wait_for_room``), which is what bounds memory. Nothing counts as recorded before
    ``durable_alive`` says so.
    """

    def __init__(
        self,
        folder: Path,
        *,
        stream: str,
        exchange: str,
        url: str,
        ingestor: str,
        software: dict[str, str],
        epoch: int | None = None,
        commit_interval: float = 0.15,
        limits: Limits | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.folder = folder
        self.limits = limits or Limits()
        self.commit_interval = commit_interval
        self.epoch = next_epoch(folder.parent) if epoch is None else epoch
        self.durable_alive = 0
        """The ``alive`` of the last commit that returned."""
        self.last_commit = 0
        """When the last commit returned, ns."""
        self.failing_since: float | None = None
        """Monotonic seconds since when the disk takes nothing; None while it does."""
        self.beat: float | None = None
        """Monotonic seconds of the commit loop's last round; None before its first."""
        self.bytes = 0
        self._header = Header(clock(), stream, exchange, url, ingestor, self.epoch, 0, software)
        self._clock = clock
        self._items: list[Frames | bytes] = []
        self.append_frames: Callable[[Frames], None] = self._items.append
        """Add frames that were received together, their receive time first: for those in a hurry, one call of C."""
        self._counted = 0  # of items
        self._waiting = 0  # bytes of the items counted
        self._alive = 0
        self._frames = 0
        self._given = 0  # bytes ever given to the thread
        self._done = 0  # those of them that are durable
        self._urgent = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._is_closing = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        # What follows belongs to the thread.
        self._file: _SegmentFile | None = None
        self._groups: list[_Group] = []  # not given to a segment yet

    @property
    def fill(self) -> float:
        """How full the buffer is, 0 to 1 (and above while somebody appends nonetheless)."""
        self._count()
        return (self._waiting + self._given - self._done) / self.limits.buffer_bytes

    @property
    def is_full(self) -> bool:
        """Whether as much waits for the disk as may."""
        self._count()
        return self._waiting + self._given - self._done >= self.limits.buffer_bytes

    @property
    def alive(self) -> int:
        """Receive time (ns) of the last frame or heartbeat."""
        self._count()
        return self._alive

    @property
    def frames(self) -> int:
        """Frames appended so far."""
        self._count()
        return self._frames

    def dialled(self, url: str) -> None:
        """The URL for the header, which is written with the first frames."""
        self._header = replace(self._header, url=url)

    def append(self, recv_ns: int, payload: str | bytes) -> None:
        """Add a frame as received: text, or the bytes of it."""
        if isinstance(payload, str):
            # A lone surrogate is nothing that a WebSocket sends; should one come, it is kept.
            payload = payload.encode(errors="surrogatepass")
        self.append_frames((recv_ns, (payload,)))

    def heartbeat(self, recv_ns: int) -> None:
        """The connection gave a sign of life that is no frame."""
        self._count()
        self._alive = recv_ns

    def mark(self, mark: Mark) -> None:
        """Add a mark of our own."""
        self._count()
        line = encode_mark(mark).encode()
        self._items.append(line)
        self._counted += 1
        self._waiting += len(line)

    async def wait_for_room(self) -> None:
        """Return once the buffer is below its limit."""
        while self.is_full:
            self._room.clear()
            await self._room.wait()

    def _count(self) -> None:
        """Bring the accounts of frames up to date: cheaper for many at once than one by one. Marks do it first."""
        new = self._items[self._counted :]
        if not new:
            return
        self._counted += len(new)
        for item in new:
            assert isinstance(item, tuple), "marks count themselves"
            self._alive, payloads = item
            self._frames += len(payloads)
            self._waiting += sum(map(len, payloads)) + _STAMP_BYTES * len(payloads)
        if self._waiting >= self.limits.early_bytes:
            self._urgent.set()

    async def open(self) -> None:
        """Make the first segment with its header. Raises OSError."""
        await asyncio.shield(self._submit(self._current))

    async def run(self) -> None:
        """Commit at every interval until cancelled. A disk that takes nothing is retried, ever more slowly."""
        delay = self.commit_interval
        while True:
            self.beat = time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._urgent.wait()
            self._urgent.clear()
            try:
                await self.commit()
                delay = self.commit_interval
            except OSError as error:
                delay = min(max(delay, 0.25) * 2, 15.0)
                _log.error(
                    "commit failed, nothing is lost yet",
                    error=str(error),
                    folder=str(self.folder),
                    buffer_fill=round(self.fill, 3),
                    retry_in_seconds=delay,
                )
                await asyncio.sleep(delay)

    async def commit(self) -> None:
        """Make durable all that was appended so far. Raises OSError; then it is kept, and the next commit writes it."""
        if self._items or self._given != self._done or self.alive != self.durable_alive:
            await self._commit(last=False)

    async def close(self, reason: Reason) -> None:
        """Write the close mark, make everything durable, give up the lock; cancel ``run`` before.

        Raises OSError where the disk takes nothing: then close again, or ``abandon``.
        """
        if not self._is_closing:
            self._is_closing = True
            self.mark(Close(self._clock(), reason))
            await self._commit(last=True)
        else:
            await self._commit(last=False)
        await self.abandon()

    async def abandon(self) -> None:
        """Give up the segment as it is. What was not durable is lost, and the missing close mark tells that."""
        await asyncio.shield(self._submit(self._release))
        self._thread.shutdown(wait=False)

    def _submit(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _commit(self, *, last: bool) -> None:
        self._count()
        items = self._items.copy()
        self._items.clear()  # not a new list: append_frames is bound to this one
        self._given += self._waiting
        self._counted = self._waiting = 0
        group = _Group(items, self._clock(), self.alive or self._header.at, last)
        future = self._submit(functools.partial(self._write, group))
        # Whoever awaits this may be cancelled meanwhile; the thread goes on, and the account must follow it.
        future.add_done_callback(functools.partial(self._settle, self._given, self.alive))
        await asyncio.shield(future)

    def _settle(self, given: int, alive: int, future: asyncio.Future[int]) -> None:
        if future.cancelled() or future.exception() is not None:
            self.failing_since = self.failing_since or time.monotonic()
            return
        self.failing_since = None
        self.bytes += future.result()
        self._done = given
        self.durable_alive = alive
        self.last_commit = self._clock()
        if not self.is_full:
            self._room.set()

    # -- in the thread --

    def _current(self) -> _SegmentFile:
        """The segment to write to; the next one behind a segment that was rotated away."""
        if self._file is None:
            self._file = _SegmentFile(self.folder, self._header, self.limits)
        elif self._file.is_rotated:
            self._file.flush()
            number = self._file.header.segment + 1
            # Opened before the old one's lock goes: a reader that finds the old one rotated finds its successor too.
            following = _SegmentFile(self.folder, replace(self._header, at=self._clock(), segment=number), self.limits)
            self._file.close()
            self._file = following
        return self._file

    def _write(self, group: _Group) -> int:
        """Make this group and those before it durable; bytes written."""
        self._groups.append(group)
        file = self._current()
        before = file.durable
        while self._groups:
            waiting = self._groups.pop(0)
            if waiting.items or waiting.alive != file.alive:
                file.add(waiting.items, at=waiting.at, alive=waiting.alive, last=waiting.last)
        file.flush()
        if not file.is_finished and file.is_full(group.at):
            rotate = encode_mark(Close(self._clock(), "rotate")).encode()
            file.is_rotated = True
            file.add([rotate], at=self._clock(), alive=group.alive, last=True)
            file.flush()
        return file.durable - before

    def _release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
