"""What the ingestor says: chunks, what was loaded when, what waits; and the one thing that is done to it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from collectors.datalake import missing_relations
from collectors.errors import CryptopipError
from collectors.events import CHANNELS, Channel
from collectors.journal import segments
from collectors.retention.datalake import settled
from collectors.retention.plan import Chunk, Load, Parked, SegmentFile
from collectors.sync.source import Stream

NEEDED = ("incarnation", "streams", "load_batches", "journal_positions", "merged_marks", "pruned_chunks", *CHANNELS)


def connect(conninfo: str) -> psycopg.Connection[Any]:
    """A session with the ingestor's database; raises CryptopipError."""
    try:
        connection = psycopg.connect(settled(conninfo), autocommit=True)
    except psycopg.Error as error:
        raise CryptopipError(f"cannot connect to the ingestor's database: {str(error).strip()}") from error
    if missing := missing_relations(connection, NEEDED):
        connection.close()
        raise CryptopipError(
            f"the ingestor's database has no {', '.join(missing)}: migrate it first (playbook migrate)"
        )
    # A chunk in use is dropped by the next run; whoever waits for its lock would hold up the loader behind it.
    connection.execute("SET timezone = 'UTC'; SET lock_timeout = '5s'")
    return connection


def read_chunks(connection: psycopg.Connection[Any]) -> list[Chunk]:
    """Every chunk of received rows, oldest first."""
    found = []
    for channel in CHANNELS:
        found += [
            Chunk(channel, *row)
            for row in connection.execute(
                "SELECT c.range_start, c.range_end, coalesce(s.total_bytes, 0)"
                " FROM timescaledb_information.chunks AS c"
                " LEFT JOIN chunks_detailed_size(%(table)s::text::regclass) AS s"
                " ON s.chunk_schema = c.chunk_schema AND s.chunk_name = c.chunk_name"
                " WHERE c.hypertable_schema = current_schema() AND c.hypertable_name = %(table)s::text",
                {"table": channel},
            )
        ]
    return sorted(found, key=lambda chunk: (chunk.end, chunk.channel))


def read_loads(connection: psycopg.Connection[Any]) -> list[Load]:
    """What was loaded, by segment and day: one pass over the batches."""
    query = sql.SQL(
        "SELECT stream_id, segment, max(batch), min(received_from), max(received_to), {}"
        " FROM load_batches GROUP BY stream_id, segment, date_trunc('day', received_from, 'UTC') ORDER BY 1, 3"
    ).format(sql.SQL(", ").join(sql.SQL("sum({})::bigint").format(sql.Identifier(name)) for name in CHANNELS))
    return [
        Load(row[0], row[1], row[2], row[3], row[4], dict(zip(CHANNELS, row[5:], strict=True)))
        for row in connection.execute(query).fetchall()
    ]


def read_parked(connection: psycopg.Connection[Any]) -> list[Parked]:
    """Frames that wait, by segment."""
    rows = connection.execute(
        "SELECT stream_id, segment, count(*), min(received_at), max(received_at) FROM parked_frames"
        " WHERE resolved_batch IS NULL GROUP BY stream_id, segment ORDER BY 1, 2"
    ).fetchall()
    return [Parked(*row) for row in rows]


def read_keys(connection: psycopg.Connection[Any], what: str) -> set[tuple[int, str]]:
    """Stream and segment of what ``what`` selects from."""
    query = sql.SQL("SELECT DISTINCT stream_id, segment FROM {}").format(sql.SQL(what))
    return {(row[0], row[1]) for row in connection.execute(query).fetchall()}


def read_marks(connection: psycopg.Connection[Any]) -> list[tuple[int, int, datetime]]:
    """Stream, batch, and when the datalake was seen to have merged up to it."""
    return [(row[0], row[1], row[2]) for row in connection.execute("SELECT * FROM merged_marks").fetchall()]


def read_pruned(connection: psycopg.Connection[Any]) -> dict[Channel, list[tuple[datetime, datetime]]]:
    """Receive times whose chunks were dropped."""
    found: dict[Channel, list[tuple[datetime, datetime]]] = {}
    for row in connection.execute("SELECT channel, lower(during), upper(during) FROM pruned_chunks").fetchall():
        found.setdefault(row[0], []).append((row[1], row[2]))
    return found


def read_segments(journal: Path, streams: Iterable[Stream]) -> list[SegmentFile]:
    """The segments on disk, oldest first; of streams that are recorded elsewhere there are none."""
    found = []
    for stream in streams:
        for path in segments(journal / stream.name):
            status = path.stat()
            found.append(
                SegmentFile(stream.id, path.name, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))
            )
    return sorted(found, key=lambda file: (file.written_at, file.name))


def note_marks(
    connection: psycopg.Connection[Any], merged: dict[int, int], seen_at: datetime, protected: datetime | None
) -> None:
    """Note up to which batch each stream is merged now; forget what a datalake before this one had merged, and what
    newer marks say as well."""
    with connection.transaction():
        for stream, batch in merged.items():
            connection.execute("DELETE FROM merged_marks WHERE stream_id = %s AND batch > %s", [stream, batch])
            if batch:
                connection.execute(
                    "INSERT INTO merged_marks (stream_id, batch, seen_at) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                    [stream, batch, seen_at],
                )
        connection.execute(
            "DELETE FROM merged_marks AS m WHERE EXISTS (SELECT FROM merged_marks AS n WHERE n.stream_id = m.stream_id"
            " AND n.batch > m.batch AND n.seen_at <= %s)",
            [protected],
        )


def drop(connection: psycopg.Connection[Any], chunk: Chunk, looked_at: dict[int, int]) -> bool:
    """Drop a chunk and note it, in one transaction; False, and nothing done, where it got rows of later batches.

    ``looked_at``: of each stream the newest batch that was looked at. Once the chunk is locked nobody can add to it.
    """
    later = sql.SQL(
        "SELECT stream_id, max(batch) FROM load_batches WHERE {} > 0 AND received_from < %s AND received_to >= %s"
        " GROUP BY stream_id"
    ).format(sql.Identifier(chunk.channel))
    with connection.transaction() as transaction:
        connection.execute("SELECT prune_chunk(%s, tstzrange(%s, %s))", [chunk.channel, chunk.start, chunk.end])
        found = connection.execute(later, [chunk.end, chunk.start]).fetchall()
        if any(batch > looked_at.get(stream, 0) for stream, batch in found):
            raise psycopg.Rollback(transaction)
        return True
    return False
