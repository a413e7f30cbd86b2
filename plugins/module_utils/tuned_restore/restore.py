"""Carrying a restore out, with the way back on disk before the first change."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import engine, server
from .dump import CATALOG_SCHEMAS, Contents
from .journal import Journal, Phase, enter, remove_journal, this_boot, write_journal
from .plan import DISK_FACTOR, Plan
from .progress import shown
from .run import PhaseError, RestoreError, Run
from .settings import same_value
from .validate import Validated, validate

with contextlib.suppress(ImportError):  # connect() says so before anything here needs it
    from psycopg import sql

if TYPE_CHECKING:
    from psycopg import Connection

    Database = Connection[tuple[Any, ...]]


def carry_out(
    run: Run, connection: Database, plan: Plan, usable: Path, *, only_check: Callable[[Database], None] | None = None
) -> Validated:
    """The restore itself: whole and on disk under its working name, the settings back, and then in its place.

    With ``only_check``, which may look at it further, the database is dropped in the end and takes nobody's place.
    """
    wish = run.wish
    journal = Journal(
        system_identifier=server.system_identifier(connection),
        boot_id=this_boot(),
        container=wish.container,
        database=wish.database,
        restoring=wish.restoring,
        replaced=plan.replaced,
        drop_replaced=wish.existing == "drop",
        checksum=plan.source.sha256,
        archive_hole=plan.archive_hole,
        changes=plan.settings.server,
    )
    write_journal(wish.work, journal)
    journal = enter(wish.work, journal, Phase.TUNING)
    with run.timed("tune"):
        connection = tune(run, connection, journal)
    run.done.append("settings changed")
    journal = enter(wish.work, journal, Phase.CREATING)
    with run.timed("create"):
        server.create_database(connection, wish.restoring, plan.owner)
        prepare_timescaledb(run, plan.contents)
    run.done.append(f"database {wish.restoring} created")
    environment = client_environment(run.options, wish.restoring, plan.settings.sessions)
    begun = time.monotonic()
    for phase, command in restore_commands(
        plan.source.format, wish.jobs, wish.restoring, has_timescaledb=plan.has_timescaledb
    ):
        journal = enter(wish.work, journal, phase)
        telling = shown(
            run.options,
            wish.work,
            wish.restoring,
            phase.value,
            expected=int(plan.contents.copy_bytes * DISK_FACTOR),
            tables=[table for table, rows in plan.contents.rows.items() if rows],
            begun=begun,
        )
        with run.timed(phase.value), telling:
            finished = run.tool(command, usable, environment)
        if finished.code != 0 or finished.errors:
            failure = RestoreError if finished.was_killed else PhaseError
            raise failure(f"{phase.value}: {command[0]}: {finished.explain()}.")
    journal = enter(wish.work, journal, Phase.FINISHING)
    with run.timed("analyze"):
        finish_timescaledb(run, plan)
        analyze(run, usable, environment, has_timescaledb=plan.has_timescaledb)
    journal = enter(wish.work, journal, Phase.VALIDATING)
    session = functools.partial(server.open_session, run.options, wish.restoring, read_only=False)
    with run.timed("validate"), session() as restored:
        validated = validate(restored, plan.rows, has_timescaledb=plan.has_timescaledb, session=session, jobs=wish.jobs)
        if only_check:
            only_check(restored)
        elif server.renew_incarnation(restored):
            run.done.append("incarnation renewed")
    with run.timed("revert"):
        journal, connection = take_back(run, connection, journal)
    if only_check:
        server.drop_database(connection, wish.restoring)
        remove_journal(wish.work)
        return validated
    server.set_marker(connection, wish.restoring, plan.source.sha256)
    journal = enter(wish.work, journal, Phase.SWAPPING)
    with run.timed("swap"):
        swap(run, connection, journal)
    remove_journal(wish.work)
    return validated


def tune(run: Run, connection: Database, journal: Journal) -> Database:
    """Change the settings and see them run; the connection is a new one where the server was restarted."""
    server.apply_settings(connection, journal.changes)
    names = [change.name for change in journal.changes]
    if server.pending_restart(connection, names):
        connection = _restart(run, connection)
    running = server.running_settings(connection, names)
    for change in journal.changes:
        now = running[change.name]
        if not same_value(change.value, now):
            raise RestoreError(
                f"{change.name} is {now.value}{now.unit or ''} after ALTER SYSTEM SET it to {change.value}; it comes "
                f"from: {now.source}. Take it off there, or give it as null in settings."
            )
    return connection


def prepare_timescaledb(run: Run, contents: Contents) -> None:
    """The extension in the dump's version, ready to be filled."""
    if contents.timescaledb is None:
        return
    with server.open_session(run.options, run.wish.restoring, read_only=False) as connection:
        connection.execute(
            sql.SQL("CREATE EXTENSION timescaledb SCHEMA {} VERSION {}").format(
                sql.Identifier(contents.extensions["timescaledb"] or "public"), sql.Literal(contents.timescaledb)
            )
        )
    with server.open_session(run.options, run.wish.restoring, read_only=False) as connection:
        connection.execute("SELECT timescaledb_pre_restore()")


def finish_timescaledb(run: Run, plan: Plan) -> None:
    """The database takes rows as usual again."""
    if plan.has_timescaledb:
        with server.open_session(run.options, run.wish.restoring, read_only=False) as connection:
            connection.execute("SELECT timescaledb_post_restore()")


def analyze(run: Run, usable: Path, environment: Mapping[str, str], *, has_timescaledb: bool) -> None:
    """Statistics for the planner, of as many tables at once as were restored at once."""
    if has_timescaledb:
        # Else TimescaleDB adds all chunks to ANALYZE of their hypertable: each would be analyzed twice, the second time
        # by one session. PostgreSQL alone makes the statistics of a hypertable as a whole too.
        environment = {**environment, "PGOPTIONS": f"{environment['PGOPTIONS']} -c timescaledb.restoring=on"}
    command = ["vacuumdb", "--analyze-only", "--quiet", "--no-password", f"--jobs={run.wish.jobs}"]
    finished = run.tool(command, usable, environment)
    if finished.code != 0 or finished.errors:
        raise RestoreError(f"ANALYZE: {command[0]}: {finished.explain()}.")


def restore_commands(format_: str, jobs: int, database: str, *, has_timescaledb: bool) -> list[tuple[Phase, list[str]]]:
    """The programs to run one after the other; each works on what the one before has finished.

    The catalog's rows refer to one another, so one job loads them: a plain ``pg_restore --jobs`` loses some.
    """
    if format_ == "plain":
        psql = ["psql", "--no-psqlrc", "--quiet", "--no-password", "--set", "ON_ERROR_STOP=1", "--output=/dev/null"]
        return [(Phase.PLAIN, [*psql, f"--file={engine.DUMP}"])]
    base = ["pg_restore", "--exit-on-error", "--no-password", f"--dbname={database}"]
    within = [f"--schema={schema}" for schema in CATALOG_SCHEMAS]
    without = [f"--exclude-schema={schema}" for schema in CATALOG_SCHEMAS]
    parallel = f"--jobs={jobs}"
    commands = [(Phase.PRE_DATA, [*base, "--section=pre-data", engine.DUMP])]
    if has_timescaledb:
        commands.append((Phase.CATALOG, [*base, "--section=data", *within, engine.DUMP]))
    commands += [
        (Phase.DATA, [*base, "--section=data", *without, parallel, engine.DUMP]),
        (Phase.POST_DATA, [*base, "--section=post-data", parallel, engine.DUMP]),
    ]
    return commands


def client_environment(
    options: Mapping[str, Any], database: str, sessions: Mapping[str, str], *, name: str = server.SESSION
) -> dict[str, str]:
    """libpq's variables for the programs in the one-shot container; ``name`` is that of their sessions."""
    # Without the interval a server goes on with the statement of a client that was killed.
    settings = {"client_connection_check_interval": "1s", **sessions}
    given = {
        "PGHOST": options.get("login_host") or "/var/run/postgresql",
        "PGPORT": options.get("login_port"),
        "PGUSER": options.get("login_user"),
        "PGPASSWORD": options.get("login_password"),
        "PGSSLMODE": options.get("ssl_mode"),
        "PGSSLROOTCERT": options.get("ca_cert"),
        "PGDATABASE": database,
        "PGAPPNAME": name,
        "PGOPTIONS": " ".join(f"-c {name}={_escaped(value)}" for name, value in settings.items()),
    }
    return {name: str(value) for name, value in given.items() if value is not None}


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


def swap(run: Run, connection: Database, journal: Journal) -> None:
    """Give the new database its name; the one before is kept under another or dropped. Safe to repeat."""
    names = server.databases(connection)
    if journal.restoring in names:
        moves = [(journal.restoring, journal.database)]
        server.stop_workers(run.options, journal.restoring)
        if journal.replaced and journal.database in names:
            moves.insert(0, (journal.database, journal.replaced))
            server.inherit(connection, journal.database, journal.restoring)
            server.stop_workers(run.options, journal.database)
            server.allow_connections(connection, journal.database, allowed=False)
            ended = server.end_connections(connection, journal.database)
            run.done.append(f"{ended} connections to {journal.database} ended")
        server.end_connections(connection, journal.restoring)
        server.rename(connection, moves)
        run.done.append(f"database {journal.database} in place")
    if journal.replaced and journal.replaced in server.databases(connection):
        if journal.drop_replaced:
            server.drop_database(connection, journal.replaced)
        else:
            server.allow_connections(connection, journal.replaced, allowed=True)


def take_back(run: Run, connection: Database, journal: Journal) -> tuple[Journal, Database]:
    """Every setting as it was, and what was written under them on disk. Raises RestoreError where one is not."""
    wish = run.wish
    if journal.phase is not Phase.FLUSHED:
        journal = enter(wish.work, journal, Phase.REVERTING)
        server.take_back_settings(connection, journal.changes)
        journal = enter(wish.work, journal, Phase.FLUSHED)
    names = [change.name for change in journal.changes]
    if pending := server.pending_restart(connection, names):
        if not wish.may_restart:
            raise RestoreError(
                f"{', '.join(pending)} is taken back but waits for a restart of the server, and restart is false: "
                "restart it, or set restart to true, and run again."
            )
        connection = _restart(run, connection)
    set_now = server.auto_conf(connection)
    wrong = [c.name for c in journal.changes if set_now.get(c.name) != c.prior]
    if wrong:
        raise RestoreError(
            f"postgresql.auto.conf does not have {', '.join(wrong)} as it was before: somebody else changes it at the "
            "same time. Run again."
        )
    return journal, connection


def _restart(run: Run, connection: Database) -> Database:
    connection.close()
    engine.restart(run.wish.container)
    run.done.append("server restarted")
    return server.wait_for_server(run.options)
