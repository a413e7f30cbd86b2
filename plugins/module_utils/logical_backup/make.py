"""Making one dump: everything of it in a folder that has no final name until all of it is on disk and verified."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..dump_manifest import File, Hypertable, Manifest, checksum_of, checksum_of_lines, write_manifest
from ..tuned_restore import engine
from ..tuned_restore.progress import progress_line, telling
from ..tuned_restore.restore import client_environment
from ..tuned_restore.run import paths_of
from .plan import check_space, expected_size
from .run import SESSION, BackupError, Run
from .snapshot import Facts, count_hypertables, count_rows, exported
from .store import Dump, Verdict, begin, finish, name_of, read_dump, write_verdict
from .verify import check_contents

if TYPE_CHECKING:
    from psycopg import Connection

    Database = Connection[tuple[Any, ...]]

OUT = "/out"
"""Where one-shot containers see the folder of the dump in the making."""
GLOBALS = "globals.sql"
DUMP_OF = {"directory": "dump", "custom": "dump.gz"}

_PIPED = 'set -euo pipefail; pg_dump "${@:3}" | pigz --rsyncable --processes "$1" >"$2"'


def dump_command(format_: str, jobs: int, snapshot: str) -> list[str]:
    """pg_dump of the database that the environment names, as the snapshot has it."""
    common = [f"--snapshot={snapshot}", "--no-password"]
    if format_ == "directory":
        parallel = [f"--jobs={jobs}", "--compress=zstd:3", f"--file={OUT}/{DUMP_OF['directory']}"]
        return ["pg_dump", "--format=directory", *parallel, *common]
    piped = ["bash", "-c", _PIPED, "dump", str(jobs), f"{OUT}/{DUMP_OF['custom']}"]
    return [*piped, "--format=custom", "--compress=0", *common]


def make(run: Run, database: str, dumps: Sequence[Dump]) -> Dump:
    """A dump of the database, verified and under its final name. Whatever fails leaves none, and nothing of one."""
    wish = run.wish
    with contextlib.ExitStack() as held:
        with run.step("snapshot"):
            connection, facts = held.enter_context(exported(run.options, database))
            expected = expected_size(dumps, database, facts.database_bytes)
            check_space(expected, shutil.disk_usage(wish.path).free, str(wish.path))
            part = begin(wish.path, name_of(database, datetime.fromisoformat(facts.taken_at)))
        try:
            counted = _dump(run, database, (connection, facts), part, expected)
            connection.execute("ROLLBACK")  # what is left is about files
            return _complete(run, database, facts, counted, part)
        except BaseException:
            # Also when a signal ended the wait: the engine runs pg_dump, not this process.
            engine.end(wish.helper)
            shutil.rmtree(part, ignore_errors=True)
            raise


def _dump(
    run: Run, database: str, exported_: tuple[Database, Facts], part: Path, expected: int
) -> tuple[dict[str, int], dict[str, Hypertable]]:
    """Globals and dump as files; what the manifest tells is counted in the same snapshot meanwhile."""
    connection, facts = exported_
    begun = time.monotonic()

    def line() -> str:
        files = [path for path in part.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        begun_tables = sum(".dat" in path.name for path in files)  # a file for each table, begun when its turn comes
        tables = facts.tables if run.wish.format == "directory" else 0
        sizes, done = (size, expected), (min(begun_tables, tables), tables)
        return progress_line(f"{database}: dumping", sizes, done, time.monotonic() - begun)

    with run.step("globals"):
        _run_tool(run, database, ["pg_dumpall", "--globals-only", "--no-password", f"--file={OUT}/{GLOBALS}"], part)
    with run.step("dumping"), telling(run.scratch, line), ThreadPoolExecutor(1) as pool:
        counting = pool.submit(_count, connection)
        try:
            _run_tool(run, database, dump_command(run.wish.format, run.wish.jobs, facts.snapshot), part)
        except BaseException:
            connection.cancel_safe()
            raise
        return counting.result()


def _count(connection: Database) -> tuple[dict[str, int], dict[str, Hypertable]]:
    rows = count_rows(connection)
    return rows, count_hypertables(connection, rows)


def _run_tool(run: Run, database: str, command: list[str], part: Path) -> None:
    environment = client_environment(run.options, database, {}, name=SESSION)
    finished = engine.run_once(
        run.wish.helper,
        run.container.image,
        command,
        mounts={Path(path): path for path in paths_of(environment)},
        environment=environment,
        writable={part: OUT},
    )
    if finished.code != 0 or finished.errors:
        raise BackupError(f"dump of {database}: {finished.explain()}.")


def _complete(
    run: Run,
    database: str,
    facts: Facts,
    counted: tuple[dict[str, int], dict[str, Hypertable]],
    part: Path,
) -> Dump:
    """From the files to a dump: manifest, verification, everything onto the disk, the name."""
    rows, hypertables = counted
    dump = DUMP_OF[run.wish.format]
    with run.step("hashing"), run.told(f"{database}: hashing"):
        files = files_of(part)
    inside = [(file.name.removeprefix(f"{dump}/"), file.sha256) for file in files if file.name.startswith(dump)]
    manifest = Manifest(
        database=database,
        snapshot_at=facts.taken_at,
        finished_at=utc_now(),
        system_identifier=facts.system_identifier,
        postgresql=facts.postgresql,
        timescaledb=facts.timescaledb,
        migrations=facts.migrations,
        format=run.wish.format,
        compression="gzip" if run.wish.format == "custom" else "zstd",
        dump=dump,
        sha256=inside[0][1] if run.wish.format == "custom" else checksum_of_lines(inside),
        database_bytes=facts.database_bytes,
        files=tuple(files),
        rows=rows,
        hypertables=hypertables,
        merged_until=facts.merged_until,
    )
    with run.step("verifying"), run.told(f"{database}: verifying"):
        check_contents(run, part, manifest)
    with run.step("naming"):
        write_manifest(part, manifest)
        write_verdict(part, Verdict(utc_now(), "contents"))
        final = finish(part)
    run.done.append(f"{final} made")
    return read_dump(final)


def files_of(part: Path) -> list[File]:
    """Every file below the folder, with its size and checksum."""
    paths = sorted(path for path in part.rglob("*") if path.is_file())
    return [File(str(path.relative_to(part)), path.stat().st_size, checksum_of(path)) for path in paths]


def utc_now() -> str:
    """ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
