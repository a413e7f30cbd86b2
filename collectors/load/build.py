"""From journal lines to one load batch: decoded, encoded, checked. Pure: same lines and state, same batch."""

from __future__ import annotations

from collections.abc import Sequence

from collectors.journal import Damage, Group
from collectors.load.batch import Batch, Stream
from collectors.load.coverage import Coverage
from collectors.load.encode import Encoder, UnsoundError
from collectors.load.text import UnstorableError


def build(
    batch: Batch, stream: Stream, items: Sequence[Group | Damage], coverage: Coverage, ids: dict[str, int]
) -> tuple[Batch, Coverage]:
    """Fill ``batch`` from the groups of one segment; ``coverage`` is the epoch's state before, returned as it is after.

    Numbers are checked all at once, and one by one only where that finds something.
    """
    before = coverage.dump()
    try:
        return _build(_copy(batch), stream, items, coverage, ids, is_careful=False)
    except (UnsoundError, UnstorableError):
        return _build(_copy(batch), stream, items, Coverage.load(before), ids, is_careful=True)


def build_parked(
    batch: Batch,
    stream: Stream,
    lines: Sequence[tuple[int, bytes, int, frozenset[str] | None]],
    ids: dict[str, int],
) -> Batch:
    """Fill ``batch`` from lines parked before: offset, line, receive time (ns), instruments it waits for (None: all).

    Coverage is not theirs to tell.
    """
    for is_careful in (False, True):
        out = _copy(batch)
        encoder = Encoder(out, stream, None, ids, is_careful=is_careful)
        try:
            for offset, line, at, encoder.only in lines:
                encoder.lines(line + b"\n", offset, at)
            encoder.check()
        except (UnsoundError, UnstorableError):
            continue
        return out
    raise AssertionError("a batch whose every number was looked at has one that is none")


def _copy(batch: Batch) -> Batch:
    return Batch(batch.number, batch.segment, batch.epoch, batch.from_offset, batch.to_offset)


def _build(
    batch: Batch,
    stream: Stream,
    items: Sequence[Group | Damage],
    coverage: Coverage,
    ids: dict[str, int],
    *,
    is_careful: bool,
) -> tuple[Batch, Coverage]:
    encoder = Encoder(batch, stream, coverage, ids, is_careful=is_careful)
    for item in items:
        if isinstance(item, Damage):
            batch.damages.append(item)
            coverage.damaged()
            continue
        encoder.lines(item.data, item.start, item.at)
        coverage.reaches(item.alive)
        batch.to_offset, batch.position = item.end.line_offset, item.end
        if encoder.close is not None and encoder.close.reason != "rotate":
            coverage.close(encoder.close.reason, encoder.close.at)
    encoder.check()
    batch.intervals = coverage.changes(ids)
    return batch, coverage
