"""Replaying files into an ingestor database: captures in hftbacktest's layout, and segments of our own."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from msgspec import Struct

from collectors.decode import Decoder
from collectors.errors import CryptopipError
from collectors.journal import Damage, Position, SegmentReader, is_writer_alive
from collectors.journal.format import SEGMENT_NAME
from collectors.load.database import Database, StreamTakenError
from collectors.load.loader import LineReader, Session, Totals, read_lines, turns
from collectors.load.source import CaptureSource, SegmentSource, capture_epoch, capture_name


class Outcome(Struct):
    """What became of one file."""

    file: str
    segment: str
    was_loaded_before: bool
    totals: Totals


def replay(
    files: Sequence[Path],
    dsn: str,
    ingestor: str,
    decoder: Decoder,
    *,
    progress: Callable[[Path, Totals, float], None] | None = None,
) -> list[Outcome]:
    """Load files in the order given; one that was loaded before, under whatever name, changes nothing.

    ``progress`` is told the file, its totals so far and the share of it that is read. Raises CaptureError,
    StreamTakenError, BetterCopyError, psycopg.Error; what was committed until then stays, and a second call goes on
    behind it.
    """
    with turns(), Database(dsn, ingestor, decoder.exchange, decoder) as database:
        if not database.try_lock():
            raise StreamTakenError(
                f"stream {decoder.exchange!r} of {ingestor} is being written:"
                " stop its loader, or take another --ingestor"
            )
        return [_replay(path, Session(database, Totals()), progress) for path in files]


def _replay(path: Path, session: Session, progress: Callable[[Path, Totals, float], None] | None) -> Outcome:
    source: SegmentSource | CaptureSource
    reader: LineReader
    try:
        if SEGMENT_NAME.fullmatch(path.name):
            if is_writer_alive(path):
                raise StillWrittenError(f"{path}: a recorder still writes it; load it with `cryptopip load` instead")
            segment = path.name
            position, is_done = session.positions.get(segment, (Position(), False))
            if is_done:
                _refuse_better_copy(path, position, session.database)
            source, reader = SegmentSource(path, position), partial(read_lines, path)
        else:
            segment = capture_name(path)
            position, is_done = session.positions.get(segment, (Position(), False))
            source = CaptureSource(path, segment, _free_epoch(session.database, segment, path), position)
            reader = partial(_capture_lines, path)
        outcome = Outcome(str(path), segment, is_done, session.totals)
        try:
            while not is_done:
                if not session.load(source):
                    break
                is_done = session.positions[segment][1]
                if progress is not None:
                    share = source.done / max(source.total, 1) if isinstance(source, CaptureSource) else 0.0
                    progress(path, session.totals, 1.0 if is_done else share)
            session.flush()
        finally:
            source.close()
        session.retry_parked(lambda name: reader if name == segment else None)
        return outcome
    finally:
        session.close()


def _refuse_better_copy(path: Path, position: Position, database: Database) -> None:
    """Raise BetterCopyError where more can be read of a segment than was loaded of it."""
    damages, end = 0, Position()
    with SegmentReader(path) as reader:
        for item in reader.read():
            if isinstance(item, Damage):
                damages += 1
            else:
                end = item.end
        damages += reader.torn_tail() is not None
    before = database.damages(path.name)
    if end.line_offset <= position.line_offset and damages >= before:
        return
    exchange = database.stream.decoder.exchange
    raise BetterCopyError(
        f"{path}: {path.name} was loaded from a copy that could be read less far: up to byte {position.line_offset}"
        f" (uncompressed) with {before} stretches damaged; this one up to byte {end.line_offset} with {damages}."
        f" Nothing was changed. `cryptopip reload {exchange} {path.name}`, with this copy in the journal's folder,"
        " loads it in place of the other."
    )


def _free_epoch(database: Database, segment: str, path: Path) -> int:
    """The first frame's receive time, or the next ns that no other file has taken."""
    taken = database.epochs()
    for epoch, name in taken.items():
        if name == segment:
            return epoch
    epoch = capture_epoch(path)
    while epoch in taken:
        epoch += 1
    return epoch


def _capture_lines(path: Path, places: Sequence[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
    with gzip.open(path, "rb") as file:
        for offset, length in sorted(places):
            file.seek(offset)
            yield offset, file.read(length)


class StillWrittenError(CryptopipError):
    """A segment is not whole yet."""


class BetterCopyError(CryptopipError):
    """A segment was loaded from a damaged or shorter copy."""
