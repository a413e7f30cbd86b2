"""Row for row: whether the datalake has all that a chunk of an ingestor holds, and which hours lack something."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import psycopg
from msgspec import Struct
from psycopg import sql

from collectors.retention.plan import Chunk
from collectors.sync import target
from collectors.sync.channels import (
    ChannelSpec,
    Extent,
    analyze_statement,
    stage_name,
    stored,
    timed_columns,
)
from collectors.sync.identities import specs
from collectors.sync.source import Stream, copy_of, received_rows

_PIECE = timedelta(hours=1)
"""Receive time compared at once: what the datalake's temporary table must hold."""


class Lacking(Struct, frozen=True):
    """An hour of which the ingestor holds rows that the datalake has not, or has with other content."""

    channel: str
    instrument_id: int
    hour: datetime
    rows: int
    exchange: str = "?"
    native_id: str = "?"


class Compared(Struct, frozen=True):
    """How a comparison went; ``rows`` were looked at."""

    rows: int
    lacking: list[Lacking]


def compare_chunk(
    ingestor: psycopg.Connection[Any], lake: psycopg.Connection[Any], chunk: Chunk, streams: Sequence[Stream]
) -> Compared:
    """Look for each row of the chunk, as sync knows a copy of it; superseded rows count for nothing.

    Equal means what a digest means: identity and payload. A copy whose payload the datalake refused, and noted in
    sync_conflicts, is there as well.
    """
    by_id = {stream.id: stream for stream in streams}
    rows = 0
    found: dict[tuple[int, datetime], int] = {}
    for stream_id, since in _hours(ingestor, chunk):
        stream = by_id[stream_id]
        (spec,) = (spec for spec in specs(stream.exchange) if spec.name == chunk.channel)
        with lake.transaction():
            target.tune(lake)
            rows += target.fill(lake, spec, copy_of(ingestor, received_rows(spec, stream, since, since + _PIECE)))
            extent = target.extent_of(lake, spec)
            if extent is not None:
                lake.execute(analyze_statement(spec))
                for instrument, hour, count in lake.execute(_lacking(spec, extent, stream.ingestor)).fetchall():
                    found[instrument, hour] = found.get((instrument, hour), 0) + count
    return Compared(rows, [Lacking(chunk.channel, *key, count) for key, count in sorted(found.items())])


def _hours(ingestor: psycopg.Connection[Any], chunk: Chunk) -> list[tuple[int, datetime]]:
    """Stream and hour of receipt of every row: asked of the rows, whatever load_batches says of them."""
    query = sql.SQL(
        "SELECT stream_id, date_trunc('hour', received_at, 'UTC') FROM {}"
        " WHERE received_at >= %s AND received_at < %s GROUP BY 1, 2 ORDER BY 2, 1"
    ).format(sql.Identifier(chunk.channel))
    return ingestor.execute(query, [chunk.start, chunk.end]).fetchall()


def _lacking(spec: ChannelSpec, extent: Extent, ingestor: str) -> sql.Composed:
    """Rows of the stage by instrument and hour that the datalake has neither equal nor noted as a contradiction.

    What it no longer keeps of anybody it does not lack.
    """
    return sql.SQL(
        """
SELECT s.instrument_id, date_trunc('hour', s.time, 'UTC'), count(*)
FROM (SELECT {timed}, {ingestor} AS ingestor FROM {stage}) AS s
WHERE
    NOT EXISTS (SELECT FROM {table} AS t WHERE {stored}{same_payload})
    AND NOT EXISTS (SELECT FROM dropped_chunks AS d WHERE d.channel = {channel} AND d.during @> s.time)
    AND NOT EXISTS (
        SELECT FROM sync_conflicts AS c
        WHERE
            c.instrument_id = s.instrument_id AND c.channel = {channel} AND c.event_id = {event_id}
            AND c.refused_hash = event_hash(jsonb_build_object({refused})::text)
    )
GROUP BY 1, 2
"""
    ).format(
        timed=timed_columns(spec),
        ingestor=sql.Literal(ingestor),
        stage=stage_name(spec),
        table=sql.Identifier(spec.name),
        stored=stored(spec, extent),
        same_payload=sql.SQL(
            f" AND ROW({_each('s.{0}', spec)}) IS NOT DISTINCT FROM ROW({_each('t.{0}', spec)})" if spec.payload else ""
        ),
        channel=sql.Literal(spec.name),
        event_id=sql.SQL(spec.event_id),
        refused=sql.SQL(_each("'{0}', s.{0}", spec)),
    )


def _each(pattern: str, spec: ChannelSpec) -> str:
    return ", ".join(pattern.format(column) for column in spec.payload)
