"""One pruning of an ingestor: read, plan, compare, and only then drop; each chunk and segment by itself.

It runs on the ingestor, which alone can remove what is on it; the datalake is read with no more than a reader's rights.
A run may be ended at any moment: what went is gone and noted, the rest is there, and the next run goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import structlog
from msgspec import Struct, field
from msgspec.structs import replace

from collectors.config import Retention
from collectors.events import CHANNELS
from collectors.files import fsync_folder
from collectors.journal import is_writer_alive
from collectors.retention import datalake, ingestor
from collectors.retention.compare import Lacking, compare_chunk
from collectors.retention.plan import (
    Chunk,
    State,
    StreamState,
    keeps_chunk,
    keeps_segment,
    relieving,
)
from collectors.sync.identities import specs
from collectors.sync.source import Stream, read_incarnation, read_streams

GIB = 1 << 30


class Item(Struct, frozen=True):
    """A chunk or a segment; ``held`` says why it stays, empty for what went (in check mode: would go)."""

    what: str
    bytes: int
    held: list[str]
    under_pressure: bool = False


class Report(Struct):
    """What a run did; ``lacking`` are the hours for whose rows a chunk stays."""

    checked_only: bool
    protected_until: datetime | None = None
    pruned: list[Item] = field(default_factory=list)
    kept: list[Item] = field(default_factory=list)
    lacking: list[Lacking] = field(default_factory=list)
    rows_compared: int = 0

    @property
    def freed(self) -> int:
        """Bytes of what went."""
        return sum(item.bytes for item in self.pruned)


def prune(
    settings: Retention,
    name: str,
    journal: Path,
    *,
    check: bool = False,
    free: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
    on_item: Callable[[Item], None] = lambda _: None,
) -> Report:
    """Prune the ingestor ``name``, or with ``check`` only say what would go; ``on_item`` is told each thing judged.

    ``free``: bytes free where the journals lie. Raises CryptopipError, psycopg.Error, OSError.
    """
    with ingestor.connect(settings.database) as here, datalake.connect(settings.datalake) as lake:
        need = int(settings.min_free_gib * GIB) - free(journal) if settings.min_free_gib else 0
        run = _Run(here, lake, settings.days, max(0, need), name, journal, check=check, on_item=on_item)
        gone, left = run.prune_chunks()
        run.note_pruned(gone, left)
        run.prune_segments()
        names = datalake.names_of(lake, sorted({one.instrument_id for one in run.report.lacking}))
        run.report.lacking = [
            replace(one, exchange=names[one.instrument_id][0], native_id=names[one.instrument_id][1])
            if one.instrument_id in names
            else one
            for one in run.report.lacking
        ]
    return run.report


class _Run:
    """One run, with what it read when it began."""

    def __init__(  # noqa: PLR0917 - one caller, right above
        self,
        here: psycopg.Connection[Any],
        lake: psycopg.Connection[Any],
        days: int,
        need: int,
        name: str,
        journal: Path,
        *,
        check: bool,
        on_item: Callable[[Item], None],
    ) -> None:
        self.here, self.lake, self.days, self.need, self.on_item = here, lake, days, need, on_item
        self.streams = read_streams(here)
        self.folders = {one.id: journal / one.name for one in self.streams}
        self.files = ingestor.read_segments(journal, [one for one in self.streams if one.ingestor == name])
        self.state = _state(here, lake, self.streams, note=not check)
        self.report = Report(check, self.state.protected_until)

    def prune_chunks(self) -> tuple[list[Chunk], list[Chunk]]:
        """Judge every chunk; those that went, and those that stay."""
        kept = {(file.stream, file.name) for file in self.files}
        judged = [(one, keeps_chunk(one, self.state, self.days, kept)) for one in ingestor.read_chunks(self.here)]
        relief = set(relieving(judged, self.need - sum(chunk.bytes for chunk, held in judged if not held)))
        gone: list[Chunk] = []
        left: list[Chunk] = []
        for chunk, held in judged:
            reasons = [one.reason for one in held]
            if chunk in relief or not held:
                reasons = self._compare(chunk) or self._drop(chunk)
            item = Item(f"{chunk.channel} {chunk.start:%Y-%m-%d}", chunk.bytes, reasons, chunk in relief)
            (left if reasons else gone).append(chunk)
            self._tell(item)
        return gone, left

    def _compare(self, chunk: Chunk) -> list[str]:
        """Why the chunk stays after all: the datalake lacks rows of it."""
        compared = compare_chunk(self.here, self.lake, chunk, self.streams)
        self.report.rows_compared += compared.rows
        self.report.lacking += compared.lacking
        if not compared.lacking:
            return []
        rows = sum(one.rows for one in compared.lacking)
        return [f"the datalake lacks {rows:,} of its rows, or has them with other content"]

    def _drop(self, chunk: Chunk) -> list[str]:
        """Drop it, unless this is a check; why that could not be done."""
        if self.report.checked_only:
            return []
        try:
            dropped = ingestor.drop(self.here, chunk, self.state.last_batches)
        except psycopg.errors.LockNotAvailable:
            return ["somebody is reading it: the next run drops it"]
        return [] if dropped else ["it got rows while it was compared: the next run looks again"]

    def note_pruned(self, gone: Sequence[Chunk], left: Sequence[Chunk]) -> None:
        """Segments are judged by what is pruned by now; a chunk that is there again got rows that came late."""
        for channel in CHANNELS:
            spans = self.state.pruned.get(channel, [])
            spans = [*spans, *((one.start, one.end) for one in gone if one.channel == channel)]
            there = [one for one in left if one.channel == channel]
            self.state.pruned[channel] = [
                (since, until) for since, until in spans if not any(o.start < until and o.end > since for o in there)
            ]

    def prune_segments(self) -> None:
        """Judge every segment."""
        for file in self.files:
            held = keeps_segment(file, self.state, self.days)
            pressed = bool(held) and all(one.yields for one in held) and self.report.freed < self.need
            reasons = [] if pressed else [one.reason for one in held]
            path = self.folders[file.stream] / file.name
            if not reasons and is_writer_alive(path):
                reasons = ["its recorder still holds it"]
            if not reasons and not self.report.checked_only:
                path.unlink()
                fsync_folder(path.parent)
            self._tell(Item(f"{self.state.streams[file.stream].key} {file.name}", file.bytes, reasons, pressed))

    def _tell(self, item: Item) -> None:
        (self.report.kept if item.held else self.report.pruned).append(item)
        if not item.held and not self.report.checked_only:
            structlog.get_logger().info("pruned", what=item.what, bytes=item.bytes, under_pressure=item.under_pressure)
        self.on_item(item)


def _state(
    here: psycopg.Connection[Any], lake: psycopg.Connection[Any], streams: Sequence[Stream], *, note: bool
) -> State:
    incarnation = read_incarnation(here)
    answer = datalake.ask(lake, incarnation, streams)
    merged = {stream.id: answer.watermarks.get(stream.key, 0) for stream in streams}
    if note:
        ingestor.note_marks(here, merged, answer.now, answer.protected_until)
    sure = dict.fromkeys(merged, 0)
    for stream, batch, seen_at in ingestor.read_marks(here):
        # A datalake that came to know this database later is another than the one that was seen then.
        same_lake = answer.first_seen is not None and seen_at >= answer.first_seen
        if same_lake and answer.protected_until is not None and seen_at <= answer.protected_until:
            sure[stream] = max(sure[stream], min(batch, merged[stream]))
    return State(
        now=answer.now,
        protected_until=answer.protected_until,
        streams={
            one.id: StreamState(
                one.id,
                one.key,
                merged[one.id],
                sure[one.id],
                frozenset(spec.name for spec in specs(one.exchange) if spec.numbered),
            )
            for one in streams
        },
        loads=ingestor.read_loads(here),
        parked=ingestor.read_parked(here),
        done=ingestor.read_keys(here, "journal_positions WHERE done"),
        damaged=ingestor.read_keys(here, "journal_damage"),
        pending=answer.pending,
        pruned=ingestor.read_pruned(here),
    )
