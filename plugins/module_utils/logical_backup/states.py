"""What each state of the module does; every one gives its answer in check mode too."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ..tuned_restore import engine
from ..tuned_restore.mend import mend, pending_journal
from ..tuned_restore.server import MAINTENANCE_DATABASE
from .make import make, utc_now
from .plan import check_removal, check_space, choose_databases, expected_size, is_due, surplus
from .protect import settle
from .run import BackupError, Run
from .snapshot import database_sizes, session
from .store import Dump, Verdict, leftovers, list_dumps, remove, write_verdict
from .verify import CHECKED, DamagedError, check_contents, check_files, check_restore, manifest_of, restore_run


def describe(dump: Dump) -> dict[str, Any]:
    """A dump as a result tells of it."""
    manifest, verdict = dump.manifest, dump.verdict
    return {
        "name": dump.name,
        "path": str(dump.path),
        "database": dump.database,
        "snapshot_at": manifest.snapshot_at if manifest else None,
        "format": manifest.format if manifest else None,
        "size": manifest.size if manifest else None,
        "sha256": manifest.sha256 if manifest else None,
        "rows": sum(manifest.rows.values()) if manifest else None,
        "postgresql": manifest.postgresql if manifest else None,
        "timescaledb": manifest.timescaledb if manifest else None,
        "migration": manifest.migrations[-1] if manifest and manifest.migrations else None,
        "merged_until": manifest.merged_until if manifest else None,
        "verified": dump.is_verified,
        "verified_at": verdict.at if verdict else None,
        "verified_by": verdict.how if verdict else None,
        "problem": dump.problem or (verdict.problem if verdict else None),
    }


def mended(run: Run, *, check: bool) -> list[str]:
    """Take away what a killed run has left. Raises BackupError where a restore is in the way, whose that is to do."""
    journal = pending_journal(run.wish.work)
    lines = []
    if journal is not None:
        if not journal.database.endswith(CHECKED):
            raise BackupError(
                f"a restore of {journal.database} was interrupted, and settings of the server may still be those of "
                "that: run tuned_restore again, or with state=reverted, first."
            )
        lines.append(f"a restore into {journal.restoring} was interrupted, to be taken back")
        if not check:
            restore = restore_run(run, journal.database.removesuffix(CHECKED), None)
            lines = [mend(restore, journal)]
    left = leftovers(run.wish.path)
    lines += [f"{path.name} was left by an interrupted run" for path in left]
    if not check:
        engine.end(run.wish.helper)
        for path in left:
            shutil.rmtree(path)
    return lines


def listed(run: Run) -> dict[str, Any]:
    """Every dump of the databases asked for, or of all."""
    dumps = list_dumps(run.wish.path)
    if run.wish.databases:
        dumps = [dump for dump in dumps if dump.database in run.wish.databases]
    return {"changed": False, "dumps": [describe(dump) for dump in dumps], "diff": _diff(dumps, dumps)}


def present(run: Run, *, check: bool) -> dict[str, Any]:
    """A dump of each database that is young enough; those beyond ``keep`` go."""
    wish = run.wish
    left = mended(run, check=check)
    sizes = _sizes(run)
    before = list_dumps(wish.path)
    made: list[str] = []
    removed: list[str] = []
    protected: list[str] = []
    estimates: dict[str, int] = {}
    for database in choose_databases(wish.databases, sizes):
        dumps = list_dumps(wish.path)
        due = is_due(dumps, database, wish.max_age, datetime.now(UTC))
        if due:
            estimates[database] = expected_size(dumps, database, sizes[database])
            made.append(_due(run, database, dumps, estimates[database], check=check))
        dumps = list_dumps(wish.path)
        gone = surplus(dumps, database, wish.keep, coming=int(due and check))
        protected += _settle(run, database, [dump for dump in dumps if dump not in gone], check=check)
        for dump in gone:
            removed.append(dump.name)
            if not check:
                _remove(run, dump)
    after = [dump for dump in list_dumps(wish.path) if dump.name not in removed]
    return {
        "changed": bool(made or removed or left or protected),
        "made": made,
        "removed": removed,
        "mended": left,
        "protections": protected,
        "estimated_bytes": estimates,
        "dumps": [describe(dump) for dump in after],
        "diff": _diff(before, after, coming=made if check else ()),
    }


def _due(run: Run, database: str, dumps: Sequence[Dump], estimate: int, *, check: bool) -> str:
    """Make the dump; its name. Raises DamagedError where a restore of it shows another thing than the database had."""
    if check:
        check_space(estimate, _free(run), str(run.wish.path))
        return f"{database}_<time>"
    dump = make(run, database, dumps)
    if run.wish.verify == "restore":
        verdict = _judge(run, dump, "restore", check=False)
        if verdict.problem:
            raise DamagedError(verdict.problem)
    return dump.name


def verified(run: Run, *, check: bool) -> dict[str, Any]:
    """Look at the dump named, or the newest of each database asked for. Raises DamagedError once all were looked at."""
    left = mended(run, check=check)
    before = list_dumps(run.wish.path)
    chosen = _chosen(run, before)
    verdicts = {dump.name: _judge(run, dump, run.wish.verify, check=check) for dump in chosen}
    after = [replace(dump, verdict=verdicts.get(dump.name, dump.verdict)) for dump in before]
    protected = []
    for database in sorted({dump.database for dump in chosen if dump.database}):
        protected += _settle(run, database, after, check=check)
    if problems := [verdict.problem for verdict in verdicts.values() if verdict.problem]:
        raise DamagedError(f"{' '.join(problems)} It counts as verified no longer: make another dump.")
    return {
        "changed": bool(left or protected) or any(dump.verdict is None or dump.verdict.problem for dump in chosen),
        "mended": left,
        "protections": protected,
        "dumps": [describe(dump) for dump in after if dump.name in verdicts],
        "diff": _diff(before, after),
    }


def absent(run: Run, *, check: bool) -> dict[str, Any]:
    """The dump named is gone; the last verified one of a database only where that is forced."""
    left = mended(run, check=check)
    dumps = list_dumps(run.wish.path)
    found = [dump for dump in dumps if dump.name == run.wish.name]
    after = [dump for dump in dumps if dump not in found]
    for dump in found:
        check_removal(dumps, dump, force=run.wish.force)
        if dump.database:
            _settle(run, dump.database, after, check=check)
        if not check:
            _remove(run, dump)
    return {
        "changed": bool(found or left),
        "removed": [dump.name for dump in found],
        "mended": left,
        "dumps": [describe(dump) for dump in after],
        "diff": _diff(dumps, after),
    }


def _judge(run: Run, dump: Dump, how: str, *, check: bool) -> Verdict:
    """Verify and note the verdict, good or bad; any other error says nothing of the dump. No restore in check mode."""
    try:
        manifest = manifest_of(dump)
        with run.step("verifying"), run.told(f"{dump.name}: verifying"):
            check_files(dump.path, manifest)
            check_contents(run, dump.path, manifest)
        if how == "restore" and not check:
            with run.step("restoring"):
                check_restore(run, dump)
        verdict = Verdict(utc_now(), how)
    except DamagedError as error:
        verdict = Verdict(utc_now(), how, str(error))
    if not check:
        write_verdict(dump.path, verdict)
    return verdict


def _chosen(run: Run, dumps: Sequence[Dump]) -> list[Dump]:
    wish = run.wish
    if wish.name:
        named = [dump for dump in dumps if dump.name == wish.name]
        if not named:
            raise BackupError(f"{wish.path} has no dump {wish.name}, expected one: state=listed shows those there are.")
        return named
    newest = {dump.database: dump for dump in dumps if not wish.databases or dump.database in wish.databases}
    missing = [name for name in wish.databases if name not in newest]
    if missing or not newest:
        raise BackupError(f"{wish.path} has no dump of {', '.join(missing) or 'any database'}: make one first.")
    return list(newest.values())


def _remove(run: Run, dump: Dump) -> None:
    with run.step("removing"):
        remove(dump.path)
    run.done.append(f"{dump.path} removed")


def _settle(run: Run, database: str, dumps: Sequence[Dump], *, check: bool) -> list[str]:
    """Have the datalake know what its dumps protect; a database that is gone has nobody to tell."""
    if database not in _sizes(run):
        return []
    with run.step("protecting"):
        lines = settle(run.options, database, run.wish.path, dumps, check=check)
    if not check:
        run.done += lines
    return lines


def _sizes(run: Run) -> dict[str, int]:
    with session(run.options, MAINTENANCE_DATABASE, read_only=True) as connection:
        return database_sizes(connection)


def _free(run: Run) -> int:
    folder = next(path for path in (run.wish.path, *run.wish.path.parents) if path.exists())
    return shutil.disk_usage(folder).free


def _diff(before: Iterable[Dump], after: Iterable[Dump], *, coming: Iterable[str] = ()) -> dict[str, str]:
    def lines(dumps: Iterable[Dump]) -> str:
        return "".join(f"{dump.name}: {'verified' if dump.is_verified else 'not verified'}\n" for dump in dumps)

    return {"before": lines(before), "after": lines(after) + "".join(f"{name}: verified\n" for name in coming)}
