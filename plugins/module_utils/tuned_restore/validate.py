"""Whether a restored database is the dump's: every table's rows, TimescaleDB's catalog, and inserts that work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

try:
    import psycopg
    from psycopg import sql
except ImportError:  # connect() says so before anything here needs it
    pass

if TYPE_CHECKING:
    from psycopg import Connection

    Database = Connection[tuple[Any, ...]]

_CONDITIONS = """
SELECT format('%I.%I', nspname, relname), condition
FROM pg_extension, unnest(extconfig, extcondition) AS config (id, condition)
    INNER JOIN pg_class ON pg_class.oid = config.id INNER JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE extname = 'timescaledb'
"""
_HYPERTABLES = """
SELECT schema_name, table_name, first.id, column_name, interval_length
FROM _timescaledb_catalog.hypertable AS h
    INNER JOIN LATERAL (
        SELECT id, column_name, interval_length FROM _timescaledb_catalog.dimension
        WHERE hypertable_id = h.id AND interval_length IS NOT NULL ORDER BY id LIMIT 1
    ) AS first ON true
WHERE compression_state <> 2 ORDER BY 1, 2
"""
_NEWEST_CHUNKS = """
SELECT schema_name, table_name
FROM _timescaledb_catalog.dimension_slice AS s
    INNER JOIN _timescaledb_catalog.chunk_constraint AS k ON k.dimension_slice_id = s.id
    INNER JOIN _timescaledb_catalog.chunk AS c ON c.id = k.chunk_id AND NOT c.dropped
WHERE s.dimension_id = %s ORDER BY range_end DESC, c.id DESC
"""
_COLUMNS = """
SELECT attname, atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)
FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
ORDER BY attnum
"""


class ValidationError(Exception):
    """What was restored is not what the dump holds."""


@dataclass(frozen=True)
class Validated:
    """What was seen: tables and rows that agree with the dump, hypertables and chunks, test inserts per hypertable."""

    tables: int
    rows: int
    hypertables: int
    chunks: int
    test_inserts: int


def validate(
    connection: Database,
    expected: Mapping[str, int],
    *,
    has_timescaledb: bool,
    session: Callable[[], AbstractContextManager[Database]],
    jobs: int,
) -> Validated:
    """Compare with the rows that the dump has of each table, counted by ``jobs`` sessions at once.

    Raises ValidationError naming the first that differ.
    """
    counts = _count_all(connection, list(expected), session, jobs)
    wrong = [f"{table} has {counts[table]} rows, the dump {n}" for table, n in expected.items() if counts[table] != n]
    if wrong:
        raise ValidationError(f"{len(wrong)} tables are not as in the dump: {'; '.join(wrong[:5])}")
    left_on = connection.execute(
        "SELECT count(*) FROM pg_db_role_setting, unnest(setconfig) AS setting WHERE setting LIKE "
        "'timescaledb.restoring=on' AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())"
    ).fetchone()
    if left_on != (0,):
        raise ValidationError("timescaledb.restoring is still on after timescaledb_post_restore")
    hypertables = chunks = inserts = 0
    if has_timescaledb:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM _timescaledb_catalog.hypertable), "
            "(SELECT count(*) FROM _timescaledb_catalog.chunk WHERE NOT dropped)"
        ).fetchone()
        hypertables, chunks = row or (0, 0)
        inserts = sum(_insert_and_roll_back(connection, each) for each in connection.execute(_HYPERTABLES).fetchall())
    return Validated(len(expected), sum(expected.values()), hypertables, chunks, inserts)


def _newest_chunk(connection: Database, dimension: int) -> sql.Identifier | None:
    """The newest chunk that has a row; looking there for one costs the same however many rows there are in all."""
    for name in connection.execute(_NEWEST_CHUNKS.encode(), [dimension]).fetchall():
        chunk = sql.Identifier(*name)
        if connection.execute(sql.SQL("SELECT 1 FROM {} LIMIT 1").format(chunk)).fetchone():
            return chunk
    return None


def _count_all(
    connection: Database, tables: list[str], session: Callable[[], AbstractContextManager[Database]], jobs: int
) -> dict[str, int]:
    # pg_dump leaves out what the extension makes itself, by these conditions; the same are left out here.
    conditions: dict[str, str] = dict(connection.execute(_CONDITIONS).fetchall())

    def count_some(some: list[str]) -> dict[str, int]:
        with session() as one:
            return {table: _count(one, table, conditions.get(table, "")) for table in some}

    counts: dict[str, int] = {}
    with ThreadPoolExecutor(jobs) as pool:
        for found in pool.map(count_some, (tables[start::jobs] for start in range(min(jobs, len(tables))))):
            counts |= found
    return counts


def _count(connection: Database, table: str, condition: str) -> int:
    # The name is text of the dump, matched as nothing but two quoted or plain identifiers (dump.read_contents).
    query = f"SELECT count(*) FROM ONLY {table} {condition}"  # noqa: S608
    try:
        row = connection.execute(query.encode()).fetchone()
    except psycopg.Error as error:
        raise ValidationError(f"{table} cannot be read: {error}") from error
    assert row is not None
    return int(row[0])


def _insert_and_roll_back(connection: Database, hypertable: tuple[Any, ...]) -> int:
    """Copy a row of the newest chunk into that and, two intervals on, into a new one; 0 where there is no row.

    A constraint that refuses the copy was asked in the chunk the row was routed to, so it proves the routing as well.
    """
    schema, name, dimension, column, interval = hypertable
    table, chunk = sql.Identifier(schema, name), _newest_chunk(connection, dimension)
    if chunk is None:
        return 0
    columns: list[tuple[str, bool]] = connection.execute(_COLUMNS.encode(), [table.as_string(connection)]).fetchall()
    names = sql.SQL(", ").join(sql.Identifier(each) for each, _ in columns)
    in_time = dict(columns)[column]
    done = 0
    for ahead in (0, 2):
        step: sql.Composable
        if in_time:
            step = sql.SQL("{} + {} * interval '1 microsecond'").format(sql.Identifier(column), ahead * interval)
        else:
            step = sql.SQL("{} + {}").format(sql.Identifier(column), ahead * interval)
        values = sql.SQL(", ").join(step if each == column else sql.Identifier(each) for each, _ in columns)
        try:
            with connection.transaction(force_rollback=True):
                done = connection.execute(
                    sql.SQL(
                        "INSERT INTO {table} ({names}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {chunk} LIMIT 1"
                    ).format(table=table, names=names, values=values, chunk=chunk)
                ).rowcount
        except psycopg.IntegrityError:
            done = 1
        except psycopg.Error as error:
            raise ValidationError(f"a test insert into {schema}.{name} failed: {error}") from error
    return done
