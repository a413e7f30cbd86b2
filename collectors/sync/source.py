"""The ingestor's side: what it has that is new, read under one snapshot so that batches and rows agree."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from msgspec import Struct
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from collectors.events import CHANNELS
from collectors.sync.channels import SPECS, ChannelSpec, copy_columns
from collectors.sync.errors import SourceError
from collectors.sync.plan import Batch, BatchRange
from collectors.sync.tuples import numbered_query, numbered_rows

# A source that vanishes must not hold up the others for the hours TCP would wait.
PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
BATCHES_AT_ONCE = 10_000
PIECE = 1 << 18
_BATCH_COLUMNS = {"number": "batch"}
"""Columns of load_batches that are not called what they are called in Batch."""

INSTRUMENT_COLUMNS = (
    "id", "exchange", "symbol", "native_id", "kind", "base", "quote", "settle", "contract_size", "is_inverse", "expiry",
    "strike", "option_type", "price_tick", "amount_step", "listed_at", "delisted_at",
)  # fmt: skip
CONNECTION_COLUMNS = ("epoch", "opened_at", "alive_until", "closed_at", "ended_by", "batch")
COVERAGE_COLUMNS = (
    "id", "epoch", "instrument_id", "channel", "started_at", "ended_at", "first_id", "last_id", "first_time",
    "last_time", "proof", "ended_by", "batch",
)  # fmt: skip
NEEDED: dict[str, set[str]] = {
    "incarnation": {"id"},
    "streams": {"id", "ingestor", "name", "exchange"},
    "load_batches": {
        "stream_id",
        "batch",
        "received_from",
        "received_to",
        "segment",
        "superseded_by",
        "reload_to",
        *CHANNELS,
    },
    "instruments": set(INSTRUMENT_COLUMNS),
    "connections": {"stream_id", *CONNECTION_COLUMNS},
    "coverage": {"stream_id", *COVERAGE_COLUMNS},
    "pruned_chunks": {"channel", "during"},
} | {spec.name: {"stream_id", "batch", *(name for name, _ in spec.columns)} for spec in SPECS}


class Stream(Struct, frozen=True):
    """A journal folder's rows on an ingestor; ``key`` names it in the datalake."""

    id: int
    ingestor: str
    name: str
    exchange: str

    @property
    def key(self) -> str:
        """Unlike the name alone, unique within a database that also holds replays."""
        return f"{self.ingestor}/{self.name}"


def connect(conninfo: str) -> psycopg.Connection[Any]:
    """A connection that reads only, each transaction under one snapshot; raises SourceError."""
    settings: dict[str, Any] = {**PATIENCE, **conninfo_to_dict(conninfo), "client_encoding": "UTF8"}
    try:
        # Whatever a database's encoding, text is compared and logged as text.
        connection = psycopg.connect(make_conninfo(**settings, application_name="cryptopip sync"), autocommit=True)
    except psycopg.Error as error:
        raise SourceError(f"cannot connect: {str(error).strip()}") from error
    connection.read_only = True
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    return connection


def check_schema(connection: psycopg.Connection[Any]) -> None:
    """Raise SourceError naming the tables and columns that sync needs and this database has not."""
    found: dict[str, set[str]] = {}
    for table, column in connection.execute(
        "SELECT c.relname, a.attname FROM pg_class AS c"
        " INNER JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
        " WHERE c.relname = ANY (%s) AND pg_table_is_visible(c.oid)",
        [list(NEEDED)],
    ):
        found.setdefault(table, set()).add(column)
    lacking = [f"table {table}" for table in NEEDED if table not in found]
    lacking += [
        f"column {table}.{c}" for table in NEEDED if table in found for c in sorted(NEEDED[table] - found[table])
    ]
    if lacking:
        raise SourceError(
            f"its schema is another version: {', '.join(lacking)} not found;"
            " bring ingestors and datalake to the same release (playbook migrate)"
        )


def read_incarnation(connection: psycopg.Connection[Any]) -> UUID:
    """The id of this life of the database; raises SourceError where the row is gone."""
    row = connection.execute("SELECT id FROM incarnation").fetchone()
    if row is None:
        raise SourceError("its table incarnation is empty: the migration wrote one row there; restore it")
    identity: UUID = row[0]
    return identity


def read_streams(connection: psycopg.Connection[Any]) -> list[Stream]:
    """All streams, in the order they came to be."""
    rows = connection.execute("SELECT id, ingestor, name, exchange FROM streams ORDER BY id").fetchall()
    return [Stream(*row) for row in rows]


def read_instruments(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    """The ingestor's copy of the instruments, in the order of INSTRUMENT_COLUMNS."""
    return connection.execute(f"SELECT {', '.join(INSTRUMENT_COLUMNS)} FROM instruments ORDER BY id").fetchall()  # noqa: S608


def read_batches(connection: psycopg.Connection[Any], stream: Stream, watermark: int) -> list[Batch]:
    """The next batches after ``watermark``, BATCHES_AT_ONCE at most."""
    query = sql.SQL("SELECT {} FROM load_batches WHERE stream_id = %s AND batch > %s ORDER BY batch LIMIT %s").format(
        sql.SQL(", ").join(sql.Identifier(_BATCH_COLUMNS.get(field, field)) for field in Batch.__struct_fields__)
    )
    return [Batch(*row) for row in connection.execute(query, [stream.id, watermark, BATCHES_AT_ONCE])]


def waiting_rows(connection: psycopg.Connection[Any], stream: Stream, watermark: int) -> int:
    """Rows in all batches after ``watermark``: what progress counts against."""
    query = sql.SQL(
        "SELECT coalesce(sum({}), 0)::bigint FROM load_batches WHERE stream_id = %s AND batch > %s"
        " AND superseded_by IS NULL"
    ).format(sql.SQL(" + ").join(sql.Identifier(spec.name) for spec in SPECS))
    row = connection.execute(query, [stream.id, watermark]).fetchone()
    return int(row[0]) if row else 0


def is_pruned(
    connection: psycopg.Connection[Any], channel: str, since: datetime | None, until: datetime | None
) -> bool:
    """Whether rows of a channel received in that time, both included, may have been pruned: they were merged once."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pruned_chunks WHERE channel = %s AND during && tstzrange(%s, %s, '[]'))",
        [channel, since, until],
    ).fetchone()
    return row == (True,)


def copy_out(
    connection: psycopg.Connection[Any], spec: ChannelSpec, stream: Stream, batches: BatchRange
) -> Iterator[bytes]:
    """The rows of ``batches`` as PostgreSQL's binary COPY, in pieces of about PIECE bytes, never decoded here.

    The server sends a message a row; joined they cost the other side a system call per piece instead of per row.
    """
    return copy_of(
        connection, numbered_query(spec, stream.id, batches) if spec.numbered else _plain(spec, stream, batches)
    )


def copy_of(connection: psycopg.Connection[Any], rows: sql.Composed) -> Iterator[bytes]:
    """What a query gives, as ``copy_out`` does."""
    query = sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(rows)
    pieces: list[bytes] = []
    size = 0
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        for data in copy:
            pieces.append(bytes(data))
            size += len(data)
            if size >= PIECE:
                yield b"".join(pieces)
                pieces.clear()
                size = 0
    yield b"".join(pieces)


def received_rows(spec: ChannelSpec, stream: Stream, since: datetime, until: datetime) -> sql.Composed:
    """The query of a stream's rows received from ``since`` on and before ``until``, superseded ones left out."""
    parts = {
        "columns": copy_columns(spec),
        "table": sql.Identifier(spec.name),
        "stream": sql.Literal(stream.id),
        "since": sql.Literal(since),
        "until": sql.Literal(until),
    }
    counted = sql.SQL(
        "stream_id = {stream} AND batch NOT IN"
        " (SELECT batch FROM load_batches WHERE stream_id = {stream} AND superseded_by IS NOT NULL)"
    ).format(**parts)
    if spec.numbered:
        wanted = sql.SQL("n.received_at >= {since} AND n.received_at < {until}").format(**parts)
        return numbered_rows(spec, counted, wanted, since, until)
    return sql.SQL(
        "SELECT {columns} FROM {table} WHERE {counted} AND received_at >= {since} AND received_at < {until}"
    ).format(counted=counted, **parts)


def _plain(spec: ChannelSpec, stream: Stream, batches: BatchRange) -> sql.Composed:
    return sql.SQL(
        "SELECT {columns} FROM {table} WHERE stream_id = {stream} AND batch BETWEEN {first} AND {last}"
        " AND received_at BETWEEN {received_from} AND {received_to}{but}"
    ).format(
        but=sql.SQL(" AND batch <> ALL ({})").format(sql.Literal(list(batches.superseded)))
        if batches.superseded
        else sql.SQL(""),
        columns=copy_columns(spec),
        table=sql.Identifier(spec.name),
        stream=sql.Literal(stream.id),
        first=sql.Literal(batches.first),
        last=sql.Literal(batches.last),
        received_from=sql.Literal(batches.received_from),
        received_to=sql.Literal(batches.received_to),
    )


def read_connections(connection: psycopg.Connection[Any], stream: Stream, batches: BatchRange) -> list[tuple[Any, ...]]:
    """Connections last changed within ``batches``, in the order of CONNECTION_COLUMNS."""
    return _changed(connection, "connections", CONNECTION_COLUMNS, stream, batches)


def read_coverage(connection: psycopg.Connection[Any], stream: Stream, batches: BatchRange) -> list[tuple[Any, ...]]:
    """Coverage rows last changed within ``batches``, in the order of COVERAGE_COLUMNS."""
    return _changed(connection, "coverage", COVERAGE_COLUMNS, stream, batches)


def read_epoch(
    connection: psycopg.Connection[Any], table: str, columns: tuple[str, ...], stream: Stream, epoch: int
) -> list[tuple[Any, ...]]:
    """Rows of ``connections`` or ``coverage`` of an epoch."""
    query = sql.SQL("SELECT {} FROM {} WHERE stream_id = %s AND epoch = %s").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(table)
    )
    return connection.execute(query, [stream.id, epoch]).fetchall()


def _changed(
    connection: psycopg.Connection[Any], table: str, columns: tuple[str, ...], stream: Stream, batches: BatchRange
) -> list[tuple[Any, ...]]:
    query = sql.SQL("SELECT {} FROM {} WHERE stream_id = %s AND batch BETWEEN %s AND %s").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(table)
    )
    return connection.execute(query, [stream.id, batches.first, batches.last]).fetchall()
