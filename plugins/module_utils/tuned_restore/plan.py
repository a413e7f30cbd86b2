"""What a restore will do, made before anything changes; everything that speaks against it is found here."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..dump_manifest import row_problems
from . import engine, server
from .dump import (
    INSPECT,
    Contents,
    DumpError,
    check_contents_list,
    check_roles,
    check_versions,
    read_contents,
)
from .run import RestoreError, Run
from .settings import SettingsPlan, is_false, plan_settings, refuse_fast, wished_settings
from .source import Source

if TYPE_CHECKING:
    from psycopg import Connection

    Database = Connection[tuple[Any, ...]]

DISK_FACTOR = 2.5
"""Database bytes, indexes included, to bytes of COPY text; 2.2 was measured for ticks with one index."""

WAL_FACTOR = 1.5
"""WAL bytes to bytes of COPY text; 1.4 was measured."""

WAL_MAX = 16 << 30
"""No more WAL than max_wal_size is kept, about."""

RATE_B_PER_S = 45_000_000
"""COPY text restored a second with two jobs and fsync off, as measured on two cores; good for an estimate only."""


@dataclass(frozen=True)
class Plan:
    """What a restore will do; made before anything changes, and shown in check mode."""

    source: Source
    contents: Contents
    settings: SettingsPlan
    owner: str
    replaced: str | None
    archive_hole: bool

    @property
    def rows(self) -> Mapping[str, int]:
        """Rows that each table must have afterwards: as counted when the dump was made, else as its COPY data has."""
        return self.contents.rows if self.source.manifest is None else self.source.manifest.rows

    @property
    def rows_from(self) -> str:
        """Where ``rows`` comes from."""
        return "copy" if self.source.manifest is None else "manifest"

    @property
    def has_timescaledb(self) -> bool:
        """Whether the dump holds the extension."""
        return self.contents.timescaledb is not None


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
    if source.manifest is not None and (wrong := row_problems(source.manifest.rows, contents.rows)):
        raise DumpError(
            f"{source.path} does not hold the rows that its manifest tells of: {'; '.join(wrong[:5])}: take another."
        )
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
        listed = _reading(run, ["pg_restore", "--list", engine.DUMP], usable)
        if listed.code != 0:
            raise DumpError(f"{source.path}: pg_restore --list: {listed.explain()}: fetch or make the dump again.")
        check_contents_list(listed.stdout)
    read = _reading(run, ["bash", "-c", INSPECT, "inspect", engine.DUMP, source.format, "none"], usable)
    if read.code != 0:
        raise DumpError(f"{source.path} cannot be read to its end: {read.explain()}: fetch or make the dump again.")
    return read_contents(read.stdout)


def _reading(run: Run, command: list[str], usable: Path) -> engine.Finished:
    finished = run.tool(command, usable)
    if finished.was_killed:
        raise RestoreError(f"reading the dump: {finished.explain()}. That says nothing of the dump: run again.")
    return finished


def _check_space(run: Run, connection: Database, contents: Contents) -> None:
    row = connection.execute("SELECT current_setting('data_directory')").fetchone()
    assert row is not None
    data, mount = engine.free_bytes(run.wish.container, row[0])
    wal, wal_mount = engine.free_bytes(run.wish.container, f"{row[0]}/pg_wal/.")
    refuse_space(contents.copy_bytes, data, None if mount == wal_mount else wal)


def refuse_space(copy_bytes: int, data_free: int, wal_free: int | None) -> None:
    """Raise RestoreError where the file systems of data and WAL, or the one of both, have no room for what comes."""
    for_data, for_wal = int(copy_bytes * DISK_FACTOR), min(int(copy_bytes * WAL_FACTOR), WAL_MAX)
    needs = [("data and WAL", data_free, for_data + for_wal)]
    if wal_free is not None:
        needs = [("data", data_free, for_data), ("WAL", wal_free, for_wal)]
    for what, free, needed in needs:
        if free < needed:
            raise RestoreError(
                f"the file system of {what} has {free >> 20} MB free, the restore takes about {needed >> 20} MB: make "
                "room there first."
            )


def _host_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) << 10
    raise RestoreError("/proc/meminfo has no MemTotal: give maintenance_work_mem in settings.")


def _cpus() -> int:
    return len(os.sched_getaffinity(0))
