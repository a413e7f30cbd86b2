"""WAL-E in its sidecar: what ``cryptopip-wale`` and ``wal-e`` answer there, as backups."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .contract import Tell
from .model import Backup, BackupError, Cluster, Listing, Problem, Removal, instant
from .process import Finished, run_in

SIDECAR = "cryptopip-wale"
PROGRESS = "progress: "  # how the sidecar's programs begin a line that says how far they are
DEADLINE_CODE = 124
BUSY_CODE = 75


def parse_backup(row: dict[str, Any]) -> Backup:
    """One row of ``cryptopip-wale list``."""
    return Backup(
        name=row["name"],
        engine="wal_e",
        system_identifier=row["system_identifier"],
        timeline=row["timeline"],
        start_lsn=row["start_lsn"],
        stop_lsn=row["stop_lsn"],
        started_at=instant(row["started_at"]),
        finished_at=instant(row["finished_at"]),
        size_bytes=row["size_bytes"],
        verified=row["verified"],
        verified_at=None if row["verified_at"] is None else instant(row["verified_at"]),
    )


def parse_listing(answer: dict[str, Any]) -> Listing:
    """The answer of ``cryptopip-wale list``."""
    return Listing(tuple(parse_backup(row) for row in answer["backups"]), tuple(answer["unreadable"]))


def parse_clusters(answer: dict[str, Any]) -> tuple[Cluster, ...]:
    """The answer of ``cryptopip-wale clusters``."""
    return tuple(
        Cluster(
            row["system_identifier"],
            row["backups"],
            None if row["newest"] is None else instant(row["newest"]),
            is_here=row["system_identifier"] == answer["here"],
        )
        for row in answer["clusters"]
    )


def parse_answer(done: Finished, what: str) -> dict[str, Any]:
    """The JSON that ``cryptopip-wale`` printed. Raises BackupError with its own code where it refused or failed."""
    if done.code == DEADLINE_CODE:
        raise BackupError("deadline", f"{what}: {done.said()}. Raise wale_deadline_s, or see why the store is so slow.")
    try:
        answer = json.loads(done.stdout)
        failed = done.code != 0 or "error" in answer
    except (ValueError, TypeError) as error:
        raise BackupError(
            "engine",
            f"{what}: exit code {done.code}: {done.said()}, expected this release's JSON; run the role wale.",
        ) from error
    if failed:
        problems = [Problem(each["object"], each["problem"]) for each in answer.get("problems", [])]
        raise BackupError(
            answer.get("error", "engine"),
            f"{answer.get('msg') or f'{what}: exit code {done.code}: {done.said()}'}.",
            problems,
        )
    return dict(answer)


def parse_removal(answer: dict[str, Any], before: Listing) -> Removal:
    """The answer of ``cryptopip-wale retain`` or ``delete``."""
    removed = tuple(answer["removed"])
    kept = tuple(backup.name for backup in before.backups if backup.name not in removed)
    return Removal(kept, removed, tuple(answer["removed_wal"]))


def _silent(_: str) -> None:
    """For what is quick."""


@dataclass(frozen=True)
class WalE:
    """The sidecar of one cluster, by the name of its container."""

    container: str
    name: str = "wal_e"
    system_identifier: str = ""  # empty: the cluster in the server's place

    @classmethod
    def on(cls, container: str | None) -> WalE:
        """The sidecar the role wale runs, or the one named."""
        return cls(container or SIDECAR)

    def clusters(self) -> tuple[Cluster, ...]:
        return parse_clusters(self._ask(["clusters"]))

    def of_cluster(self, system_identifier: str) -> WalE:
        return replace(self, system_identifier=system_identifier)

    def listing(self) -> Listing:
        return parse_listing(self._ask(["list"]))

    def take(self, tell: Tell) -> Backup:
        before = {backup.name for backup in self.listing().backups}
        done = self._run(["sh", "-c", 'exec wal-e backup-push "$PGDATA"'], tell)
        if done.code == BUSY_CODE:
            raise BackupError("busy", f"{done.said()}.")
        if done.code != 0:
            code = "deadline" if done.code == DEADLINE_CODE else "engine"
            raise BackupError(code, f"wal-e backup-push failed: {done.said()}.")
        new = [backup for backup in self.listing().backups if backup.name not in before]
        if len(new) != 1:
            raise BackupError(
                "engine",
                f"wal-e backup-push made {len(new)} backups, expected one: list them in {self.container}.",
            )
        return new[0]

    def verify(self, name: str, tell: Tell) -> Backup:
        return parse_backup(self._ask(["verify", name], tell)["backup"])

    def plan_retain(self, keep: int) -> Removal:
        return parse_removal(self._ask(["retain", str(keep), "--dry-run"]), self.listing())

    def retain(self, keep: int, tell: Tell) -> Removal:
        before = self.listing()
        return parse_removal(self._ask(["retain", str(keep)], tell), before)

    def plan_delete(self, name: str) -> Removal:
        return parse_removal(self._ask(["delete", name, "--dry-run"]), self.listing())

    def delete(self, name: str, tell: Tell) -> Removal:
        before = self.listing()
        return parse_removal(self._ask(["delete", name], tell), before)

    def fetch(self, name: str, folder: str, tell: Tell) -> None:
        done = self._run(["wal-e", "backup-fetch", folder, name], tell)
        if done.code != 0:
            code = "deadline" if done.code == DEADLINE_CODE else "corrupt" if "not whole" in done.stderr else "engine"
            raise BackupError(code, f"wal-e backup-fetch {folder} {name} failed: {done.said()}.")

    @property
    def restore_command(self) -> str:
        return "/etc/cryptopip/postgresql/cryptopip-wal fetch %f %p"

    def _ask(self, arguments: Sequence[str], tell: Tell = _silent) -> dict[str, Any]:
        return parse_answer(self._run(["cryptopip-wale", *arguments], tell), f"cryptopip-wale {' '.join(arguments)}")

    def _run(self, argv: Sequence[str], tell: Tell) -> Finished:
        def on_line(line: str) -> None:
            if line.startswith(PROGRESS):
                tell(line.removeprefix(PROGRESS))

        named = {"CRYPTOPIP_WALE_SYSTEM_IDENTIFIER": self.system_identifier} if self.system_identifier else {}
        return run_in(self.container, argv, environment=named, on_line=on_line)
