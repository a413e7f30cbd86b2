"""Whether a dump is whole: its bytes, its contents, and on request a restore of it into a database that is dropped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..dump_manifest import Manifest, file_problems, row_problems
from ..tuned_restore import engine, server
from ..tuned_restore.dump import INSPECT, DumpError, check_contents_list, read_contents
from ..tuned_restore.mend import abort
from ..tuned_restore.plan import make_plan
from ..tuned_restore.restore import carry_out
from ..tuned_restore.run import PhaseError
from ..tuned_restore.run import Run as RestoreRun
from ..tuned_restore.run import Wish as RestoreWish
from ..tuned_restore.settings import ENDANGERS_CLUSTER, SEED
from ..tuned_restore.source import describe_source, remove_unpacked, unpack
from ..tuned_restore.validate import Validated, ValidationError
from .run import BackupError, Run
from .snapshot import count_hypertables
from .store import Dump

if TYPE_CHECKING:
    from psycopg import Connection

    Database = Connection[tuple[Any, ...]]

SESSION_ONLY = ("synchronous_commit", "track_counts")
"""Of a restore's settings, those that its sessions set for themselves alone."""

CHECKED = "_dump_check"
"""What the name of a throw-away database ends in, before the restore's own ending."""


SERVERS_FAULT = ("connection", "No space left", "the database system is", "out of memory", "out of shared memory")
"""What a program says that failed for another reason than the dump."""


class DamagedError(BackupError):
    """A dump is not what was written, or what was written is not what the database had."""


def manifest_of(dump: Dump) -> Manifest:
    """What the dump is to hold. Raises DamagedError where nobody knows."""
    if dump.manifest is None:
        raise DamagedError(dump.problem or f"{dump.path} has no manifest.")
    return dump.manifest


def check_files(folder: Path, manifest: Manifest) -> None:
    """Read every file. Raises DamagedError naming those that are not as they were written."""
    if problems := file_problems(folder, manifest.files):
        raise DamagedError(f"{folder} is damaged: {'; '.join(problems[:5])}.")


def check_contents(run: Run, folder: Path, manifest: Manifest) -> None:
    """Read the dump to its end, as a restore would. Raises DamagedError where its tables or rows are not as counted."""
    dump = folder / manifest.dump
    through = "gzip" if manifest.compression == "gzip" else "none"
    command = ["pg_restore", "--list", engine.DUMP]
    if through == "gzip":  # which is cut off once the list was read; that it is whole is seen below
        command = ["bash", "-c", f"gzip --decompress --stdout {engine.DUMP} | pg_restore --list"]
    try:
        listed = _tool(run, command, dump)
        if listed.code != 0:
            raise DamagedError(f"{dump}: pg_restore --list: {listed.explain()}.")
        check_contents_list(listed.stdout)
        read = _tool(run, ["bash", "-c", INSPECT, "inspect", engine.DUMP, manifest.format, through], dump)
        if read.code != 0:
            raise DamagedError(f"{dump} cannot be read to its end: {read.explain()}.")
        contents = read_contents(read.stdout)
    except DumpError as error:
        raise DamagedError(f"{dump}: {error}") from error
    if wrong := row_problems(manifest.rows, contents.rows):
        raise DamagedError(f"{dump} does not hold what its snapshot had: {'; '.join(wrong[:5])}.")
    if contents.timescaledb != manifest.timescaledb:
        raise DamagedError(
            f"{dump} was made under TimescaleDB {contents.timescaledb}, expected {manifest.timescaledb}."
        )


def _tool(run: Run, command: list[str], dump: Path) -> engine.Finished:
    finished = engine.run_once(run.wish.helper, run.container.image, command, mounts={dump: engine.DUMP})
    if finished.was_killed:
        raise BackupError(f"verifying {dump}: {finished.explain()}. That says nothing of the dump: run again.")
    return finished


def restore_run(run: Run, database: str, source: Path | None) -> RestoreRun:
    """A restore into a database that nobody needs; it changes no setting of the server, only of its own sessions."""
    wish = RestoreWish(
        database=f"{database}{CHECKED}",
        source=str(source or ""),
        rclone_config=None,
        checksum=None,
        profile="safe",
        settings={name: None for name in SEED if name not in {*SESSION_ONLY, *ENDANGERS_CLUSTER}},
        accept_cluster_risk=False,
        existing="refuse",
        owner=None,
        jobs=run.wish.jobs,
        container=run.wish.container,
        work=run.wish.work,
        may_restart=False,
    )
    return RestoreRun(run.options, wish, run.container)


def check_restore(run: Run, dump: Dump) -> Validated:
    """Restore the dump into a database of its own, compare every table, and drop it again.

    Raises DamagedError where it cannot be restored or becomes another thing than the snapshot; what else is in the way
    (no room, a server that is gone) comes as it is, and says nothing of the dump.
    """
    manifest = manifest_of(dump)
    restore = restore_run(run, manifest.database, dump.path)
    restore.wish.check(run.container)

    def check(restored: Database) -> None:
        found = count_hypertables(restored, manifest.rows)
        if found != dict(manifest.hypertables):
            wrong = [
                name
                for name in found.keys() | manifest.hypertables.keys()
                if found.get(name) != manifest.hypertables.get(name)
            ]
            raise ValidationError(f"hypertables are not as in the snapshot: {', '.join(sorted(wrong))}")

    with server.open_session(run.options, server.MAINTENANCE_DATABASE, read_only=False) as connection:
        try:
            source = describe_source(dump.path)
            usable = unpack(source, run.scratch)
            plan = make_plan(restore, connection, source, usable)
            return carry_out(restore, connection, plan, usable, only_check=check)
        except BaseException as error:
            taken_back = abort(restore)
            is_servers = any(sign in str(error) for sign in SERVERS_FAULT)
            if isinstance(error, ValidationError) or (isinstance(error, PhaseError) and not is_servers):
                raise DamagedError(f"{dump.path} cannot be restored: {error} {taken_back}") from error
            raise
        finally:
            remove_unpacked(run.scratch)
