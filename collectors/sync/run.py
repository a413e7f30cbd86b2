"""One pull of every source: the one function that the command, the timer, tests and benchmarks call.

The contract: after any kill, at any point, the datalake is as if some whole number of batch ranges had been merged. The
rows, coverage, digests, contradictions and the watermark of a range commit together, and a range is merged by identity,
so whatever an ingestor sends again changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
import structlog
from msgspec import Struct, field

from collectors.config import Source, Sync
from collectors.decode import EXCHANGES
from collectors.events import Channel
from collectors.sync import claims, source, supersede, target
from collectors.sync.channels import SPECS
from collectors.sync.errors import SourceError, SyncError
from collectors.sync.identities import specs
from collectors.sync.plan import BatchRange, take

MAX_WEIGHT = 400_000
"""Staging of one transaction, in rows the size of a trade: some 40 MB."""


class Counts(Struct):
    """Rows of one channel: pulled, of which new to the datalake, which contradict the copy that is kept, and which came
    too late for what the datalake keeps.
    """

    pulled: int = 0
    inserted: int = 0
    conflicts: int = 0
    late: int = 0


class SourceReport(Struct):
    """What was merged from one ingestor; ``error`` is None where all that it had is merged.

    ``merged_until`` is the receive time up to which its connections are merged, None where it has none or failed;
    ``missed`` are events found that others received while it claimed to listen.
    """

    ingestor: str
    channels: dict[Channel, Counts] = field(default_factory=lambda: {spec.name: Counts() for spec in SPECS})
    batches: int = 0
    transactions: int = 0
    error: str | None = None
    merged_until: datetime | None = None
    missed: int = 0


class SyncReport(Struct):
    """What a sync did; ``seconds`` by wall clock."""

    sources: list[SourceReport]
    seconds: float = 0.0

    @property
    def pulled(self) -> int:
        """Rows taken from all ingestors."""
        return sum(counts.pulled for report in self.sources for counts in report.channels.values())

    @property
    def inserted(self) -> int:
        """Rows that were new to the datalake."""
        return sum(counts.inserted for report in self.sources for counts in report.channels.values())

    @property
    def conflicts(self) -> int:
        """Rows that contradict the copy that is kept; table sync_conflicts has them."""
        return sum(counts.conflicts for report in self.sources for counts in report.channels.values())

    @property
    def failed(self) -> list[SourceReport]:
        """Sources that could not be merged to their end."""
        return [report for report in self.sources if report.error is not None]


class Progress(Struct, frozen=True):
    """How far a source is: rows merged and, as counted when it was opened, rows in all."""

    ingestor: str
    rows: int
    of: int


def sync_once(
    config: Sync,
    *,
    wait: bool = False,
    max_weight: int = MAX_WEIGHT,
    pace: claims.Pace = claims.USUAL,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> SyncReport:
    """Merge all that every source has committed by now; a source that fails is reported and the others go on.

    Each is compared with what others received (``claims``), at the ``pace`` given.

    Raises SyncRunningError where another sync is at work and ``wait`` is false, SyncError where the datalake fails.
    """
    started = time.monotonic()
    reports = []
    with (
        target.connect(config.datalake) as lake,
        target.only_one(lake, wait=wait),
        closing(supersede.Peers(config.sources)) as peers,
    ):
        for each in config.sources:
            report = SourceReport(each.ingestor)
            reports.append(report)
            try:
                _sync_source(lake, each, report, max_weight, pace, on_progress, peers=peers)
            except (SourceError, psycopg.Error) as error:
                if lake.broken or lake.closed:
                    raise SyncError(f"the datalake was lost: {str(error).strip()}") from error
                report.error = str(error).strip()
                structlog.get_logger().error("source failed", ingestor=each.ingestor, error=report.error)
    return SyncReport(reports, time.monotonic() - started)


def _sync_source(  # noqa: PLR0917 - one caller, right above
    lake: psycopg.Connection[Any],
    configured: Source,
    report: SourceReport,
    max_weight: int,
    pace: claims.Pace,
    on_progress: Callable[[Progress], None],
    *,
    peers: supersede.Peers,
) -> None:
    with source.connect(configured.database) as ingestor:
        with ingestor.transaction():
            source.check_schema(ingestor)
            incarnation = source.read_incarnation(ingestor)
            streams = source.read_streams(ingestor)
            instruments = source.read_instruments(ingestor)
            marks = {stream.id: target.watermark(lake, incarnation, stream) for stream in streams}
            waiting = sum(source.waiting_rows(ingestor, stream, marks[stream.id]) for stream in streams)
        target.merge_instruments(lake, instruments)
        target.register(lake, incarnation, configured.ingestor)
        for exchange in sorted({stream.exchange for stream in streams} & set(EXCHANGES)):
            target.note_identities(lake, exchange)
        done = 0
        for stream in streams:
            while True:
                with ingestor.transaction():
                    # Under one snapshot, so that the batches listed, their rows and their coverage are of one moment.
                    batches = take(
                        source.read_batches(ingestor, stream, marks[stream.id]), marks[stream.id], max_weight
                    )
                    if batches is None:
                        break
                    if batches.is_reload:
                        counts = _replace(lake, ingestor, incarnation, stream, batches, peers=peers)
                    else:
                        counts = _merge_range(lake, ingestor, incarnation, stream, batches)
                marks[stream.id] = batches.last
                _add(report, counts, batches)
                done += sum(merged.pulled for merged in counts.values())
                on_progress(Progress(configured.ingestor, done, max(done, waiting)))
            _retry_supersessions(lake, ingestor, incarnation, stream, peers)
            report.missed += claims.check_claims(lake, ingestor, incarnation, stream, pace)
        report.merged_until = target.merged_until(lake, incarnation)


def _replace(
    lake: psycopg.Connection[Any],
    ingestor: psycopg.Connection[Any],
    incarnation: UUID,
    stream: source.Stream,
    batches: BatchRange,
    *,
    peers: supersede.Peers,
) -> dict[Channel, target.Merged]:
    epoch = supersede.read_reload(ingestor, stream, batches)
    with lake.transaction():
        counts = supersede.replace(lake, ingestor, incarnation, stream, epoch, peers=peers)
        target.move_watermark(lake, incarnation, stream, batches)
    return counts


def _retry_supersessions(
    lake: psycopg.Connection[Any],
    ingestor: psycopg.Connection[Any],
    incarnation: UUID,
    stream: source.Stream,
    peers: supersede.Peers,
) -> None:
    """Take out old rows of epochs loaded again that stayed because somebody could not be asked, who now can."""
    for number, reload_to, waited in supersede.pending(lake, incarnation, stream):
        with ingestor.transaction():
            epoch = supersede.epoch_of(ingestor, stream, number, reload_to)
            if supersede.is_worth_a_try(lake, stream, epoch, waited, peers):
                with lake.transaction():
                    supersede.replace(lake, ingestor, incarnation, stream, epoch, peers=peers)


def _merge_range(
    lake: psycopg.Connection[Any],
    ingestor: psycopg.Connection[Any],
    incarnation: UUID,
    stream: source.Stream,
    batches: BatchRange,
) -> dict[Channel, target.Merged]:
    counts: dict[Channel, target.Merged] = {}
    with lake.transaction():
        target.tune(lake)
        for spec in specs(stream.exchange):
            rows = 0
            if batches.received_from is not None:  # asked for in any case, so that rows a batch hides are found
                rows = target.fill(lake, spec, source.copy_out(ingestor, spec, stream, batches))
            if rows != batches.rows[spec.name]:
                _accept_pruned(ingestor, spec.name, stream, batches, rows)
            counts[spec.name] = target.merge(lake, spec, stream.ingestor) if rows else target.Merged(0, 0, 0)
            if rows:
                claims.note_late(lake, spec, incarnation, stream)
        target.merge_connections(lake, incarnation, stream, source.read_connections(ingestor, stream, batches))
        target.merge_coverage(lake, incarnation, stream, source.read_coverage(ingestor, stream, batches))
        target.move_watermark(lake, incarnation, stream, batches)
    return counts


def _accept_pruned(
    ingestor: psycopg.Connection[Any], channel: Channel, stream: source.Stream, batches: BatchRange, rows: int
) -> None:
    """Say that batches have fewer rows than they had where the ingestor pruned; raises SourceError where it did not.

    It does so only with what a datalake had merged, so this one was made anew or restored to before that.
    """
    told = batches.rows[channel]
    if rows > told or not source.is_pruned(ingestor, channel, batches.received_from, batches.received_to):
        raise SourceError(
            f"batches {batches.first} to {batches.last} of {stream.key} say {told} {channel} and the table has {rows}:"
            " rows were removed or added by hand; load their journals again into a new database"
        )
    structlog.get_logger().warning(
        "rows were pruned that this datalake may not have; get them from a backup, the archive or journals",
        stream=stream.key,
        channel=channel,
        batches=f"{batches.first}-{batches.last}",
        rows=told - rows,
        received_from=batches.received_from,
        received_to=batches.received_to,
    )


def _add(report: SourceReport, counts: dict[Channel, target.Merged], batches: BatchRange) -> None:
    report.batches += batches.last - batches.first + 1
    report.transactions += 1
    for channel, merged in counts.items():
        total = report.channels[channel]
        total.pulled += merged.pulled
        total.inserted += merged.inserted
        total.conflicts += merged.conflicts
        total.late += merged.late
        if merged.late:
            structlog.get_logger().warning(
                "rows of times that were dropped from the datalake are not merged, see table late_rows",
                ingestor=report.ingestor,
                channel=channel,
                rows=merged.late,
            )
        if merged.conflicts:
            structlog.get_logger().warning(
                "copies of one event contradict each other; the first is kept, see table sync_conflicts",
                ingestor=report.ingestor,
                channel=channel,
                rows=merged.conflicts,
            )
