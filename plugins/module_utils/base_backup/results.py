"""Table ``base_backups`` of the operator's own database: what came of every backup taken and read through."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ..postgres import PostgresError, connect
from .model import Backup, BackupError


@dataclass
class Outcome:
    """One operation under way: ``name`` of its backup and ``backup`` itself as soon as they are known."""

    name: str | None = None
    backup: Backup | None = None


@dataclass(frozen=True)
class Results:
    """Where results are kept; ``database`` is empty to keep none."""

    connection: Mapping[str, Any]
    database: str
    engine: str

    def require(self) -> None:
        """Raise BackupError ``server`` where the table is out of reach: before anything is done."""
        if not self.database:
            return
        leave_out = "app_database='' keeps no results."
        try:
            with connect(self.connection, self.database, read_only=True) as connection:
                row = connection.execute("SELECT to_regclass('public.base_backups')").fetchone()
        except PostgresError as error:
            raise BackupError("server", f"{error} What comes of backups is kept there; {leave_out}") from error
        if row == (None,):
            raise BackupError(
                "server",
                f"database {self.database} has no table base_backups, expected database app with its newest schema: "
                f"run playbooks/migrate.yml, or name that database; {leave_out}",
            )

    @contextmanager
    def of(self, operation: str, name: str | None = None) -> Iterator[Outcome]:
        """Keep how long an operation (take, verify) took, and what came of it."""
        outcome, began = Outcome(name), time.monotonic()
        try:
            yield outcome
        except BackupError as error:
            problems = [str(error), *(f"{each.object}: {each.problem}" for each in error.problems)]
            try:
                self._note(operation, outcome, began, problems)
            except PostgresError as lost:
                raise BackupError(error.code, f"{error} Nor could that be kept: {lost}", error.problems) from error
            raise
        self._note(operation, outcome, began, [])

    def _note(self, operation: str, outcome: Outcome, began: float, problems: list[str]) -> None:
        if not self.database:
            return
        backup = outcome.backup
        with connect(self.connection, self.database, read_only=False) as connection:
            connection.execute(
                "INSERT INTO base_backups (duration, engine, operation, backup, size_bytes, result, problems) "
                "VALUES (%s, %s, %s, %s, %s, %s, %s)",
                [
                    timedelta(seconds=time.monotonic() - began),
                    self.engine,
                    operation,
                    outcome.name if backup is None else backup.name,
                    None if backup is None else backup.size_bytes,
                    "bad" if problems else "good",
                    problems,
                ],
            )
