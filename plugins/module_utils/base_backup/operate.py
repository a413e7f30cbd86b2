"""The states of module base_backup, carried out or only told: shared by the module and the command on the host."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import protections
from .contract import Engine, Tell
from .lock import no_restore, only_one
from .model import Backup, BackupError, Listing, Removal
from .plan import duration, newest_verified, plan_present, plan_verified, without
from .results import Results

DEFAULT_MAX_AGE = {"present": "24h", "verified": "0s"}
PROGRESS = "progress"


@dataclass(frozen=True)
class Request:
    """What is asked of one host.

    ``database`` is the datalake, empty to leave out what backups protect; ``app_database`` keeps what came of them,
    empty to leave that out.
    """

    state: str
    name: str | None
    keep: int | None
    max_age: str | None
    verify: bool
    database: str
    app_database: str
    work: Path
    restore_work: Path
    check: bool
    connection: Mapping[str, Any]

    def check_itself(self) -> None:
        """Raise BackupError ``usage`` for what no host could do."""
        if self.keep is not None and self.keep < 1:
            raise BackupError("usage", f"keep is {self.keep}, expected 1 or more: the last backup is never removed.")
        if self.max_age is not None:
            duration(self.max_age, "max_age")


@dataclass
class Operation:
    """One request under way on an engine; ``done`` says what has been done, for the case that it fails."""

    request: Request
    engine: Engine
    tell: Tell
    done: list[str] = field(default_factory=list)

    def run(self) -> dict[str, Any]:
        """The module's answer: ``changed``, ``backups``, ``diff`` and what the state adds."""
        self.request.check_itself()
        if self.request.state == "listed":
            listing = self.engine.listing()
            return self._answer(listing, listing, newest_verified(listing))
        with only_one(self.request.work, check=self.request.check):
            match self.request.state:
                case "present":
                    return self._present()
                case "verified":
                    return self._verified()
                case "retained":
                    return self._removed()
                case _:
                    return self._absent()

    @property
    def _results(self) -> Results:
        return Results(self.request.connection, self.request.app_database, self.engine.name)

    def _max_age(self) -> str:
        return self.request.max_age or DEFAULT_MAX_AGE[self.request.state]

    def _present(self) -> dict[str, Any]:
        before, request = self.engine.listing(), self.request
        steps = plan_present(before, datetime.now(UTC), duration(self._max_age(), "max_age"), verify=request.verify)
        if not steps.changes:
            return self._answer(before, before, newest_verified(before))
        with contextlib.ExitStack() as held:
            held.enter_context(no_restore(request.restore_work, check=request.check))
            table = held.enter_context(self._table())
            if request.check:
                planned = f"{steps.verify}  would be verified\n" if steps.verify else "a new backup would be taken\n"
                return self._answer(before, before, None) | {
                    "changed": True,
                    "diff": {"before": before.text(), "after": before.text() + planned},
                }
            self._results.require()
            if steps.verify and (backup := self._verify_or_none(steps.verify, table)) is not None:
                return self._answer(before, self.engine.listing(), backup)
            with self._results.of("take") as outcome:
                backup = outcome.backup = self.engine.take(self.tell)
            self.done.append(f"took {backup.name}")
            if request.verify:
                backup = self._verify(backup.name, table)
        return self._answer(before, self.engine.listing(), backup)

    def _verified(self) -> dict[str, Any]:
        before, request = self.engine.listing(), self.request
        steps = plan_verified(before, request.name, datetime.now(UTC), duration(self._max_age(), "max_age"))
        wanted = before.backups[-1] if request.name is None else before.named(request.name)
        with self._table() as table:
            if request.check or steps.verify is None:
                changed = steps.verify is not None and not wanted.verified
                after = f"{steps.verify}  would be verified\n" if changed else ""
                return self._answer(before, before, wanted) | {
                    "changed": changed,
                    "diff": {"before": before.text(), "after": before.text() + after},
                }
            self._results.require()
            backup = self._verify(steps.verify, table)
        return self._answer(before, self.engine.listing(), backup)

    def _removed(self) -> dict[str, Any]:
        before, keep = self.engine.listing(), self.request.keep
        assert keep is not None, "the argument spec asks for it"
        with self._table() as table:
            removal = self.engine.plan_retain(keep) if self.request.check else self.engine.retain(keep, self.tell)
            return self._after_removal(before, removal.removed, removal.removed_wal, table)

    def _absent(self) -> dict[str, Any]:
        before, name = self.engine.listing(), self.request.name
        assert name is not None, "the argument spec asks for it"
        with self._table() as table:
            if name not in {*before.unreadable, *(backup.name for backup in before.backups)}:
                return self._after_removal(before, (), (), table)
            removal = self.engine.plan_delete(name)
            if not self.request.check:
                # Killed half-way, it leaves too little protected, never by a backup that is gone.
                self._write(table, without(before, removal.removed))
                removal = self._delete(name, table)
            return self._after_removal(before, removal.removed, removal.removed_wal, table)

    def _delete(self, name: str, table: Any) -> Removal:
        """Remove one backup; table ``protections`` follows where that fails."""
        try:
            return self.engine.delete(name, self.tell)
        except BackupError:
            self._write(table, self.engine.listing())
            raise

    def _after_removal(
        self, before: Listing, removed: tuple[str, ...], removed_wal: tuple[str, ...], table: Any
    ) -> dict[str, Any]:
        if self.request.check:
            after = without(before, removed)
        else:
            self.done.extend(f"removed {name}" for name in removed)
            after = self.engine.listing()
            self._write(table, after)
        answer = self._answer(before, after, newest_verified(after))
        return answer | {
            "changed": bool(removed or removed_wal),
            "removed": list(removed),
            "removed_wal": list(removed_wal),
        }

    def _verify(self, name: str, table: Any) -> Backup:
        """Read one backup through; table ``protections`` follows whatever comes of it."""
        try:
            with self._results.of("verify", name) as outcome:
                backup = outcome.backup = self.engine.verify(name, self.tell)
        except BackupError:
            self._write(table, self.engine.listing())
            raise
        self.done.append(f"verified {name}")
        self._write(table, self.engine.listing())
        return backup

    def _verify_or_none(self, name: str, table: Any) -> Backup | None:
        try:
            return self._verify(name, table)
        except BackupError as error:
            if error.code != "corrupt":
                raise
            self.done.append(f"found {name} corrupt: {error}")
            return None

    def _write(self, table: Any, listing: Listing) -> None:
        if table is not None:
            protections.reconcile(table, self.engine.name, listing)

    @contextlib.contextmanager
    def _table(self) -> Iterator[Any]:
        """Table ``protections`` within reach before anything is done; None where it is left out or nothing changes."""
        if self.request.check or not self.request.database:
            yield None
            return
        with protections.table(self.request.connection, self.request.database) as connection:
            yield connection

    def _answer(self, before: Listing, after: Listing, backup: Backup | None) -> dict[str, Any]:
        return {
            "changed": before.text() != after.text(),
            "engine": self.engine.name,
            "backup": None if backup is None else backup.facts(),
            "backups": [each.facts() for each in after.backups],
            "unreadable": list(after.unreadable),
            "diff": {"before": before.text(), "after": after.text()},
        }


@contextlib.contextmanager
def told_in(folder: Path) -> Iterator[Tell]:
    """Keep the last line of a long operation in the file ``progress`` of a folder, for whoever waits."""
    path, beside = folder / PROGRESS, folder / f"{PROGRESS}.new"
    told = False

    def tell(line: str) -> None:
        nonlocal told
        told = True
        beside.write_text(line + "\n")
        beside.rename(path)

    try:
        yield tell
    finally:
        if told:  # else it is another's that is at work
            for each in (path, beside):
                each.unlink(missing_ok=True)
