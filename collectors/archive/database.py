"""The archive's sessions with the datalake: one snapshot for all of them, and one way in which values become text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import psycopg
from msgspec import Struct
from psycopg import sql

from collectors.archive.errors import ArchiveError
from collectors.archive.manifest import Column, Digest
from collectors.archive.month import Month
from collectors.archive.tables import LEDGER, NOT_ARCHIVED, TABLES, Table, received
from collectors.datalake import missing_relations


class Snapshot(Struct, frozen=True):
    """One state of the datalake, to be looked at by several sessions; ``id`` is PostgreSQL's."""

    id: str
    database: str
    taken_at: datetime
    schema: str


class Source(Struct, frozen=True):
    """The datalake in one state: a session that holds it, and what opens up to ``jobs`` others that see the same."""

    conninfo: str
    connection: psycopg.Connection[Any]
    snapshot: Snapshot
    jobs: int


class Counts(Struct, frozen=True):
    """What the server did: rows, and the first and last day (UTC) that had any."""

    rows: int
    first_day: datetime | None = None
    last_day: datetime | None = None


@contextmanager
def session(conninfo: str, purpose: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection whose text does not depend on the server's or the role's settings; raises ArchiveError."""
    name = f"cryptopip archive {purpose}"
    try:
        connection = psycopg.connect(conninfo, application_name=name, client_encoding="UTF8", autocommit=True)
    except psycopg.Error as error:
        raise ArchiveError(f"cannot connect to the datalake: {str(error).strip()}") from error
    with connection:
        connection.execute("SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'")
        # A killed archive's statement is given up once the server sees that nobody listens.
        connection.execute("SET client_connection_check_interval = '2s'")
        # A month takes as long as it takes, and whoever holds the snapshot waits for the others.
        connection.execute(
            "SET statement_timeout = 0; SET transaction_timeout = 0; SET idle_in_transaction_session_timeout = 0"
        )
        # Rows in the order in which they lie, so that an unchanged month gives the same bytes again.
        connection.execute("SET max_parallel_workers_per_gather = 0; SET synchronize_seqscans = off; SET jit = off")
        yield connection


@contextmanager
def reading(connection: psycopg.Connection[Any], snapshot: Snapshot | None = None) -> Iterator[None]:
    """A transaction that sees one state, and changes nothing; ``snapshot``'s, or one of its own."""
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    with connection.transaction():
        if snapshot is not None:
            connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot.id)))
        yield


@contextmanager
def one_state(conninfo: str, purpose: str, jobs: int) -> Iterator[Source]:
    """One state of a datalake, for as long as it is looked at; raises ArchiveError where there is none."""
    with session(conninfo, purpose) as connection, reading(connection):
        check_schema(connection)
        yield Source(conninfo, connection, take_snapshot(connection), jobs)


@contextmanager
def session_of(source: Source, purpose: str) -> Iterator[psycopg.Connection[Any]]:
    """Another session that sees what ``source`` does."""
    with session(source.conninfo, purpose) as connection, reading(connection, source.snapshot):
        yield connection


def check_schema(connection: psycopg.Connection[Any]) -> None:
    """Raises ArchiveError where this is no datalake of this version."""
    if missing := missing_relations(connection, [*(table.name for table in TABLES), "dropped_chunks"]):
        raise ArchiveError(
            f"the database {connection.info.dbname} has no {', '.join(missing)}, so it is no datalake of this version:"
            " give another conninfo, or run playbooks/migrate.yml"
        )


def take_snapshot(connection: psycopg.Connection[Any]) -> Snapshot:
    """That of the transaction under way, for as long as it lasts."""
    name, database, taken_at = _one(connection, "SELECT pg_export_snapshot(), current_database(), now()")
    return Snapshot(name, database, taken_at, schema_of(connection))


def moment_of(connection: psycopg.Connection[Any]) -> datetime:
    """When the transaction under way began: what was committed before, it sees."""
    moment: datetime = _one(connection, "SELECT now()")[0]
    return moment


def schema_of(connection: psycopg.Connection[Any]) -> str:
    """The name of the newest migration; empty where there is no ledger, or it must not be read."""
    if missing_relations(connection, [LEDGER]):
        return ""
    if not _one(connection, "SELECT has_table_privilege('public.schema_migrations', 'SELECT')")[0]:
        return ""
    newest = connection.execute(
        "SELECT name FROM public.schema_migrations WHERE state = 'applied' ORDER BY version DESC LIMIT 1"
    ).fetchone()
    return str(newest[0]) if newest else ""


def unknown_tables(connection: psycopg.Connection[Any]) -> list[str]:
    """Tables of the datalake that this version neither archives nor knows to leave out."""
    rows = connection.execute(
        "SELECT c.relname FROM pg_class AS c WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace"
        " ORDER BY 1"
    )
    known = {table.name for table in TABLES} | NOT_ARCHIVED.keys()
    return [row[0] for row in rows if row[0] not in known]


def months_with_data(connection: psycopg.Connection[Any]) -> list[Month]:
    """Those with events, or in which somebody was listening, in order."""
    rows = connection.execute(
        "SELECT date_trunc('month', hour, 'UTC') FROM digests WHERE rows > 0 GROUP BY 1"
        " UNION SELECT date_trunc('month', started_at, 'UTC') FROM coverage GROUP BY 1"
        " UNION SELECT date_trunc('month', ended_at, 'UTC') FROM coverage WHERE ended_at IS NOT NULL GROUP BY 1"
        " ORDER BY 1"
    )
    return [Month.of(row[0]) for row in rows]


def digest_of(connection: psycopg.Connection[Any], table: Table, month: Month) -> Digest:
    """What the datalake now says of a table's month."""
    return Digest(*_one(connection, table.digest_query(month)))


def columns_of(connection: psycopg.Connection[Any], table: str) -> list[Column]:
    """In the order of the table."""
    rows = connection.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
        [table],
    )
    return [Column(*row) for row in rows]


def bounds_of(
    connection: psycopg.Connection[Any], table: str, counts: Counts
) -> tuple[datetime | None, datetime | None]:
    """Time of the first and of the last event, looked for in the first and in the last day that has any."""
    if counts.first_day is None or counts.last_day is None:
        return None, None
    query = sql.SQL(
        f"SELECT {{}}(t.time) FROM {{}} AS t"  # noqa: S608
        f" WHERE t.time >= {{}} AND t.time < {{}}::timestamptz + interval '1 day' AND {received(table)}"
    )
    first, last = (
        _one(connection, query.format(sql.SQL(extreme), sql.Identifier(table), sql.Literal(day), sql.Literal(day)))[0]
        for extreme, day in (("min", counts.first_day), ("max", counts.last_day))
    )
    return first, last


def _one(connection: psycopg.Connection[Any], query: sql.Composed | str) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None, "a query without FROM or an aggregate has a row"
    return tuple(row)
