"""Migrations as values: reading their files, and the one plan that is shown or carried out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .sql_statements import Statement, split_statements

_FILE = re.compile(r"(?P<version>\d{4})_(?P<word>[a-z0-9_]+)\.(?P<way>up|down)\.sql")
_KNOWN = {
    "edition": {"any", "community"},
    "role": {"owner", "superuser"},
    "transaction": {"one", "none"},
}
_TRANSACTION_CONTROL = {"abort", "begin", "commit", "end", "rollback", "start"}


class MigrationError(Exception):
    """A migration cannot be read, planned or carried out: what was found, what was expected, what to do."""


@dataclass(frozen=True)
class Script:
    """One direction of a migration: its statements, who runs them, and whether in one transaction."""

    file: str
    statements: tuple[Statement, ...]
    superuser: bool
    transactional: bool


@dataclass(frozen=True)
class Migration:
    """A numbered change and its way back; ``sha256`` is of the up file's bytes."""

    version: int
    name: str
    community: bool
    sha256: str
    up: Script
    down: Script


@dataclass(frozen=True)
class Row:
    """A row of the ledger: ``state`` is applied, skipped (needs the community edition) or running."""

    version: int
    name: str
    sha256: str
    state: str
    since: str = ""


@dataclass(frozen=True)
class Step:
    """One thing to do.

    ``action`` is up, down, skip (record that the edition lacks it), withdraw (down, then recorded as skipped: the
    edition went back) or forget (it was skipped, so only its row goes).
    """

    action: str
    migration: Migration

    @property
    def script(self) -> Script | None:
        """What runs in the database, None where only the ledger changes."""
        if self.action == "up":
            return self.migration.up
        return self.migration.down if self.action in {"down", "withdraw"} else None

    @property
    def state(self) -> str:
        """The migration's state once the step is done."""
        return {"up": "applied", "skip": "skipped", "withdraw": "skipped"}.get(self.action, "absent")


def read_migrations(files: Mapping[str, bytes]) -> list[Migration]:
    """The migrations in a folder, given as file name -> bytes, in order.

    Raises MigrationError where a number repeats or is left out, a direction is missing, or a header does not hold.
    """
    found: dict[tuple[int, str], tuple[str, bytes]] = {}
    for name, content in sorted(files.items()):
        if not name.endswith(".sql"):
            continue
        match = _FILE.fullmatch(name)
        if not match:
            raise MigrationError(
                f"{name} is not named like a migration: expected NNNN_name.up.sql or NNNN_name.down.sql; rename it."
            )
        key = int(match["version"]), match["way"]
        if key in found:
            raise MigrationError(
                f"{found[key][0]} and {name} carry the same number: give the newer one the next free number."
            )
        found[key] = name, content
    versions = sorted({version for version, _ in found})
    if not versions:
        raise MigrationError("there is no migration in the folder: expected files named NNNN_name.up.sql; check src.")
    if versions != list(range(1, len(versions) + 1)):
        hole = next(number for number in range(1, max(versions) + 2) if number not in versions)
        raise MigrationError(
            f"there is no migration {hole:04}, but a {max(versions):04}: numbers run from 0001 without holes; renumber "
            "the files."
        )
    migrations: list[Migration] = []
    for version in versions:
        migrations.append(_read_pair(version, found, migrations))
    return migrations


def _read_pair(
    version: int, found: Mapping[tuple[int, str], tuple[str, bytes]], before: Iterable[Migration]
) -> Migration:
    for way, other in (("up", "down"), ("down", "up")):
        if (version, way) not in found:
            beside = found[version, other][0]
            raise MigrationError(
                f"{beside} has no .{way}.sql beside it: write the file that {'does' if way == 'up' else 'undoes'} it."
            )
    (up_file, up), (down_file, down) = found[version, "up"], found[version, "down"]
    name = up_file.removesuffix(".up.sql")
    if down_file != f"{name}.down.sql":
        raise MigrationError(
            f"{up_file} and {down_file} carry the same number but not the same name: rename one of them."
        )
    header = read_header(up_file, _text(up_file, up))
    if "edition" not in header:
        raise MigrationError(
            f"{up_file} does not say which edition it needs: put '-- edition: any' or '-- edition: community' in its "
            "header."
        )
    for needed in filter(None, header.get("needs", "").split(", ")):
        if needed not in {migration.name for migration in before}:
            raise MigrationError(
                f"{up_file} needs {needed}, which does not come before it: correct the header or the order."
            )
    return Migration(
        version=version,
        name=name,
        community=header["edition"] == "community",
        sha256=hashlib.sha256(up).hexdigest(),
        up=_script(up_file, _text(up_file, up)),
        down=_script(down_file, _text(down_file, down)),
    )


def _text(file: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise MigrationError(f"{file}: byte {error.start} is not UTF-8: save the file as UTF-8.") from error


def _script(file: str, text: str) -> Script:
    header = read_header(file, text)
    statements = tuple(split_statements(text))
    if not statements:
        raise MigrationError(f"{file} holds no statement: where there is nothing to do, say so and write 'SELECT 1;'.")
    for statement in statements:
        word = statement.text.split(maxsplit=1)[0].lower()
        if word in _TRANSACTION_CONTROL:
            raise MigrationError(
                f"{file}, line {statement.line}: {word.upper()} would end the transaction that also holds the ledger "
                "row: leave it out; "
                "for statements that cannot run in a transaction put '-- transaction: none' in the header."
            )
    return Script(file, statements, header.get("role") == "superuser", header.get("transaction") != "none")


def read_header(file: str, text: str) -> dict[str, str]:
    """The settings in the comment lines that open a file: ``-- edition: any   needs: 0001_roles   locks: none``.

    Settings are set apart by two spaces or more. Raises MigrationError for a value that is not known.
    """
    header: dict[str, str] = {}
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        for setting in re.split(r"\s{2,}", line[2:].strip()):
            key, _, value = setting.partition(": ")
            if key in _KNOWN and value not in _KNOWN[key]:
                raise MigrationError(
                    f"{file}: '{key}: {value}' in its header: expected one of {', '.join(sorted(_KNOWN[key]))}."
                )
            if key in _KNOWN or key == "needs":
                header[key] = value
    return header


def plan_migrations(
    migrations: Sequence[Migration], ledger: Sequence[Row], *, community: bool, target: int | None
) -> list[Step]:
    """What leads from the ledger to version ``target`` (None: the newest) on the given edition.

    What has to go goes first, newest first; then what is missing comes in order. Raises MigrationError where the ledger
    and the files contradict each other, before anything is done.
    """
    newest = migrations[-1].version if migrations else 0
    target = newest if target is None else target
    if not 0 <= target <= newest:
        raise MigrationError(
            f"there is no version {target}: the files go from 1 to {newest}, and 0 is an empty database."
        )
    _refuse_contradictions({migration.version: migration for migration in migrations}, ledger)
    state = {row.version: row for row in ledger}
    downs, ups = [], []
    for migration in migrations:
        row = state.get(migration.version)
        skipped_here = migration.community and not community
        if migration.version > target:
            if row is not None:
                downs.append(Step("down" if row.state == "applied" else "forget", migration))
        elif row is None or row.state == "skipped":
            if not skipped_here:
                ups.append(Step("up", migration))
            elif (
                row is None or row.sha256 != migration.sha256
            ):  # never ran, so an edit is harmless: record the new text
                ups.append(Step("skip", migration))
        elif skipped_here:
            downs.append(Step("withdraw", migration))
    return [*reversed(downs), *ups]


def _refuse_contradictions(files: Mapping[int, Migration], ledger: Sequence[Row]) -> None:
    for row in ledger:
        file = files.get(row.version)
        if row.state == "running":
            raise MigrationError(
                f"{row.name} began {row.since} outside a transaction and never finished: it may be half done. Look at "
                "what it left, finish or undo it by hand, then say so in the ledger public.schema_migrations: "
                f"finished, set state to 'applied' where version = {row.version}; undone, delete that row."
            )
        if file is None or file.name != row.name:
            instead = f"its number belongs to {file.name}" if file else "no such file is there"
            raise MigrationError(
                f"{row.name} is in the database's ledger ({row.state}), but {instead}: run with the checkout that has "
                "it, for going down too."
            )
        if row.state == "applied" and file.sha256 != row.sha256:
            raise MigrationError(
                f"{file.up.file} was edited after it was applied: its SHA-256 is {file.sha256}, the ledger has "
                f"{row.sha256}. "
                "Restore the file and put the change into a new migration."
            )
    missing = set(range(1, max((row.version for row in ledger), default=0) + 1)) - {row.version for row in ledger}
    if missing:
        raise MigrationError(
            f"the ledger has no {files[min(missing)].name}, but newer ones: migrations run in order. "
            "Find out who deleted that row of public.schema_migrations and put it back."
        )


def ledger_after(ledger: Sequence[Row], steps: Sequence[Step]) -> list[Row]:
    """The ledger as the steps leave it."""
    rows = {row.version: row for row in ledger}
    for step in steps:
        migration = step.migration
        rows.pop(migration.version, None)
        if step.state != "absent":
            rows[migration.version] = Row(migration.version, migration.name, migration.sha256, step.state)
    return [rows[version] for version in sorted(rows)]


def ledger_text(database: str, ledger: Sequence[Row] | None, extension: bool) -> str:
    """The database as an operator reads it in a diff; ``ledger`` is None where there is no such database."""
    if ledger is None:
        return f"database {database}: none\n"
    lines = [f"database {database}: {len(ledger) or 'no'} migrations"]
    if extension:
        lines.append("extension timescaledb")
    width = max((len(row.name) for row in ledger), default=0)
    lines += [f"{row.name:{width}}  {row.state:7}  sha256 {row.sha256[:12]}" for row in ledger]
    return "\n".join([*lines, ""])


def pending(migrations: Sequence[Migration], ledger: Sequence[Row], *, community: bool) -> list[str]:
    """Names of what ``state=latest`` would apply or record as skipped, in order."""
    steps = plan_migrations(migrations, ledger, community=community, target=None)
    return [step.migration.name for step in steps if step.action in {"up", "skip"}]


def describe(migrations: Sequence[Migration], ledger: Sequence[Row], steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Every migration with what was (or would be) done to it and the state it is in then, in order."""
    actions = {step.migration.version: step.action for step in steps}
    states = {row.version: row.state for row in ledger_after(ledger, steps)}
    return [
        {
            "name": migration.name,
            "action": actions.get(migration.version, "none"),
            "state": states.get(migration.version, "absent"),
            "edition": "community" if migration.community else "any",
            "sha256": migration.sha256,
        }
        for migration in migrations
    ]
