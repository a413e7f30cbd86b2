"""A cluster put back from a base backup and recovered to a target: planned, carried out, promoted."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..postgres import PostgresError, connect
from .contract import Engine, Tell
from .lock import no_restore, only_one
from .model import Backup, BackupError, text_of
from .target import RECOVERY_SETTINGS, Target, choose_backup, conf_text, parse_target, settings

_ERRORS: tuple[type[Exception], ...] = (PostgresError,)
with contextlib.suppress(ImportError):
    import psycopg
    from psycopg import sql

    _ERRORS = (*_ERRORS, psycopg.Error)

PGDATA = "/var/lib/postgresql/data/pg_data"
PGWAL = "/var/lib/postgresql/wal/pg_wal"
_LOOK = f"ls -A {PGDATA} 2>/dev/null | head -n 1; test -e {PGWAL} && echo wal || true"
# Beside their places, so that nothing is copied and a failure puts them back.
_ASIDE = f"""
for place in {PGDATA} {PGWAL}; do
    if [ -e "$place" ] || [ -L "$place" ]; then mv -T "$place" "$place.$1"; fi
done
sync
"""
_BACK = f"""
for place in {PGDATA} {PGWAL}; do
    if [ -e "$place.$1" ] || [ -L "$place.$1" ]; then rm -rf "$place"; mv -T "$place.$1" "$place"; fi
done
sync
"""
_READY = f"""
mkdir -p -m 0700 {PGWAL}/archive_status
if [ ! -L {PGDATA}/pg_wal ]; then
    cp -a {PGDATA}/pg_wal/. {PGWAL}/
    rm -rf {PGDATA}/pg_wal
    ln -s {PGWAL} {PGDATA}/pg_wal
fi
printf '%s' "$1" >> {PGDATA}/postgresql.auto.conf
touch {PGDATA}/recovery.signal
chmod 0700 {PGDATA}
sync
"""
_PROGRESS = """
SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() END,
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text,
    pg_last_xact_replay_timestamp()
"""
_FORGET = f'rm -rf "{PGDATA}.$1" "{PGWAL}.$1"'
# PostgreSQL marks the history file of a new timeline for its archiver only if it archives at that moment. Without
# that file in the archive the next restore would give the same number to another timeline.
_HISTORY = f"""
cd {PGDATA}/pg_wal
for file in *.history; do
    if [ -e "$file" ] && [ ! -e "archive_status/$file.done" ]; then touch "archive_status/$file.ready"; fi
done
sync
"""
# What the files say now: a promotion that was killed before the restart has taken the settings back already.
_MODES = """
SELECT current_setting('archive_mode'), coalesce(
    (SELECT CASE WHEN setting = 'always' THEN setting WHEN setting::boolean THEN 'on' ELSE 'off' END
     FROM pg_file_settings WHERE name = 'archive_mode' ORDER BY seqno DESC LIMIT 1), 'off')
"""
_TIMELINE = """
SELECT CASE WHEN pg_is_in_recovery() THEN NULL
    ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END
"""


@dataclass(frozen=True)
class Wish:
    """What the operator asked for. ``existing``: refuse, keep (renamed) or remove what is in the place."""

    target: str
    backup: str | None
    existing: str
    stop: bool
    server: str
    timeout_s: float
    work: Path
    restore_work: Path
    connection: Mapping[str, Any]
    system_identifier: str | None = None  # the cluster in the place, or the only one of the store
    timeline: str = "latest"


@dataclass(frozen=True)
class Plan:
    """What a restore does, in check mode and for real."""

    backup: Backup
    target: Target
    is_running: bool
    is_filled: bool
    kept_as: str

    def text(self) -> str:
        """As a diff shows it."""
        lines = ["the server is stopped\n"] if self.is_running else []
        if self.is_filled:
            lines.append(f"what is in {PGDATA} goes to {PGDATA}.{self.kept_as}\n")
        goal = f"{self.target.kind} {self.target.text}"
        whose = f"{self.backup.name} of the cluster {self.backup.system_identifier}"
        lines.append(f"{whose} is put there and recovered to {goal}, archiving off\n")
        return "".join(lines)


@dataclass
class Recovery:
    """One restore of one server on an engine; ``done`` says what has been done, for the case that it fails."""

    wish: Wish
    engine: Engine
    tell: Tell
    done: list[str] = field(default_factory=list)

    def run(self, *, check: bool) -> dict[str, Any]:
        """Put the backup in place and recover; the module's answer."""
        with only_one(self.wish.work, check=check), no_restore(self.wish.restore_work, check=check):
            plan = self._plan()
            facts = {
                "changed": True,
                "backup": plan.backup.facts(),
                "target": {"kind": plan.target.kind, "text": plan.target.text},
                "kept_as": plan.kept_as if plan.is_filled and self.wish.existing == "keep" else None,
                "diff": {"before": "", "after": plan.text()},
            }
            if check:
                return facts
            began = time.monotonic()
            self._put(plan)
            facts |= self._start(plan)
            if plan.is_filled and self.wish.existing == "remove":
                self._in_place(_FORGET, plan.kept_as)
            return facts | {"seconds": round(time.monotonic() - began, 1)}

    def _plan(self) -> Plan:
        if self.wish.system_identifier:
            self.engine = self.engine.of_cluster(self.wish.system_identifier)
        listing = self.engine.listing()
        if not listing.backups and not self.wish.system_identifier:
            self._refuse_without_cluster()
        target = parse_target(self.wish.target, listing)
        backup = choose_backup(listing, target, self.wish.backup, self.wish.timeline)
        # Fetched while nothing is in the place that could tell which cluster it is.
        self.engine = self.engine.of_cluster(backup.system_identifier)
        is_running = docker("inspect", "--format", "{{.State.Running}}", self.wish.server).strip() == "true"
        is_filled = bool(self._in_place(_LOOK).strip())
        if is_running and not self.wish.stop:
            raise BackupError(
                "usage", f"{self.wish.server} is running, expected it stopped: stop what uses it, then set stop=true."
            )
        if is_filled and self.wish.existing == "refuse":
            raise BackupError(
                "usage",
                f"{PGDATA} or {PGWAL} is not empty, expected a fresh one: set existing to keep (renamed) or remove.",
            )
        return Plan(backup, target, is_running, is_filled, f"replaced_{datetime.now(UTC):%Y%m%d%H%M%S}")

    def _refuse_without_cluster(self) -> None:
        """A new cluster in the place has no backup: say of which others there are some."""
        others = [each.text() for each in self.engine.clusters() if each.backups]
        if others:
            raise BackupError(
                "not_found",
                "the store holds no backup of the cluster that is in the server's place, but of "
                f"{', '.join(others)}: set system_identifier to the one that is to come back.",
            )

    def _put(self, plan: Plan) -> None:
        if plan.is_running:
            docker("stop", "--time", "600", self.wish.server)
            self.done.append(f"stopped {self.wish.server}")
        if plan.is_filled:
            self._in_place(_ASIDE, plan.kept_as)
            self.done.append(f"moved the cluster to {PGDATA}.{plan.kept_as}")
        try:
            self.engine.fetch(plan.backup.name, PGDATA, self.tell)
            values = settings(plan.target, self.engine.restore_command, "pause", self.wish.timeline)
            self._in_place(_READY, conf_text(values))
        except BackupError as error:
            if plan.is_filled:
                self._in_place(_BACK, plan.kept_as)
            raise BackupError(
                error.code,
                f"{error} The cluster is where it was, stopped." if plan.is_filled else str(error),
                error.problems,
            ) from error
        self.done.append(f"put {plan.backup.name} into {PGDATA}")

    def _start(self, plan: Plan) -> dict[str, Any]:
        """Start, and wait for the target; a server that gives up is stopped, else it would be started for ever."""
        docker("start", self.wish.server)
        self.done.append(f"started {self.wish.server}")
        deadline = time.monotonic() + self.wish.timeout_s
        said = "it has not answered yet"
        while time.monotonic() < deadline:
            if (end := self._gave_up()) is not None:
                docker("stop", self.wish.server)
                raise BackupError(
                    "server", f"recovery to {plan.target.text} failed: {end}. The server is stopped: restore again."
                )
            try:
                found = self._progress()
            except _ERRORS as error:
                said = str(error)
            else:
                self.tell(f"recovered to {found['lsn']}, {found['recovered_to']}")
                if found.pop("is_there"):
                    return found
                said = f"it is at {found['lsn']}"
            time.sleep(0.5)
        raise BackupError("deadline", f"recovery is not done after {self.wish.timeout_s:g} s ({said}); it goes on.")

    def _progress(self) -> dict[str, Any]:
        with connect(self.wish.connection, "postgres", read_only=True) as connection:
            row = connection.execute(_PROGRESS).fetchone()
        assert row is not None
        in_recovery, state, lsn, at = row
        return {
            "is_there": not in_recovery or state == "paused",
            "lsn": lsn,
            "recovered_to": None if at is None else text_of(at),
            "is_paused": bool(in_recovery),
        }

    def _gave_up(self) -> str | None:
        state = json.loads(docker("inspect", self.wish.server))[0]
        if state["State"]["Running"] and state["RestartCount"] == 0:
            return None
        return last_words(self.wish.server, state["State"]["StartedAt"])

    def _in_place(self, script: str, *arguments: str) -> str:
        """A script among the server's own folders, as its own user, whether it runs or not."""
        image = docker("inspect", "--format", "{{.Image}}", self.wish.server).strip()
        options = ["--rm", "--network", "none", "--volumes-from", self.wish.server, "--entrypoint", "sh"]
        options += ["--pull", "never", "--user", "5432:5432", "--cap-drop", "ALL"]
        options += ["--security-opt", "no-new-privileges", "--label", "cryptopip.restore=files"]
        return docker("run", *options, image, "-euc", script, "restore", *arguments)


def promote(wish: Wish, *, check: bool) -> dict[str, Any]:
    """Let a restored cluster live: out of recovery, the restore's settings taken back, archiving on again."""
    with connect(wish.connection, "postgres", read_only=False) as connection:
        (in_recovery,) = connection.execute("SELECT pg_is_in_recovery()").fetchone() or (False,)
        found = [
            name
            for (name,) in connection.execute(
                "SELECT DISTINCT name FROM pg_file_settings WHERE name = ANY(%s) "
                "AND sourcefile = current_setting('data_directory') || '/postgresql.auto.conf' ORDER BY 1",
                [list(RECOVERY_SETTINGS)],
            )
        ]
        before = ("in recovery\n" if in_recovery else "") + "".join(f"{name} set by the restore\n" for name in found)
        running, wanted = connection.execute(_MODES).fetchone() or ("", "")
        if running != wanted and not before:
            before = f"archive_mode {running}, {wanted} after a restart\n"
        (timeline,) = connection.execute(_TIMELINE).fetchone() or (None,)
        facts = {"changed": bool(before), "timeline": timeline, "diff": {"before": before, "after": ""}}
        if check or not before:
            return facts
        if in_recovery:
            connection.execute("SELECT pg_promote(true, 600)")
            (in_recovery,) = connection.execute("SELECT pg_is_in_recovery()").fetchone() or (True,)
            if in_recovery:
                raise BackupError("server", "the server is still in recovery 600 s after it was promoted: see its log.")
        docker("exec", "--user", "5432:5432", wish.server, "sh", "-euc", _HISTORY)
        for name in found:
            connection.execute(sql.SQL("ALTER SYSTEM RESET {}").format(sql.Identifier(name)))
    docker("restart", "--time", "600", wish.server)
    deadline = time.monotonic() + wish.timeout_s
    while True:
        try:
            with connect(wish.connection, "postgres", read_only=True) as connection:
                (mode,) = connection.execute("SELECT current_setting('archive_mode')").fetchone() or ("",)
                (timeline,) = connection.execute(_TIMELINE).fetchone() or (None,)
            return facts | {"archive_mode": mode, "timeline": timeline}
        except _ERRORS:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def last_words(container: str, since: str) -> str:
    """Why a server ended, by its log since then."""
    logs = ["docker", "logs", "--since", since, "--tail", "200", container]
    done = subprocess.run(logs, capture_output=True, text=True, errors="replace", check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "FATAL" in line or "invalid" in line]
    return " / ".join(lines[-3:]) or "it ended and said nothing"


def docker(*arguments: str) -> str:
    """Standard output of a docker command. Raises BackupError ``engine``."""
    try:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError as error:
        raise BackupError("engine", "the command docker is not there: run the role docker.") from error
    if done.returncode != 0:
        raise BackupError("engine", f"docker {arguments[0]}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout
