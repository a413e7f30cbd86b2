"""The datalake's side: one sync at a time, and one transaction for each range of batches."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from msgspec import Struct
from psycopg import sql

from collectors.datalake import is_dropped, missing_relations
from collectors.decode import decoder
from collectors.sync.channels import (
    SPECS,
    ChannelSpec,
    Extent,
    analyze_statement,
    contradictions_statement,
    copy_columns,
    create_stage,
    extent_query,
    merge_statement,
    stage_name,
)
from collectors.sync.errors import SourceError, SyncError
from collectors.sync.plan import BatchRange
from collectors.sync.source import CONNECTION_COLUMNS, COVERAGE_COLUMNS, INSTRUMENT_COLUMNS, Stream, copy_of

LOCK = int.from_bytes(b"cpipsync")
TABLES = (
    "sources",
    "watermarks",
    "instruments",
    "connections",
    "coverage",
    "digests",
    "sync_conflicts",
    "supersessions",
    "identities",
    "comparisons",
    "doubts",
    "dropped_chunks",
    "late_rows",
    *(s.name for s in SPECS),
)


class SyncRunningError(SyncError):
    """Another sync holds the datalake; ``holder`` says which."""

    exit_code = 0

    def __init__(self, holder: str) -> None:
        self.holder = holder
        super().__init__(f"another sync is at work on this datalake ({holder}): nothing to do here")


class Merged(Struct, frozen=True):
    """What one stage came to: rows pulled, of which new, and which contradict the copy that is kept."""

    pulled: int
    inserted: int
    conflicts: int
    late: int = 0
    """Not merged, since what else there was of that time has been dropped."""


def connect(conninfo: str) -> psycopg.Connection[Any]:
    """A session ready to merge; raises SyncError where it cannot be had or the schema is missing."""
    name = f"cryptopip sync {socket.gethostname()} pid {os.getpid()}"
    try:
        connection = psycopg.connect(conninfo, application_name=name[:63], client_encoding="UTF8", autocommit=True)
    except psycopg.Error as error:
        raise SyncError(f"cannot connect to the datalake: {str(error).strip()}") from error
    if lacking := missing_relations(connection, TABLES):
        connection.close()
        raise SyncError(f"the datalake has no table {', '.join(lacking)}: migrate it first (playbook migrate)")
    # A killed sync's statement is given up, and its lock with it, once the server sees that nobody listens.
    connection.execute("SET client_connection_check_interval = '2s'")
    connection.execute("SET temp_buffers = '32MB'")
    return connection


@contextmanager
def only_one(connection: psycopg.Connection[Any], *, wait: bool) -> Iterator[None]:
    """Hold the datalake's sync lock; raises SyncRunningError where another does and ``wait`` is false."""
    if wait:
        connection.execute("SELECT pg_advisory_lock(%s)", [LOCK])
    else:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone()
        if row is None or not row[0]:
            raise SyncRunningError(_holder(connection))
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(%s)", [LOCK])


def _holder(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute(
        "SELECT a.application_name, a.pid, a.backend_start"
        " FROM pg_locks AS l INNER JOIN pg_stat_activity AS a USING (pid)"
        " WHERE l.locktype = 'advisory' AND l.granted AND a.datname = current_database() AND l.database = a.datid"
        " AND (l.classid::bigint << 32 | l.objid::bigint) = %s",
        [LOCK],
    ).fetchone()
    if row is None:
        return "it has just ended"
    application, pid, started = row
    # Name and start are hidden from those who log in as another role than the holder.
    who = f"{application!r}, since {started:%Y-%m-%d %H:%M:%S}, " if started is not None else ""
    return f"{who}server process {pid}"


def register(connection: psycopg.Connection[Any], incarnation: UUID, ingestor: str) -> None:
    """Note that this life of an ingestor's database has been seen now."""
    connection.execute(
        "INSERT INTO sources (incarnation, ingestor) VALUES (%s, %s)"
        " ON CONFLICT (incarnation) DO UPDATE SET last_seen = now(), ingestor = excluded.ingestor",
        [incarnation, ingestor],
    )


def note_identities(connection: psycopg.Connection[Any], exchange: str) -> None:
    """Keep in the datalake what makes two events of the exchange the same, for those who read it."""
    streams = decoder(exchange).streams
    connection.cursor().executemany(
        "INSERT INTO identities AS i VALUES (%s, %s, %s, %s) ON CONFLICT (exchange, channel) DO UPDATE"
        " SET identity = excluded.identity, depth = excluded.depth"
        " WHERE (i.identity, i.depth) IS DISTINCT FROM (excluded.identity, excluded.depth)",
        [(exchange, channel, stream.identity.value, stream.depth) for channel, stream in streams.items()],
    )


def merge_instruments(connection: psycopg.Connection[Any], instruments: Sequence[tuple[Any, ...]]) -> int:
    """Add those the datalake lacks, never change one; raises SourceError where an id means something else here.

    Rows move between databases by instrument id untranslated, so a differing id would file them under a stranger.
    """
    keys = ("exchange", "native_id", "listed_at")
    ids = [row[0] for row in instruments]
    known = {
        row[0]: row[1:]
        for row in connection.execute(
            "SELECT id, exchange, native_id, listed_at FROM instruments WHERE id = ANY (%s)", [ids]
        )
    }
    new = []
    for row in instruments:
        theirs = tuple(row[INSTRUMENT_COLUMNS.index(key)] for key in keys)
        if row[0] not in known:
            new.append(row)
        elif known[row[0]] != theirs:
            raise SourceError(
                f"instrument {row[0]} is {_listing(theirs)} there and {_listing(known[row[0]])} in the datalake:"
                " ids are given out in one place, the universe file; deploy it to both"
            )
    if new:
        query = sql.SQL("INSERT INTO instruments ({}) VALUES ({})").format(
            sql.SQL(", ").join(map(sql.Identifier, INSTRUMENT_COLUMNS)),
            sql.SQL(", ").join([sql.Placeholder()] * len(INSTRUMENT_COLUMNS)),
        )
        try:
            with connection.transaction():
                connection.cursor().executemany(query, new)
        except psycopg.errors.UniqueViolation as error:
            raise SourceError(
                f"an instrument has another id there than in the datalake ({error.diag.message_detail}):"
                " ids are given out in one place, the universe file; deploy it to both"
            ) from error
    return len(new)


def _listing(key: tuple[Any, ...]) -> str:
    return f"{key[0]} {key[1]} (listed {key[2]:%Y-%m-%d})"


def watermark(connection: psycopg.Connection[Any], incarnation: UUID, stream: Stream) -> int:
    """The last batch of ``stream`` that is merged, 0 where there is none."""
    row = connection.execute(
        "SELECT batch FROM watermarks WHERE incarnation = %s AND stream = %s", [incarnation, stream.key]
    ).fetchone()
    return int(row[0]) if row else 0


def merged_until(connection: psycopg.Connection[Any], incarnation: UUID) -> datetime | None:
    """Receive time up to which the connections of a source are merged; None where it has none."""
    row = connection.execute(
        "SELECT max(alive_until) FROM connections WHERE incarnation = %s", [incarnation]
    ).fetchone()
    return row[0] if row else None


def move_watermark(connection: psycopg.Connection[Any], incarnation: UUID, stream: Stream, batches: BatchRange) -> None:
    """Say that ``batches`` are merged; belongs into the transaction that merges them."""
    connection.execute(
        "INSERT INTO watermarks (incarnation, stream, batch) VALUES (%s, %s, %s)"
        " ON CONFLICT (incarnation, stream) DO UPDATE SET batch = excluded.batch, updated_at = now()",
        [incarnation, stream.key, batches.last],
    )


def tune(connection: psycopg.Connection[Any]) -> None:
    """Settings of a merging transaction: memory for its one sort and join, index look-ups priced for cached indexes."""
    connection.execute("SET LOCAL work_mem = '96MB'; SET LOCAL random_page_cost = 1.1; SET LOCAL jit = off")


def fill(connection: psycopg.Connection[Any], spec: ChannelSpec, pieces: Iterator[bytes]) -> int:
    """Pass binary COPY on to the stage; returns its rows."""
    connection.execute(create_stage(spec))
    query = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(stage_name(spec), copy_columns(spec))
    with connection.cursor() as cursor:
        with cursor.copy(query) as copy:
            for piece in pieces:
                copy.write(piece)
        return cursor.rowcount


def refill(
    lake: psycopg.Connection[Any], ingestor: psycopg.Connection[Any], spec: ChannelSpec, rows: sql.Composed
) -> int:
    """The stage holds what the query gives on ``ingestor``, and nothing else; returns its rows."""
    lake.execute(create_stage(spec))
    lake.execute(sql.SQL("TRUNCATE {}").format(stage_name(spec)))
    return fill(lake, spec, copy_of(ingestor, rows))


def merge(connection: psycopg.Connection[Any], spec: ChannelSpec, ingestor: str) -> Merged:
    """Merge what the stage holds into the history, its digests and the contradictions."""
    extent = extent_of(connection, spec)
    if extent is None:
        return Merged(0, 0, 0)
    if extent.missing_ids:
        raise SourceError(
            f"{extent.missing_ids} of {extent.rows} {spec.name} have no id by which they could be merged, so every"
            " further ingestor would double them; nothing of their batches was merged"
        )
    late = _set_aside(connection, spec, extent, ingestor)
    if late:
        extent = extent_of(connection, spec)
        if extent is None:
            return Merged(late, 0, 0, late)
    connection.execute(analyze_statement(spec))
    doubting = spec.is_compared and _is_late(connection, extent)
    inserted = _count(connection, merge_statement(spec, extent, ingestor, doubting=doubting))
    conflicts = 0
    if inserted < extent.rows and spec.payload:  # only then is there a second copy of anything
        conflicts = _count(connection, contradictions_statement(spec, extent, ingestor))
    return Merged(extent.rows + late, inserted, conflicts, late)


def _set_aside(connection: psycopg.Connection[Any], spec: ChannelSpec, extent: Extent, ingestor: str) -> int:
    """Take out of the stage, and count, what belongs to times whose chunks were dropped; returns how many rows.

    Without what was there nobody can tell whether a row is new, or a copy; near behind them neither, where the times of
    two copies may differ.
    """
    if not is_dropped(connection, spec.name, extent.first - spec.slack, extent.last):
        return 0
    row = connection.execute(
        sql.SQL(
            """
WITH late AS (
    DELETE FROM {stage} AS s USING dropped_chunks AS d
    WHERE
        d.channel = {channel} AND coalesce({time}, s.received_at) >= lower(d.during)
        AND coalesce({time}, s.received_at) < upper(d.during) + {slack}
    RETURNING date_trunc('day', coalesce({time}, s.received_at), 'UTC') AS day
),
counted AS (
    INSERT INTO late_rows AS l (channel, ingestor, day, rows)
    SELECT {channel}, {ingestor}, day, count(*) FROM late GROUP BY day
    ON CONFLICT (channel, ingestor, day) DO UPDATE SET rows = l.rows + excluded.rows, seen_at = now()
)
SELECT count(*) FROM late
"""
        ).format(
            stage=stage_name(spec),
            channel=sql.Literal(spec.name),
            ingestor=sql.Literal(ingestor),
            time=sql.SQL("s.time"),
            slack=sql.Literal(spec.slack),
        )
    ).fetchone()
    return int(row[0]) if row else 0


def _is_late(connection: psycopg.Connection[Any], extent: Extent) -> bool:
    """Whether some stream was compared already with what others had of that time."""
    row = connection.execute("SELECT EXISTS (SELECT FROM comparisons WHERE until > %s)", [extent.first]).fetchone()
    return row == (True,)


def _count(connection: psycopg.Connection[Any], statement: sql.Composed) -> int:
    row = connection.execute(statement).fetchone()
    return int(row[0]) if row else 0


def extent_of(connection: psycopg.Connection[Any], spec: ChannelSpec) -> Extent | None:
    """What the stage holds, None where it is empty."""
    rows = connection.execute(extent_query(spec)).fetchall()
    if not rows:
        return None
    return Extent(
        rows=sum(row[1] for row in rows),
        missing_ids=sum(row[2] for row in rows),
        instruments=sorted(row[0] for row in rows),
        first=min(row[3] for row in rows),
        last=max(row[4] for row in rows),
    )


def merge_connections(
    connection: psycopg.Connection[Any], incarnation: UUID, stream: Stream, rows: Sequence[tuple[Any, ...]]
) -> None:
    """Add or renew connections as the ingestor has them."""
    fixed = {"incarnation": incarnation, "stream": stream.key, "ingestor": stream.ingestor, "exchange": stream.exchange}
    _upsert(
        connection,
        "connections",
        key=("incarnation", "stream", "epoch"),
        fixed=fixed,
        columns=CONNECTION_COLUMNS,
        rows=rows,
    )


def merge_coverage(
    connection: psycopg.Connection[Any], incarnation: UUID, stream: Stream, rows: Sequence[tuple[Any, ...]]
) -> None:
    """Add or renew coverage rows as the ingestor has them."""
    fixed = {"incarnation": incarnation, "stream": stream.key, "ingestor": stream.ingestor}
    _upsert(connection, "coverage", key=("incarnation", "id"), fixed=fixed, columns=COVERAGE_COLUMNS, rows=rows)


def _upsert(
    connection: psycopg.Connection[Any],
    table: str,
    *,
    key: tuple[str, ...],
    fixed: dict[str, Any],
    columns: tuple[str, ...],
    rows: Sequence[tuple[Any, ...]],
) -> None:
    if not rows:
        return
    names = (*fixed, *columns)
    query = sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {}").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, names)),
        sql.SQL(", ").join([sql.Placeholder()] * len(names)),
        sql.SQL(", ").join(map(sql.Identifier, key)),
        sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in names if name not in key
        ),
    )
    connection.cursor().executemany(query, [(*fixed.values(), *row) for row in rows])
