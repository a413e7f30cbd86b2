"""An epoch that an ingestor loaded again: what its old batches alone had contributed leaves the history.

The contract: in one transaction the new rows are merged, and rows that the old batches had and that nobody has now are
taken out, digests with them. Nobody: neither this ingestor nor any other that listened to the exchange at that time and
was merged. One that cannot be asked may have them, so then they stay, and the supersession waits for it in table
``supersessions``. What a wrong row kept out is merged anew from all. Everything follows from what the ingestors have
now, so that it may be done again at any time, in any order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
import structlog
from msgspec import Struct
from psycopg import sql

from collectors.config import Source
from collectors.events import Channel
from collectors.sync import claims, source, target
from collectors.sync.channels import ChannelSpec, Extent, copy_columns, stage_name, stored, timed_columns
from collectors.sync.errors import SourceError
from collectors.sync.identities import specs
from collectors.sync.plan import BatchRange
from collectors.sync.source import CONNECTION_COLUMNS, COVERAGE_COLUMNS, Stream
from collectors.sync.tuples import numbered_rows

_EARLY: Final = timedelta(minutes=10)
_LATE: Final = timedelta(days=1)
"""How much earlier and later than the epoch's another ingestor may have received a copy (a late one: sent again)."""


class Epoch(Struct, frozen=True):
    """A reload as the ingestor has it; receive times of the rows that it superseded, None where there are none."""

    epoch: int
    reload_to: int
    superseded_from: datetime | None
    superseded_to: datetime | None
    received_from: datetime | None
    received_to: datetime | None


class Holder(Struct, frozen=True):
    """A stream that may have copies, under one snapshot."""

    connection: psycopg.Connection[Any]
    stream: Stream


class Peers:
    """Connections to all sources, made when first asked for and kept until ``close``."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._open = ExitStack()
        self._connections: list[psycopg.Connection[Any]] | None = None

    def close(self) -> None:
        """Give up the connections."""
        self._open.close()
        self._connections = None

    @contextmanager
    def holders(self, exchange: str) -> Iterator[list[Holder]]:
        """Every stream of the exchange that can be asked, each ingestor under one snapshot."""
        if self._connections is None:
            self._connections = []
            for each in self._sources:
                try:
                    one = self._open.enter_context(source.connect(each.database))
                    source.check_schema(one)
                except (SourceError, psycopg.Error):
                    continue  # who is missing is found by its epochs
                self._connections.append(one)
        with ExitStack() as snapshots:
            found = []
            for one in self._connections:
                try:
                    snapshots.enter_context(one.transaction())
                    streams = source.read_streams(one)
                except psycopg.Error:
                    continue
                found += [Holder(one, stream) for stream in streams if stream.exchange == exchange]
            yield found


def read_reload(connection: psycopg.Connection[Any], stream: Stream, batches: BatchRange) -> Epoch:
    """The epoch that ``batches`` are; raises SourceError where they are not whole."""
    row = connection.execute(
        "SELECT min(split_part(segment, '-', 1)), count(DISTINCT split_part(segment, '-', 1)), count(*)"
        " FROM load_batches WHERE stream_id = %s AND batch BETWEEN %s AND %s AND reload_to = %s",
        [stream.id, batches.first, batches.last, batches.last],
    ).fetchone()
    assert row is not None
    name, epochs, count = row
    if epochs != 1 or count != batches.last - batches.first + 1 or not name.isdigit():
        raise SourceError(
            f"batches {batches.first} to {batches.last} of {stream.key} should be one epoch loaded again and are"
            f" {count} batches of {epochs} (load_batches was changed by hand): load its journal again"
        )
    return epoch_of(connection, stream, int(name), batches.last)


def epoch_of(connection: psycopg.Connection[Any], stream: Stream, epoch: int, reload_to: int) -> Epoch:
    """What the ingestor has of an epoch now."""
    row = connection.execute(
        "SELECT min(received_from) FILTER (WHERE superseded_by IS NOT NULL),"
        " max(received_to) FILTER (WHERE superseded_by IS NOT NULL),"
        " min(received_from) FILTER (WHERE superseded_by IS NULL),"
        " max(received_to) FILTER (WHERE superseded_by IS NULL)"
        " FROM load_batches WHERE stream_id = %s AND split_part(segment, '-', 1) = %s",
        [stream.id, str(epoch)],
    ).fetchone()
    assert row is not None
    return Epoch(epoch, reload_to, *row)


def replace(
    lake: psycopg.Connection[Any],
    ingestor: psycopg.Connection[Any],
    incarnation: UUID,
    stream: Stream,
    epoch: Epoch,
    *,
    peers: Peers,
) -> dict[Channel, target.Merged]:
    """Bring the history to what is in force of the epoch; belongs into a transaction of ``lake``."""
    target.tune(lake)
    with peers.holders(stream.exchange) as holders:
        missing = _missing(lake, stream.exchange, holders, epoch)
        removed = 0
        waits: set[str] = set()
        counts: dict[Channel, target.Merged] = {}
        for spec in specs(stream.exchange):
            left = _gather_old(lake, ingestor, spec, stream, epoch)
            if left is None:
                waits.add(f"{stream.key}: rows of superseded {spec.name} are pruned")
            elif left:
                waits |= missing | _pruned(spec, holders, epoch)
                left = 0 if waits else _remove(lake, spec, holders, epoch)
                removed += left
            target.refill(lake, ingestor, spec, _in_force(spec, stream, epoch))
            counts[spec.name] = target.merge(lake, spec, stream.ingestor)
            if left:  # what a row taken out had kept from being merged
                for holder in holders:
                    target.refill(lake, holder.connection, spec, _window(lake, spec, holder.stream, epoch))
                    target.merge(lake, spec, holder.stream.ingestor)
            lake.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(_old(spec)))
    lake.execute(
        "DELETE FROM coverage WHERE incarnation = %s AND stream = %s AND epoch = %s",
        [incarnation, stream.key, epoch.epoch],
    )
    for table, columns, merge in (
        ("connections", CONNECTION_COLUMNS, target.merge_connections),
        ("coverage", COVERAGE_COLUMNS, target.merge_coverage),
    ):
        merge(lake, incarnation, stream, source.read_epoch(ingestor, table, columns, stream, epoch.epoch))
    claims.compare_anew(lake, incarnation, stream, epoch.epoch)
    _note(lake, incarnation, stream, epoch, removed=removed, waits=sorted(waits))
    return counts


def pending(lake: psycopg.Connection[Any], incarnation: UUID, stream: Stream) -> list[tuple[int, int, list[str]]]:
    """Epochs of a stream whose old rows are still in the history, the batch their reload ended with, and why."""
    return lake.execute(
        "SELECT epoch, reload_to, waits_for FROM supersessions"
        " WHERE incarnation = %s AND stream = %s AND finished_at IS NULL ORDER BY epoch",
        [incarnation, stream.key],
    ).fetchall()


def is_worth_a_try(
    lake: psycopg.Connection[Any], stream: Stream, epoch: Epoch, waited: Sequence[str], peers: Peers
) -> bool:
    """Whether somebody who was waited for can be asked now; costs no reading of rows."""
    with peers.holders(stream.exchange) as holders:
        missing = _missing(lake, stream.exchange, holders, epoch)
    return bool({each for each in waited if "pruned" not in each} - missing)


def _note(
    lake: psycopg.Connection[Any], incarnation: UUID, stream: Stream, epoch: Epoch, *, removed: int, waits: list[str]
) -> None:
    lake.execute(
        "INSERT INTO supersessions AS s (incarnation, stream, epoch, reload_to, finished_at, removed, waits_for)"
        " VALUES (%s, %s, %s, %s, CASE WHEN %s THEN now() END, %s, %s)"
        " ON CONFLICT (incarnation, stream, epoch) DO UPDATE SET reload_to = excluded.reload_to,"
        " finished_at = excluded.finished_at, removed = s.removed + excluded.removed, waits_for = excluded.waits_for",
        [incarnation, stream.key, epoch.epoch, epoch.reload_to, not waits, removed, waits],
    )
    log = structlog.get_logger()
    if waits:
        log.warning(
            "an epoch was loaded again; rows of its old batches stay, since others may have them and cannot be asked",
            stream=stream.key,
            epoch=epoch.epoch,
            waits_for=waits,
        )
    else:
        log.info("an epoch was loaded again", stream=stream.key, epoch=epoch.epoch, removed=removed)


def _missing(lake: psycopg.Connection[Any], exchange: str, holders: Sequence[Holder], epoch: Epoch) -> set[str]:
    """Connections that were merged, listened at the time, and are on no ingestor that can be asked."""
    if epoch.superseded_from is None or epoch.superseded_to is None:
        return set()
    wanted = lake.execute(
        "SELECT DISTINCT stream, epoch FROM connections WHERE exchange = %s AND opened_at <= %s AND alive_until >= %s",
        [exchange, epoch.superseded_to + _LATE, epoch.superseded_from - _EARLY],
    ).fetchall()
    found = {
        (holder.stream.key, row[0])
        for holder in holders
        for row in holder.connection.execute("SELECT epoch FROM connections WHERE stream_id = %s", [holder.stream.id])
    }
    return {f"{stream} epoch {of}" for stream, of in wanted if (stream, of) not in found}


def _pruned(spec: ChannelSpec, holders: Sequence[Holder], epoch: Epoch) -> set[str]:
    """Streams whose table has fewer rows of that time than their batches say."""
    found = set()
    for holder in holders:
        row = holder.connection.execute(
            sql.SQL(
                "WITH b AS (SELECT batch, {name} AS rows FROM load_batches WHERE stream_id = {stream}"
                " AND superseded_by IS NULL AND received_from <= {until} AND received_to >= {since})"
                " SELECT (SELECT coalesce(sum(rows), 0) FROM b),"
                " (SELECT count(*) FROM {name} WHERE stream_id = {stream} AND batch IN (SELECT batch FROM b))"
            ).format(
                name=sql.Identifier(spec.name),
                stream=sql.Literal(holder.stream.id),
                until=sql.Literal(epoch.superseded_to + _LATE if epoch.superseded_to else None),
                since=sql.Literal(epoch.superseded_from - _EARLY if epoch.superseded_from else None),
            )
        ).fetchone()
        assert row is not None
        if row[0] != row[1]:
            found.add(f"{holder.stream.key}: rows of {spec.name} are pruned")
    return found


def _old(spec: ChannelSpec) -> sql.Identifier:
    return sql.Identifier(f"old_{spec.name}")


def _batches(stream: Stream, epoch: Epoch, *, superseded: bool) -> sql.Composed:
    return sql.SQL(
        "SELECT batch FROM load_batches WHERE stream_id = {} AND split_part(segment, '-', 1) = {}"
        " AND (superseded_by IS NOT NULL) = {}"
    ).format(sql.Literal(stream.id), sql.Literal(str(epoch.epoch)), sql.Literal(superseded))


def _rows(spec: ChannelSpec, counted: sql.Composed, since: datetime | None, until: datetime | None) -> sql.Composed:
    """Rows that are ``counted`` and were received in that time; none where there is no such time."""
    if spec.numbered:
        return numbered_rows(spec, counted, sql.SQL("true"), since, until)
    return sql.SQL(
        "SELECT {columns} FROM {table} WHERE {counted} AND received_at BETWEEN {since}::timestamptz"
        " AND {until}::timestamptz"
    ).format(
        columns=copy_columns(spec),
        table=sql.Identifier(spec.name),
        counted=counted,
        since=sql.Literal(since),
        until=sql.Literal(until),
    )


def _of_batches(stream: Stream, batches: sql.Composed) -> sql.Composed:
    return sql.SQL("stream_id = {} AND batch IN ({})").format(sql.Literal(stream.id), batches)


def _in_force(spec: ChannelSpec, stream: Stream, epoch: Epoch) -> sql.Composed:
    counted = _of_batches(stream, _batches(stream, epoch, superseded=False))
    return _rows(spec, counted, epoch.received_from, epoch.received_to)


def _window(lake: psycopg.Connection[Any], spec: ChannelSpec, stream: Stream, epoch: Epoch) -> sql.Composed:
    """All rows in force of a stream that may be copies of the old rows that are left."""
    extent = _old_extent(lake, spec)
    assert extent is not None, "copies are looked for only where rows are left"
    assert epoch.superseded_from is not None
    assert epoch.superseded_to is not None
    counted = _of_batches(
        stream,
        sql.SQL("SELECT batch FROM load_batches WHERE stream_id = {} AND superseded_by IS NULL").format(
            sql.Literal(stream.id)
        ),
    )
    inner = _rows(spec, counted, epoch.superseded_from - _EARLY, epoch.superseded_to + _LATE)
    return sql.SQL(
        "SELECT {columns} FROM ({inner}) AS q WHERE instrument_id = ANY ({instruments})"
        " AND coalesce(time, received_at) BETWEEN {first} AND {last}"
    ).format(
        columns=copy_columns(spec),
        inner=inner,
        instruments=sql.Literal(extent.instruments),
        first=sql.Literal(extent.first - spec.slack),
        last=sql.Literal(extent.last + spec.slack),
    )


def _gather_old(
    lake: psycopg.Connection[Any],
    ingestor: psycopg.Connection[Any],
    spec: ChannelSpec,
    stream: Stream,
    epoch: Epoch,
) -> int | None:
    """Keep in ``old`` the superseded rows that the epoch no longer has; their number, None where they are pruned."""
    row = ingestor.execute(
        sql.SQL("SELECT coalesce(sum({}), 0) FROM load_batches WHERE stream_id = {} AND batch IN ({})").format(
            sql.Identifier(spec.name), sql.Literal(stream.id), _batches(stream, epoch, superseded=True)
        )
    ).fetchone()
    assert row is not None
    counted = _of_batches(stream, _batches(stream, epoch, superseded=True))
    rows = 0
    if epoch.superseded_from is not None:
        rows = target.refill(lake, ingestor, spec, _rows(spec, counted, epoch.superseded_from, epoch.superseded_to))
    if rows != row[0]:
        return None
    if not rows:
        return 0
    lake.execute(
        sql.SQL(
            "CREATE TEMP TABLE {} ON COMMIT DROP AS"
            " SELECT DISTINCT t.*, {} AS text FROM (SELECT {}, {} AS ingestor FROM {}) AS t"
        ).format(_old(spec), sql.SQL(spec.text), timed_columns(spec), sql.Literal(stream.ingestor), stage_name(spec))
    )
    target.refill(lake, ingestor, spec, _in_force(spec, stream, epoch))
    return _subtract(lake, spec, stream.ingestor)


def _subtract(lake: psycopg.Connection[Any], spec: ChannelSpec, ingestor: str) -> int:
    """Drop from ``old`` what the stage has too; the number of rows left."""
    lake.execute(
        sql.SQL(
            "DELETE FROM {old} AS s USING"
            " (SELECT t.*, {text} AS text FROM (SELECT {timed}, {ingestor} AS ingestor FROM {stage}) AS t) AS t"
            " WHERE t.instrument_id = s.instrument_id AND {same} AND t.text = s.text"
        ).format(
            old=_old(spec),
            text=sql.SQL(spec.text),
            timed=timed_columns(spec),
            ingestor=sql.Literal(ingestor),
            stage=stage_name(spec),
            same=sql.SQL(spec.same),
        )
    )
    row = lake.execute(sql.SQL("SELECT count(*) FROM {}").format(_old(spec))).fetchone()
    return int(row[0]) if row else 0


def _old_extent(lake: psycopg.Connection[Any], spec: ChannelSpec) -> Extent | None:
    row = lake.execute(
        sql.SQL("SELECT count(*), array_agg(DISTINCT instrument_id), min(time), max(time) FROM {}").format(_old(spec))
    ).fetchone()
    if row is None or not row[0]:
        return None
    return Extent(rows=row[0], missing_ids=0, instruments=sorted(row[1]), first=row[2], last=row[3])


def _remove(lake: psycopg.Connection[Any], spec: ChannelSpec, holders: Sequence[Holder], epoch: Epoch) -> int:
    """Take out of the history the old rows that nobody has; how many. ``old`` keeps those that nobody has."""
    for holder in holders:
        target.refill(lake, holder.connection, spec, _window(lake, spec, holder.stream, epoch))
        if not _subtract(lake, spec, holder.stream.ingestor):
            return 0
    extent = _old_extent(lake, spec)
    assert extent is not None, "rows are left"
    row = lake.execute(
        sql.SQL(
            """
WITH gone AS (
    DELETE FROM {table} AS t USING {old} AS s WHERE {stored} AND {text} = s.text
    RETURNING t.instrument_id, time_bucket('1 hour', t.time) AS hour, event_hash(s.text) AS hash
),
sums AS (SELECT instrument_id, hour, count(*) AS rows, sum(hash) AS hash FROM gone GROUP BY instrument_id, hour),
digested AS (
    UPDATE digests AS d SET rows = d.rows - sums.rows, hash = d.hash - sums.hash FROM sums
    WHERE d.instrument_id = sums.instrument_id AND d.channel = {channel} AND d.hour = sums.hour
),
settled AS (
    DELETE FROM sync_conflicts AS c USING {old} AS s
    WHERE c.instrument_id = s.instrument_id AND c.channel = {channel} AND c.event_id = {event_id}
)
SELECT count(*) FROM gone
"""
        ).format(
            table=sql.Identifier(spec.name),
            old=_old(spec),
            stored=stored(spec, extent),
            text=sql.SQL(spec.text),
            channel=sql.Literal(spec.name),
            event_id=sql.SQL(spec.event_id),
        )
    ).fetchone()
    return int(row[0]) if row else 0
