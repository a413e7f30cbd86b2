"""What a dump's manifest tells of the database, seen in the very snapshot that pg_dump dumps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..dump_manifest import Hypertable
from ..postgres import connect
from .run import SESSION

with contextlib.suppress(ImportError):  # connect() says so before anything here needs it
    from psycopg import sql

if TYPE_CHECKING:
    from psycopg import Connection

    Database = Connection[tuple[Any, ...]]

GONE_AFTER_DAYS = 30
"""A stream that merged nothing for so long no longer holds back what is protected: its ingestor is gone."""

_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname), coalesce(config.condition, '')
FROM pg_class AS c
    INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_depend AS d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
        AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
    LEFT JOIN LATERAL (
        SELECT each.condition FROM pg_extension AS e, unnest(e.extconfig, e.extcondition) AS each (id, condition)
        WHERE e.oid = d.refobjid AND each.id = c.oid
    ) AS config ON true
WHERE c.relkind = 'r' AND c.relpersistence <> 't'
    AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
    AND (d.objid IS NULL OR config.condition IS NOT NULL)
ORDER BY 1
"""
_HYPERTABLES = """
SELECT format('%I.%I', h.schema_name, h.table_name), h.table_name,
    array_agg(format('%I.%I', k.schema_name, k.table_name)) FILTER (WHERE k.id IS NOT NULL),
    coalesce(bool_or(k.compressed_chunk_id IS NOT NULL), false)
FROM _timescaledb_catalog.hypertable AS h
    LEFT JOIN _timescaledb_catalog.chunk AS k ON k.hypertable_id = h.id AND NOT k.dropped
WHERE h.compression_state <> 2 GROUP BY h.id ORDER BY 1
"""
# Whatever an ingestor's clock says: what is merged after the snapshot is not in it. least() passes over nulls.
_MERGED = f"""
SELECT CASE WHEN min(until) < now() THEN min(until) WHEN min(until) IS NOT NULL THEN now() END FROM (
    SELECT max(c.alive_until) AS until
    FROM public.watermarks AS w INNER JOIN public.connections AS c USING (incarnation, stream)
    WHERE w.updated_at > now() - interval '{GONE_AFTER_DAYS} days'
    GROUP BY w.stream
) AS streams
"""  # noqa: S608 - a constant


@dataclass(frozen=True)
class Facts:
    """What is known at the start, in the snapshot; ``merged_until`` is None for what is no datalake."""

    tables: int
    snapshot: str
    taken_at: str
    system_identifier: str
    postgresql: str
    timescaledb: str | None
    migrations: tuple[str, ...]
    database_bytes: int
    merged_until: str | None


def session(options: Mapping[str, Any], database: str, *, read_only: bool) -> Database:
    """A connection under the dump's own name."""
    connection = connect(options, database, read_only=read_only)
    connection.execute("SELECT set_config('application_name', %s, false)", [SESSION])
    return connection


@contextlib.contextmanager
def exported(options: Mapping[str, Any], database: str) -> Iterator[tuple[Database, Facts]]:
    """A transaction that sees one state of the database, and what pg_dump needs to see the same."""
    with session(options, database, read_only=True) as connection:
        # It takes as long as it takes, and whoever holds the snapshot waits for pg_dump.
        for limit in ("statement_timeout", "transaction_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(sql.SQL("SET {} = 0").format(sql.Identifier(limit)))
        connection.execute("SET timezone = 'UTC'")
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield connection, _facts(connection)
        finally:
            if not connection.closed:
                connection.execute("ROLLBACK")


def _facts(connection: Database) -> Facts:
    row = connection.execute(
        "SELECT pg_export_snapshot(), to_char(now(), 'YYYY-MM-DD\"T\"HH24:MI:SS.USOF'), "
        "(SELECT system_identifier::text FROM pg_control_system()), current_setting('server_version'), "
        "(SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'), "
        "pg_database_size(current_database()), to_regclass('public.schema_migrations') IS NOT NULL"
    ).fetchone()
    assert row is not None
    snapshot, taken_at, system, postgresql, timescaledb, size, has_ledger = row
    migrations: tuple[str, ...] = ()
    if has_ledger:
        rows = connection.execute("SELECT name FROM public.schema_migrations WHERE state = 'applied' ORDER BY version")
        migrations = tuple(name for (name,) in rows)
    merged = merged_until(connection)
    tables = len(connection.execute(_TABLES.encode()).fetchall())
    return Facts(tables, snapshot, taken_at, system, postgresql, timescaledb, migrations, size, merged)


def is_datalake(connection: Database) -> bool:
    """Whether ingestors may ask this database what is protected."""
    tables = ("protections", "watermarks", "connections")
    row = connection.execute(
        "SELECT bool_and(to_regclass('public.' || name) IS NOT NULL) FROM unnest(%s::text[]) AS t (name)",
        [list(tables)],
    ).fetchone()
    return row == (True,)


def merged_until(connection: Database) -> str | None:
    """Up to when everything received is merged: as far as the stream that has come least far. None: nothing yet."""
    if not is_datalake(connection):
        return None
    row = connection.execute(
        b"SELECT to_char(until, 'YYYY-MM-DD\"T\"HH24:MI:SS.USOF') FROM (" + _MERGED.encode() + b") AS least (until)"
    ).fetchone()
    assert row is not None
    return None if row[0] is None else str(row[0])


def count_rows(connection: Database) -> dict[str, int]:
    """Rows of each table that pg_dump dumps, as it does: without children, and without what an extension makes."""
    tables = connection.execute(_TABLES.encode()).fetchall()
    rows = {}
    for table, condition in tables:
        # Name and condition are the server's own, quoted by it.
        found = connection.execute(f"SELECT count(*) FROM ONLY {table} {condition}".encode()).fetchone()  # noqa: S608
        assert found is not None
        rows[table] = int(found[0])
    return rows


def count_hypertables(connection: Database, rows: Mapping[str, int]) -> dict[str, Hypertable]:
    """Rows, chunks and, in a datalake, the digest of each hypertable."""
    if connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'").fetchone() is None:
        return {}
    digests = _digests(connection)
    found = {}
    for table, name, chunks, is_compressed in connection.execute(_HYPERTABLES.encode()).fetchall():
        total = sum(rows.get(chunk, 0) for chunk in chunks or [])
        if is_compressed:  # a chunk's own rows are then batches of them
            row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()  # noqa: S608 - quoted by the server
            assert row is not None
            total = row[0]
        kept_rows, kept_hash = digests.get(name, (None, None)) if table == f"public.{name}" else (None, None)
        found[table] = Hypertable(total, len(chunks or []), kept_rows, kept_hash)
    return found


def _digests(connection: Database) -> dict[str, tuple[int, str]]:
    row = connection.execute("SELECT to_regclass('public.digests') IS NOT NULL").fetchone()
    if not is_datalake(connection) or row != (True,):
        return {}
    query = "SELECT channel, sum(rows)::bigint, sum(hash)::text FROM public.digests GROUP BY channel"
    return {channel: (rows, digest) for channel, rows, digest in connection.execute(query)}


def database_sizes(connection: Database) -> dict[str, int]:
    """Each database that somebody may keep data in, with its bytes on disk."""
    rows = connection.execute(
        "SELECT datname, pg_database_size(oid) FROM pg_database "
        "WHERE datallowconn AND NOT datistemplate AND datname <> 'postgres' ORDER BY datname"
    )
    return dict(rows.fetchall())
