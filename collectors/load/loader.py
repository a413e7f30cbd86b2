"""The loader: follows a stream's segments and commits them to the ingestor's database, batch by batch.

While the database takes one batch the next is made (COPY waits in libpq without the GIL). Everything in memory follows
from the database and the journal: whatever goes wrong, the remedy is to start over from the last batch committed.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import psycopg
import structlog
from msgspec import Struct

from collectors.decode import Decoder
from collectors.journal import Group, Position, SegmentReader, segment_of, segments
from collectors.load.batch import Batch
from collectors.load.build import build, build_parked
from collectors.load.coverage import Coverage
from collectors.load.database import Database, ParkedFrame, StreamTakenError
from collectors.load.encode import awaited
from collectors.load.source import PIECE_BYTES, SegmentSource, Source
from collectors.notify import Notifier

_log = structlog.get_logger(__name__)
_POLL_SECONDS: Final = 0.1
_ALIVE_SECONDS: Final = 5.0
"""A connection without events is written this often, not at each of its commits."""
_TURN_SECONDS: Final = 0.0002
_INSTRUMENTS_SECONDS: Final = 5.0
_STATUS_SECONDS: Final = 10.0
_PATIENCE_SECONDS: Final = 15.0
"""How long a loader that is to end waits for another's lock, and for a database that is away."""


LineReader = Callable[[Sequence[tuple[int, int]]], Iterator[tuple[int, bytes]]]


class Totals(Struct):
    """What was committed since the start."""

    batches: int = 0
    frames: int = 0
    rows: int = 0
    parked: int = 0
    rejected: int = 0
    damages: int = 0


@contextmanager
def turns() -> Iterator[None]:
    """Let threads take turns more often than Python's every 5 ms.

    COPY asks for its turn after each 128 KiB sent. While the next batch is made it would wait for so long every time,
    and the server with it: loading takes a quarter longer.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(_TURN_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


class Session:
    """One connection's worth of loading: made again from the database after any failure."""

    def __init__(self, database: Database, totals: Totals) -> None:
        """Read what the loader before this one left; the stream's lock must be held."""
        self.database = database
        self.totals = totals
        self.positions = database.positions()
        self.alive = 0  # ns, of the last batch given to the database
        self._number = database.last_batch()
        self._coverages = database.coverages()
        self._instruments = database.instruments()
        self._pending: Future[int] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="copy")
        self._written_at: dict[str, float] = {}  # monotonic, by segment
        self._held: dict[str, tuple[Batch, Coverage]] = {}  # read, but nothing in it to write yet

    def close(self) -> None:
        """Wait for what is under way, whatever becomes of it."""
        self._thread.shutdown()

    def coverage(self, epoch: int) -> Coverage:
        """The epoch's state behind the last batch made."""
        found = self._coverages.get(epoch)
        if found is None:
            found = Coverage.begin(epoch, self.database.stream.decoder)
            self._coverages[epoch] = found
        return found

    def start_over(self, epoch: int, names: Collection[str]) -> None:
        """Read these segments from their start, as if the epoch that they are had never been loaded."""
        self._coverages.pop(epoch, None)
        for name in names:
            self.positions.pop(name, None)

    def load(self, source: Source, limit: int = PIECE_BYTES) -> bool:
        """Take what the source has and give it to the database; whether there was anything."""
        piece = source.take(limit)
        ended_by = piece.ended_by
        if not piece.items and ended_by is None:
            return False
        position = self.positions.get(source.segment, (Position(), False))[0]
        held = self._held.pop(source.segment, None)
        start = position.line_offset if held is None else held[0].from_offset
        coverage = self.coverage(source.epoch)
        batch = Batch(self._number + 1, source.segment, source.epoch, start, position.line_offset)
        ids = self._instruments.at(source.epoch)
        batch, coverage = build(batch, self.database.stream, piece.items, coverage, ids)
        if batch.position is None:
            batch.position = position
        if ended_by is not None:
            batch.is_done = True
            if ended_by != "rotate":
                coverage.close(ended_by, coverage.alive)
                batch.intervals += coverage.changes(ids)
        self._coverages[source.epoch] = coverage
        self.positions[source.segment] = (batch.position, batch.is_done)
        is_due = time.monotonic() - self._written_at.get(source.segment, 0) >= _ALIVE_SECONDS
        if batch.is_empty and not is_due:
            self._held[source.segment] = (batch, coverage)
        else:
            self._submit(batch, coverage, ids)
        return True

    def flush(self) -> None:
        """Write also what is only the time the connections reach to, and wait for all of it."""
        for segment, (batch, coverage) in list(self._held.items()):
            del self._held[segment]
            self._submit(batch, coverage, self._instruments.at(batch.epoch))
        self.settle()

    def settle(self) -> None:
        """Wait for the batch under way. Raises what the database did."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self.totals.rows += pending.result()

    def _submit(self, batch: Batch, coverage: Coverage | None, ids: dict[str, int]) -> None:
        self.settle()
        batch.number = self._number + 1 if batch.is_empty else batch.number
        assert batch.number == self._number + 1
        self._number = batch.number
        frozen = None
        if coverage is not None:
            self._written_at[batch.segment] = time.monotonic()
            self.alive = max(self.alive, coverage.alive)
            batch.state = coverage.dump()
            frozen = Coverage(coverage.epoch, coverage.opened_at, coverage.alive)
            frozen.closed_at, frozen.ended_by, frozen.unplaced = (
                coverage.closed_at,
                coverage.ended_by,
                coverage.unplaced,
            )
            if coverage.ended_by is not None and not coverage.unplaced:
                self._coverages.pop(coverage.epoch, None)
        totals = self.totals
        totals.batches += 1
        totals.frames += batch.frames
        totals.parked += len(batch.parked)
        totals.rejected += len(batch.rejected)
        totals.damages += len(batch.damages)
        for damage in batch.damages:
            _log.warning(
                "damaged journal: what is readable is loaded",
                segment=batch.segment,
                from_byte=damage.from_byte,
                to_byte=damage.to_byte,
                detail=damage.detail,
            )
        self._pending = self._thread.submit(self.database.commit, batch, frozen, ids)

    def refresh(self) -> bool:
        """Read the instruments again; whether there are others now."""
        self.settle()
        fresh = self._thread.submit(self.database.instruments).result()
        has_changed = fresh.rows != self._instruments.rows
        self._instruments = fresh
        return has_changed

    def retry_parked(self, find: Callable[[str], LineReader | None]) -> int:
        """Load parked lines whose reason is gone; returns how many. ``find`` gives what reads a segment's lines."""
        self.settle()
        after = (-1, "", -1)
        loaded = 0
        while frames := self._thread.submit(self.database.parked, after).result():
            last = frames[-1]
            after = (last.epoch, last.segment, last.line_offset)
            read = find(last.segment)
            if read is None:
                after = (last.epoch, last.segment, 2**63 - 1)
                _log.warning("parked frames stay: their segment is gone", segment=last.segment)
                continue
            loaded += self._retry(last.segment, read, frames)
        self._place_coverage()
        return loaded

    def _retry(self, segment: str, read: LineReader, frames: list[ParkedFrame]) -> int:
        by_offset = {frame.line_offset: frame for frame in frames}
        places = [(frame.line_offset, frame.line_length) for frame in frames]
        first, last = frames[0], frames[-1]
        batch = Batch(
            self._number + 1, segment, first.epoch, first.line_offset, last.line_offset + last.line_length + 1
        )
        lines = [
            (offset, line, by_offset[offset].received_at, awaited(by_offset[offset].detail))
            for offset, line in read(places)
        ]
        ids = self._instruments.at(first.epoch)
        batch = build_parked(batch, self.database.stream, lines, ids)
        still = {one.line_offset for one in batch.parked}
        batch.resolved = [by_offset[offset].id for offset, *_ in lines if offset not in still]
        has_news = bool(batch.resolved) or any(batch.rows.values())
        if not has_news and not any(one.reason == "decode" for one in batch.parked):
            return 0
        # Those that wait for an instrument as before need no new row in the ledger.
        batch.parked = [one for one in batch.parked if one.reason == "decode" or has_news]
        self._submit(batch, None, ids)
        self.settle()
        if batch.resolved:
            _log.info("loaded parked frames", segment=segment, frames=len(batch.resolved))
        return len(batch.resolved)

    def _place_coverage(self) -> None:
        """Write intervals of instruments that were unknown when they began, also of epochs that are over."""
        for epoch, coverage in list(self._coverages.items()):
            ids = self._instruments.at(epoch)
            intervals = coverage.changes(ids)
            if not intervals:
                continue
            segment = next((name for name in self.positions if name.startswith(f"{epoch}-")), f"{epoch}-000000")
            position, is_done = self.positions.get(segment, (Position(), False))
            offset = position.line_offset
            batch = Batch(self._number + 1, segment, epoch, offset, offset, intervals=intervals, is_done=is_done)
            self._submit(batch, coverage, ids)
        self.settle()


class Loader:
    """Loads one stream from its folder of segments until told to stop."""

    def __init__(
        self,
        folder: Path,
        dsn: str,
        ingestor: str,
        decoder: Decoder,
        *,
        notifier: Notifier | None = None,
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        """``folder``: a stream's segments. ``piece_bytes``: uncompressed journal in one batch, which bounds memory."""
        self.totals = Totals()
        self._folder = folder
        self._dsn = dsn
        self._ingestor = ingestor
        self._decoder = decoder
        self._piece_bytes = piece_bytes
        self._notifier = notifier or Notifier("")
        self._stop = threading.Event()
        self._began = time.monotonic()
        self._told_at = self._began
        self._told_rows = 0

    def stop(self) -> None:
        """End after the batch under way; may be called from a signal handler."""
        self._stop.set()

    def run(self, *, until_idle: bool = False) -> Totals:
        """Load until stopped, or until nothing is left. A database that goes away is waited for.

        With ``until_idle`` raises StreamTakenError or psycopg.OperationalError where waiting did not help.
        """
        delay, failing_since = 0.2, None
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                with turns(), Database(self._dsn, self._ingestor, self._folder.name, self._decoder) as database:
                    self._lock(database, until_idle=until_idle)
                    self._notifier.ready()
                    if self._follow(database, until_idle=until_idle):
                        break
            except psycopg.OperationalError as error:
                now = time.monotonic()
                if now - began > _PATIENCE_SECONDS:
                    delay, failing_since = 0.2, None
                failing_since = failing_since or now
                if until_idle and now - failing_since > _PATIENCE_SECONDS:
                    raise
                _log.warning(
                    "database away, will start over from its last batch",
                    error=str(error).strip(),
                    retry_in_seconds=round(delay, 1),
                )
                self._wait(delay * random.uniform(0.7, 1.3))  # noqa: S311 - spreads retries, guards nothing
                delay = min(delay * 2, 10.0)
        self._notifier.stopping()
        return self.totals

    def _wait(self, seconds: float) -> None:
        """Wait or be stopped; systemd sees that this is not a hang."""
        until = time.monotonic() + seconds
        while not self._stop.is_set() and time.monotonic() < until:
            self._notifier.watchdog()
            self._stop.wait(min(1.0, max(until - time.monotonic(), 0)))

    def _lock(self, database: Database, *, until_idle: bool) -> None:
        """Become the stream's one writer."""
        since = time.monotonic()
        while not database.try_lock() and not self._stop.is_set():
            if until_idle and time.monotonic() - since > _PATIENCE_SECONDS:
                raise StreamTakenError(
                    f"stream {self._folder.name!r} of {self._ingestor} has a loader already, and it may have only one:"
                    " stop that one first"
                )
            self._notifier.status("waiting: another loader writes this stream")
            self._wait(0.5)

    def _follow(self, database: Database, *, until_idle: bool) -> bool:
        """Load with one connection; whether the work is done."""
        if self._stop.is_set():
            return True
        session = Session(database, self.totals)
        sources: dict[str, SegmentSource] = {}
        try:
            session.retry_parked(self._lines_of)
            refreshed = time.monotonic()
            while not self._stop.is_set():
                self._notifier.watchdog()
                self._open(session, sources)
                has_moved = False
                for segment, source in list(sources.items()):
                    has_moved |= session.load(source, self._piece_bytes)
                    if session.positions.get(segment, (None, False))[1]:
                        sources.pop(segment).close()
                self._tell(session)
                if time.monotonic() - refreshed > _INSTRUMENTS_SECONDS:
                    refreshed = time.monotonic()
                    if session.refresh():
                        session.retry_parked(self._lines_of)
                if not has_moved:
                    if until_idle:
                        break
                    session.settle()
                    self._wait(_POLL_SECONDS)
            session.flush()
            return True
        finally:
            for source in sources.values():
                source.close()
            session.close()

    def _open(self, session: Session, sources: dict[str, SegmentSource]) -> None:
        """Open what is new: of each epoch the first segment that is not done."""
        epochs: set[int] = {source.epoch for source in sources.values()}
        for path in segments(self._folder):
            position, is_done = session.positions.get(path.name, (Position(), False))
            epoch = segment_of(path).epoch
            if is_done or epoch in epochs:
                continue
            epochs.add(epoch)
            # It may be pruned between the listing and here only when it is done, which it is not.
            sources[path.name] = SegmentSource(path, position)

    def _lines_of(self, segment: str) -> LineReader | None:
        path = self._folder / segment
        return partial(read_lines, path) if path.exists() else None

    def _tell(self, session: Session) -> None:
        """Status line: rows a second, and how far behind the connection the database is."""
        now = time.monotonic()
        if now - self._told_at < _STATUS_SECONDS:
            return
        rate = (self.totals.rows - self._told_rows) / (now - self._told_at)
        self._told_at, self._told_rows = now, self.totals.rows
        lag = round(max(time.time() - session.alive / 1e9, 0), 1) if session.alive else None
        self._notifier.status(f"{self.totals.rows} rows, {rate:.0f} rows/s, lag {lag} s")
        _log.info("loading", rows=self.totals.rows, rows_per_second=round(rate), lag_seconds=lag)


def read_lines(path: Path, places: Sequence[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
    """The lines of a segment at these places (uncompressed offset, length), in order; what is damaged is left out."""
    wanted = iter(sorted(places))
    place = next(wanted, None)
    with SegmentReader(path) as reader:
        for item in reader.read():
            if not isinstance(item, Group):
                continue
            while place is not None and place[0] < item.start + len(item.data):
                at = place[0] - item.start
                if at >= 0:
                    yield place[0], item.data[at : at + place[1]]
                place = next(wanted, None)
            if place is None:
                return
