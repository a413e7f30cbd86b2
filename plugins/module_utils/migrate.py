"""Brings a database to a version: looks, plans, and carries the plan out unless it is only to be shown."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString

from .migrations import (
    Migration,
    MigrationError,
    Row,
    Script,
    Step,
    describe,
    ledger_after,
    ledger_text,
    pending,
    plan_migrations,
)
from .postgres import PostgresError, connect
from .sql_statements import Statement

try:
    import psycopg
    from psycopg import sql
except ImportError:  # connect() says so before anything here needs it
    pass

if TYPE_CHECKING:
    from psycopg import Connection

    Database = Connection[tuple[Any, ...]]

MAINTENANCE_DATABASE = "postgres"
LOCK_KEY = 4_716_091_252_201_735  # any constant of our own; advisory locks are per database
LOCK_TIMEOUT_S = 60

_LEDGER = """
CREATE TABLE public.schema_migrations (
    version    integer     PRIMARY KEY CHECK (version > 0),
    name       text        NOT NULL UNIQUE,
    sha256     text        NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    edition    text        NOT NULL CHECK (edition IN ('any', 'community')),
    state      text        NOT NULL CHECK (state IN ('applied', 'skipped', 'running')),
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    applied_by text        NOT NULL DEFAULT session_user,
    duration   interval
);
COMMENT ON TABLE public.schema_migrations IS 'Which migrations this database has; written by schema_migration alone.';
COMMENT ON COLUMN public.schema_migrations.state IS
    'applied; skipped: needs the community edition; running: began outside a transaction and has not finished.';
"""
_WRITE = """
INSERT INTO public.schema_migrations (version, name, sha256, edition, state, duration)
VALUES (%(version)s, %(name)s, %(sha256)s, %(edition)s, %(state)s, %(duration)s::double precision * interval '1 second')
ON CONFLICT (version) DO UPDATE SET
    name = excluded.name, sha256 = excluded.sha256, edition = excluded.edition, state = excluded.state,
    duration = excluded.duration, applied_at = excluded.applied_at, applied_by = excluded.applied_by
"""
_HOLDERS = """
SELECT string_agg(format('pid %%s of %%s since %%s', activity.pid, activity.usename, activity.query_start), ', ')
FROM pg_locks INNER JOIN pg_stat_activity AS activity USING (pid)
WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND (classid::bigint << 32) + objid::bigint = %s AND granted
"""
COMMUNITY_OBJECTS = """
SELECT
    (SELECT count(*) FROM timescaledb_information.chunks WHERE is_compressed),
    (SELECT count(*) FROM timescaledb_information.continuous_aggregates)
"""


@dataclass(frozen=True)
class Wish:
    """What the operator asked for; ``target`` None is the newest version."""

    database: str
    state: str
    target: int | None
    community: bool
    timescaledb: bool
    owner: str


@dataclass(frozen=True)
class Found:
    """What is there; ``ledger`` is None where there is no such database, ``license`` where no server told it."""

    ledger: list[Row] | None
    has_ledger_table: bool = False
    has_owner: bool = False
    has_extension: bool = False
    license: str | None = None
    compressed_chunks: int = 0
    continuous_aggregates: int = 0


def migrate(
    options: Mapping[str, Any], wish: Wish, migrations: Sequence[Migration], *, check: bool, done: list[str]
) -> dict[str, Any]:
    """Bring the database to the wished version; one plan, shown (``check``) or carried out.

    Appends to ``done`` what was changed, as it changes, so that a caller can tell after an error. Raises PostgresError,
    UnreachableError and MigrationError.
    """
    creates = wish.state == "latest"
    with connect(options, MAINTENANCE_DATABASE, read_only=check) as server, migration_lock(server, shared=check):
        has_database, has_owner = _look_around(server, wish)
        if not has_database:
            answer = outcome(wish, migrations, Found(None, has_owner=has_owner))
            if check or not creates:
                return answer
        if creates and not check:
            _create_database(server, wish, has_owner=has_owner, has_database=has_database, done=done)
    with connect(options, wish.database, read_only=check) as connection, migration_lock(connection, shared=check):
        found = inspect(connection, has_owner=has_owner)
        if has_database or found.has_ledger_table:  # the latter: another runner overtook us once the database was there
            answer = outcome(wish, migrations, found)
        if not check and wish.state != "status":
            _carry_out(connection, wish, found, plan(wish, migrations, found), done)
    if not has_database:
        answer.update(database_created=True, changed=True)
    if check and wish.community and found.license == "apache":
        answer["warnings"].append(
            "the server still runs the apache edition: this plan holds once it runs the community edition"
        )
    return answer


def plan(wish: Wish, migrations: Sequence[Migration], found: Found) -> list[Step]:
    """The steps to the wished version. Raises MigrationError where files, ledger and edition do not allow it."""
    if not wish.community and (found.compressed_chunks or found.continuous_aggregates):
        raise MigrationError(
            f"database {wish.database} holds {found.compressed_chunks} compressed chunks and "
            f"{found.continuous_aggregates} continuous aggregates, "
            "which the apache edition cannot read: stay with edition community, or decompress and drop them there "
            "first."
        )
    steps = plan_migrations(migrations, found.ledger or [], community=wish.community, target=wish.target)
    return [] if wish.state == "status" else steps


def outcome(wish: Wish, migrations: Sequence[Migration], found: Found) -> dict[str, Any]:
    """The module's answer, the same whether the plan is shown or carried out."""
    steps = plan(wish, migrations, found)
    ledger = found.ledger or []
    after = ledger_after(ledger, steps)
    creates = wish.state == "latest"
    created = {
        "owner_created": creates and not found.has_owner,
        "database_created": creates and found.ledger is None,
        "extension_created": creates and wish.timescaledb and not found.has_extension,
    }
    return {
        "changed": bool(steps) or any(created.values()),
        **created,
        "version": after[-1].version if after else 0,
        "pending": pending(migrations, ledger, community=wish.community),
        "migrations": describe(migrations, ledger, steps),
        "diff": {
            "before": ledger_text(wish.database, found.ledger, found.has_extension),
            "after": ledger_text(
                wish.database,
                None if found.ledger is None and not creates else after,
                found.has_extension or created["extension_created"],
            ),
        },
        "warnings": [],
    }


@contextmanager
def migration_lock(connection: Database, *, shared: bool, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """One runner at a time; those that only look share it. Raises PostgresError after ``timeout_s``, naming who."""
    function: LiteralString = "pg_advisory_lock_shared" if shared else "pg_advisory_lock"
    connection.execute("SELECT set_config('lock_timeout', %s, false)", [f"{int(timeout_s * 1000)}ms"])
    try:
        connection.execute(f"SELECT {function}(%s)", [LOCK_KEY])
    except psycopg.errors.LockNotAvailable as error:
        holders = connection.execute(_HOLDERS, [LOCK_KEY]).fetchone()
        raise PostgresError(
            f"another schema_migration run holds database {connection.info.dbname} "
            f"({holders[0] if holders else 'just ended'}): "
            f"waited {timeout_s:g} s for it; run again when it has ended."
        ) from error
    finally:
        connection.execute("RESET lock_timeout")
    yield  # the lock goes with the connection


def _look_around(server: Database, wish: Wish) -> tuple[bool, bool]:
    row = server.execute(
        "SELECT EXISTS (SELECT FROM pg_database WHERE datname = %s), EXISTS (SELECT FROM pg_roles WHERE rolname = %s), "
        "EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')",
        [wish.database, wish.owner],
    ).fetchone()
    has_database, has_owner, has_timescaledb = row or (False, False, False)
    if wish.timescaledb and not has_timescaledb:
        raise PostgresError(
            "the server has no extension timescaledb to create: install its package for this PostgreSQL version there."
        )
    return has_database, has_owner


def _create_database(server: Database, wish: Wish, *, has_owner: bool, has_database: bool, done: list[str]) -> None:
    owner, name = sql.Identifier(wish.owner), sql.Identifier(wish.database)
    if not has_owner:
        with _explained(f"creating the role {wish.owner}"):
            server.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(owner))
        done.append(f"role {wish.owner} created")
    if not has_database:
        with _explained(f"creating the database {wish.database}"):
            server.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8'").format(name, owner)
            )
        done.append(f"database {wish.database} created")


def inspect(connection: Database, *, has_owner: bool) -> Found:
    """What the database holds: ledger, extension, edition, and what only the community edition can read."""
    row = connection.execute(
        "SELECT to_regclass('public.schema_migrations') IS NOT NULL, "
        "EXISTS (SELECT FROM pg_extension WHERE extname = "
        "'timescaledb')"
    ).fetchone()
    has_ledger_table, has_extension = row or (False, False)
    ledger = _read_ledger(connection) if has_ledger_table else []
    if not has_extension:
        return Found(ledger, has_ledger_table, has_owner)
    objects = connection.execute(COMMUNITY_OBJECTS).fetchone() or (0, 0)
    return Found(ledger, has_ledger_table, has_owner, True, _license(connection), *objects)


def _read_ledger(connection: Database) -> list[Row]:
    with _explained("reading the ledger public.schema_migrations"):
        rows = connection.execute(
            "SELECT version, name, sha256, state, applied_at::text FROM public.schema_migrations ORDER BY version"
        )
        return [Row(*row) for row in rows]


def _license(connection: Database) -> str | None:
    row = connection.execute("SELECT current_setting('timescaledb.license', true)").fetchone()
    return row[0] if row else None


def _carry_out(connection: Database, wish: Wish, found: Found, steps: Sequence[Step], done: list[str]) -> None:
    if wish.timescaledb and wish.state == "latest" and not found.has_extension:
        with _explained("creating the extension timescaledb"):
            connection.execute("CREATE EXTENSION timescaledb SCHEMA public")
        done.append("extension timescaledb created")
    if wish.timescaledb and wish.community and _license(connection) == "apache":
        raise PostgresError(
            "edition is community, but the server runs the apache edition (timescaledb.license = apache): "
            "start it from the image of the community edition, or set edition to apache."
        )
    if steps and not found.has_ledger_table:
        with _explained("creating the ledger public.schema_migrations"), connection.transaction():
            connection.execute(_LEDGER)
            connection.execute(
                sql.SQL("ALTER TABLE public.schema_migrations OWNER TO {}").format(sql.Identifier(wish.owner))
            )
    for step in steps:
        _carry_out_step(connection, wish.owner, step)
        done.append(f"{step.migration.name} {step.action}")


def _carry_out_step(connection: Database, owner: str, step: Step) -> None:
    begin = time.monotonic()
    script = step.script
    if script is not None and not script.transactional:
        _write_ledger(connection, step.migration, "running", None)  # stays if we die half-way, and the next run says so
        _run(connection, script, owner)
        _conclude(connection, step, begin)
        return
    try:
        with connection.transaction():  # the change and its ledger row commit together
            if script is not None:
                _run(connection, script, owner)
            _conclude(connection, step, begin)
    except psycopg.Error as error:  # of the commit: deferred constraints, a lost connection
        raise MigrationError(
            f"{step.migration.name}: not committed: {_diagnosis(error)}. Nothing of it was kept; mend the cause and "
            "run again."
        ) from error


def _run(connection: Database, script: Script, owner: str) -> None:
    if not script.superuser:
        scope: LiteralString = "SET LOCAL ROLE" if script.transactional else "SET ROLE"
        with _explained(f"becoming the owner {owner}"):
            connection.execute(sql.SQL(scope + " {}").format(sql.Identifier(owner)))
    for statement in script.statements:
        try:
            connection.execute(statement.text.encode())
        except psycopg.Error as error:
            line = failed_line(statement, error.diag.statement_position)
            kept = (
                "Nothing of this file was kept; mend it, or what stands in its way, and run again."
                if script.transactional
                else "It runs outside a transaction, so the statements before this line were kept and the ledger says "
                "running: the next run tells what to do."
            )
            raise MigrationError(f"{script.file}, line {line}: {_diagnosis(error)}. {kept}") from error
    connection.execute("RESET ROLE")


def failed_line(statement: Statement, position: str | None) -> int:
    """The line of the file an error points to: PostgreSQL counts characters from 1, and not for every error."""
    return statement.line + (statement.text.count("\n", 0, int(position) - 1) if position else 0)


def _conclude(connection: Database, step: Step, begin: float) -> None:
    if step.state == "absent":
        connection.execute("DELETE FROM public.schema_migrations WHERE version = %s", [step.migration.version])
    else:
        duration = None if step.script is None else time.monotonic() - begin
        _write_ledger(connection, step.migration, step.state, duration)


def _write_ledger(connection: Database, migration: Migration, state: str, duration_s: float | None) -> None:
    connection.execute(
        _WRITE,
        {
            "version": migration.version,
            "name": migration.name,
            "sha256": migration.sha256,
            "edition": "community" if migration.community else "any",
            "state": state,
            "duration": duration_s,
        },
    )


def _diagnosis(error: psycopg.Error) -> str:
    diag = error.diag
    parts = [
        diag.message_primary or " ".join(str(error).split()),
        diag.message_detail,
        diag.message_hint and f"hint: {diag.message_hint}",
    ]
    state = f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""
    return "; ".join(part.rstrip(".") for part in parts if part) + state


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise PostgresError(
            f"{doing}: {_diagnosis(error)}. Log in as a superuser, or as a role that may do this."
        ) from error
