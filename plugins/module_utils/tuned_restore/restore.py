"""A restore from beginning to end: look, plan, and carry out, with the way back on disk before the first change."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..postgres import connect
from . import engine, server
from .dump import (
    CATALOG_SCHEMAS,
    INSPECT,
    Contents,
    DumpError,
    check_contents_list,
    check_roles,
    check_versions,
    read_contents,
)
from .journal import Journal, Phase, enter, read_journal, remove_journal, this_boot, write_journal
from .settings import SettingsPlan, is_false, plan_settings, refuse_fast, same_value, wished_settings
from .source import Source, is_below
from .validate import Validated, validate

with contextlib.suppress(ImportError):  # connect() says so before anything here needs it
    from psycopg import sql

if TYPE_CHECKING:
    from psycopg import Connection

    Database = Connection[tuple[Any, ...]]

NAME_MAX = 63
DISK_FACTOR = 2.5
"""Database bytes, indexes included, to bytes of COPY text; 2.2 was measured for ticks with one index."""

RATE_B_PER_S = 45_000_000
"""COPY text restored a second with two jobs and fsync off, as measured on two cores; good for an estimate only."""


class RestoreError(Exception):
    """A restore is refused or has failed: what was found, expected, and what to do."""


class StuckError(RestoreError):
    """What an earlier restore left cannot be taken back without somebody's help."""


@dataclass(frozen=True)
class Wish:
    """What the operator asked for."""

    database: str
    source: Path
    checksum: str | None
    profile: str
    settings: Mapping[str, str | None]
    accept_cluster_risk: bool
    existing: str
    owner: str | None
    jobs: int
    container: str
    work: Path
    may_restart: bool

    @property
    def restoring(self) -> str:
        """Name of the database until it is whole."""
        return f"{self.database}_restoring"

    @property
    def helper(self) -> str:
        """Name of the one-shot container."""
        return f"{self.container}-restore"

    def check(self, container: engine.Container) -> None:
        """Raise RestoreError for a wish that no server could fulfil."""
        inside = [folder for folder in container.mounts if is_below(self.work, folder)]
        if inside:
            raise RestoreError(
                f"work_path {self.work} lies in {inside[0]}, which the server's container mounts: name another folder."
            )
        if len(f"{self.database}_replaced_{'0' * 14}".encode()) > NAME_MAX or not self.database:
            raise RestoreError(f"database is {self.database!r}, expected a name of 1 to {NAME_MAX - 24} bytes.")
        if self.database in {"template0", "template1", server.MAINTENANCE_DATABASE}:
            raise RestoreError(f"database is {self.database}, which the server itself needs: name another.")
        if self.jobs < 1:
            raise RestoreError(f"jobs is {self.jobs}, expected 1 or more.")


@dataclass
class Run:
    """One run: how to reach the server, the wish, and what has been seen and done so far."""

    options: Mapping[str, Any]
    wish: Wish
    container: engine.Container
    seconds: dict[str, float] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the time spent to what a result tells."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.seconds[what] = round(self.seconds.get(what, 0.0) + time.monotonic() - begin, 3)

    def tool(self, command: list[str], usable: Path, environment: Mapping[str, str] | None = None) -> engine.Finished:
        """A program of the database image over the dump."""
        mounts = {usable: engine.DUMP}
        if environment:
            mounts |= {Path(path): path for path in _paths_of(environment)}
        return engine.run_once(self.wish.helper, self.container.image, command, mounts=mounts, environment=environment)


@dataclass(frozen=True)
class Plan:
    """What a restore will do; made before anything changes, and shown in check mode."""

    source: Source
    contents: Contents
    settings: SettingsPlan
    owner: str
    replaced: str | None
    archive_hole: bool


def make_plan(run: Run, connection: Database, source: Source, usable: Path) -> Plan:
    """Look at the dump and the server. Raises what speaks against the restore, before anything has changed."""
    wish = run.wish
    names = server.databases(connection)
    if wish.restoring in names:
        raise RestoreError(
            f"database {wish.restoring} exists and no restore journal in {wish.work} tells of it: it is not this "
            "module's to drop. Drop or rename it."
        )
    if wish.database in names and wish.existing == "refuse":
        raise RestoreError(
            f"database {wish.database} exists and was not restored from this dump: set existing to keep (it is "
            "renamed) or to drop."
        )
    if wish.profile == "fast":
        refuse_fast(server.user_databases(connection, ()), accepted=wish.accept_cluster_risk)
    settings = _plan_settings(run, connection)
    if settings.needs_restart and not wish.may_restart:
        raise RestoreError(
            "archive_mode takes a restart of the server to go off, and restart is false: set restart to true, profile "
            "to safe, or archive_mode to null in settings."
        )
    with run.timed("inspect"):
        contents = inspect_dump(run, source, usable)
    check_versions(contents, server.available_extensions(connection))
    check_roles(contents, server.roles(connection))
    owner = wish.owner or server.owner_of(connection, wish.database) or str(run.options["login_user"])
    if owner not in server.roles(connection):
        raise RestoreError(f"owner is {owner}, a role that the server does not have: create it, or name another.")
    _check_space(run, connection, contents)
    replaced = f"{wish.database}_replaced_{time.strftime('%Y%m%d%H%M%S', time.gmtime())}"
    archiving = server.running_settings(connection, ["archive_mode"])["archive_mode"].value != "off"
    hole = archiving and any(c.name == "archive_mode" and is_false(c.value) for c in settings.server)
    return Plan(source, contents, settings, owner, replaced if wish.database in names else None, hole)


def _plan_settings(run: Run, connection: Database) -> SettingsPlan:
    wish = run.wish
    wishes = wished_settings(
        wish.profile,
        memory_bytes=run.container.memory_bytes or _host_memory(),
        cpus=_cpus(),
        jobs=wish.jobs,
        overrides=wish.settings,
    )
    running = server.running_settings(connection, wishes)
    return plan_settings(wish.profile, wishes, running, server.auto_conf(connection))


def inspect_dump(run: Run, source: Source, usable: Path) -> Contents:
    """Read the whole dump once. Raises DumpError where it is damaged."""
    if source.format != "plain":
        listed = run.tool(["pg_restore", "--list", engine.DUMP], usable)
        if listed.code != 0:
            raise DumpError(f"{source.path}: pg_restore --list: {listed.explain()}: fetch or make the dump again.")
        check_contents_list(listed.stdout)
    read = run.tool(["bash", "-c", INSPECT, "inspect", engine.DUMP, source.format], usable)
    if read.code != 0:
        raise DumpError(f"{source.path} cannot be read to its end: {read.explain()}: fetch or make the dump again.")
    return read_contents(read.stdout)


def carry_out(run: Run, connection: Database, plan: Plan, usable: Path) -> Validated:
    """The restore itself, until the database is whole and on disk under its working name, and the settings are back."""
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
    for phase, command in restore_commands(
        plan.source.format, wish.jobs, wish.restoring, has_timescaledb=_has_timescaledb(plan)
    ):
        journal = enter(wish.work, journal, phase)
        with run.timed(phase.value):
            finished = run.tool(command, usable, environment)
        if finished.code != 0 or finished.errors:
            raise RestoreError(f"{phase.value}: {command[0]}: {finished.explain()}.")
    journal = enter(wish.work, journal, Phase.FINISHING)
    with run.timed("analyze"):
        finish_timescaledb(run, plan)
    journal = enter(wish.work, journal, Phase.VALIDATING)
    with run.timed("validate"), connect(run.options, wish.restoring, read_only=False) as restored:
        validated = validate(restored, plan.contents.rows, has_timescaledb=_has_timescaledb(plan))
    with run.timed("revert"):
        journal, connection = take_back(run, connection, journal)
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
    with connect(run.options, run.wish.restoring, read_only=False) as connection:
        connection.execute(
            sql.SQL("CREATE EXTENSION timescaledb SCHEMA {} VERSION {}").format(
                sql.Identifier(contents.extensions["timescaledb"] or "public"), sql.Literal(contents.timescaledb)
            )
        )
    with connect(run.options, run.wish.restoring, read_only=False) as connection:
        connection.execute("SELECT timescaledb_pre_restore()")


def finish_timescaledb(run: Run, plan: Plan) -> None:
    """timescaledb_post_restore, and statistics for the planner."""
    if _has_timescaledb(plan):
        with connect(run.options, run.wish.restoring, read_only=False) as connection:
            connection.execute("SELECT timescaledb_post_restore()")
    with connect(run.options, run.wish.restoring, read_only=False) as connection:  # one that knows restoring is over
        connection.execute("ANALYZE")


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


def client_environment(options: Mapping[str, Any], database: str, sessions: Mapping[str, str]) -> dict[str, str]:
    """libpq's variables for the programs in the one-shot container."""
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
        "PGAPPNAME": "cryptopip restore",
        "PGOPTIONS": " ".join(f"-c {name}={_escaped(value)}" for name, value in settings.items()),
    }
    return {name: str(value) for name, value in given.items() if value is not None}


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


def _paths_of(environment: Mapping[str, str]) -> list[str]:
    candidates = (environment.get("PGHOST", ""), environment.get("PGSSLROOTCERT", ""))
    return [path for path in candidates if path.startswith("/")]


def swap(run: Run, connection: Database, journal: Journal) -> None:
    """Give the new database its name; the one before is kept under another or dropped. Safe to repeat."""
    names = server.databases(connection)
    if journal.restoring in names:
        moves = [(journal.restoring, journal.database)]
        server.stop_workers(run.options, journal.restoring)
        if journal.replaced and journal.database in names:
            moves.insert(0, (journal.database, journal.replaced))
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


def mend(run: Run, journal: Journal) -> str:
    """Take back what a run before this one left; what was done, in words. Raises StuckError where nobody can."""
    wish = run.wish
    engine.end(wish.helper)
    if not run.container.is_running:
        if not wish.may_restart:
            raise StuckError(f"container {wish.container} does not run and restart is false: start it and run again.")
        engine.start(wish.container)
    connection = server.wait_for_server(run.options)
    found = server.system_identifier(connection)
    if found != journal.system_identifier:
        raise StuckError(
            f"the restore journal in {wish.work} is of cluster {journal.system_identifier}, this is {found}: an "
            "interrupted restore of the other one was never taken back. Give each cluster a work_path of its own; "
            "remove the journal once the other cluster is gone for good."
        )
    if journal.is_suspect(this_boot()):
        server.take_back_settings(connection, journal.changes)
        enter(wish.work, journal, Phase.SUSPECT)
        raise StuckError(
            f"the host went down while a restore of {journal.database} had fsync off: any database of cluster {found} "
            "may be damaged without a sign of it. The settings are as they were before, but do not trust the data: "
            f"restore the newest base backup, or make the cluster anew, then remove {wish.work / 'journal.json'}."
        )
    swapped = journal.phase is Phase.SWAPPING and journal.restoring not in server.databases(connection)
    if swapped:
        swap(run, connection, journal)
        server.start_workers(run.options, journal.database)
    elif journal.replaced and journal.database in server.databases(connection):
        server.allow_connections(connection, journal.database, allowed=True)
        server.start_workers(run.options, journal.database)
    server.drop_database(connection, journal.restoring)
    take_back(run, connection, journal)
    remove_journal(wish.work)
    return (
        f"a restore of {journal.database} had been interrupted in phase {journal.phase.value}: "
        + ("its last step was finished" if swapped else f"{journal.restoring} was dropped")
        + " and every setting is as before"
    )


def pending_journal(wish: Wish) -> Journal | None:
    """The journal of a restore that was interrupted, None where there is none."""
    return read_journal(wish.work) if wish.work.is_dir() else None


def abort(run: Run) -> str:
    """After a failure: back to where the run began. Returns what was done; raises where that fails too."""
    journal = pending_journal(run.wish)
    if journal is None:
        engine.end(run.wish.helper)
        return "Nothing was changed."
    run.container = engine.inspect(run.wish.container)
    mend(run, journal)
    return "Everything was taken back: the new database was dropped, every setting is as before."


def _restart(run: Run, connection: Database) -> Database:
    connection.close()
    engine.restart(run.wish.container)
    run.done.append("server restarted")
    return server.wait_for_server(run.options)


def _check_space(run: Run, connection: Database, contents: Contents) -> None:
    """Raise RestoreError where the file systems of data and WAL have no room for what comes."""
    row = connection.execute("SELECT current_setting('data_directory')").fetchone()
    assert row is not None
    data, mount = engine.free_bytes(run.wish.container, row[0])
    wal, wal_mount = engine.free_bytes(run.wish.container, f"{row[0]}/pg_wal/.")
    for_data = int(contents.copy_bytes * DISK_FACTOR)
    for_wal = min(int(contents.copy_bytes * 1.5), 16 << 30)
    needs = [("data", data, for_data), ("WAL", wal, for_wal)]
    if mount == wal_mount:
        needs = [("data and WAL", data, for_data + for_wal)]
    for what, free, needed in needs:
        if free < needed:
            raise RestoreError(
                f"the file system of {what} has {free >> 20} MB free, the restore takes about {needed >> 20} MB: make "
                "room there first."
            )


def _has_timescaledb(plan: Plan) -> bool:
    return plan.contents.timescaledb is not None


def _host_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) << 10
    raise RestoreError("/proc/meminfo has no MemTotal: give maintenance_work_mem in settings.")


def _cpus() -> int:
    return len(os.sched_getaffinity(0))
