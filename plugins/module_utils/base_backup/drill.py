"""A restore drill: a backup restored beside the running server in a throw-away container, checked, and removed."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ..postgres import PostgresError, connect
from . import drill_checks
from .contract import Engine, Tell
from .lock import no_restore, only_one
from .model import Backup, BackupError, instant, text_of
from .process import Finished, run_in
from .recover import docker, last_words
from .target import Target, choose_backup, parse_target, settings

_ERRORS: tuple[type[Exception], ...] = (PostgresError,)
with contextlib.suppress(ImportError):
    import psycopg

    _ERRORS = (*_ERRORS, psycopg.Error)

DATA = "/var/lib/postgresql/data"  # the server's folder of clusters, with room for another
HOME = f"{DATA}/restore_drill"
PGDATA = f"{HOME}/pg_data"
SPARE_BYTES = 1 << 30  # for the WAL that recovery writes and fetches
_OVERRIDES = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_directories": "/tmp",  # noqa: S108  # of the container, a tmpfs
    "ssl": "off",
    "hot_standby": "off",  # so that limits of the server may be lowered here
    "archive_command": "",
    "autovacuum": "off",
    "timescaledb.max_background_workers": "0",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "fsync": "off",  # nobody needs it after this
    "log_min_duration_statement": "-1",
}


@dataclass(frozen=True)
class DrillWish:
    """What was asked for; ``scope`` full or sample; ``name`` of the container; limits of it."""

    target: str
    backup: str | None
    scope: str
    server: str
    name: str
    cpus: float
    memory_mb: int
    timeout_s: float
    database: str
    app_database: str
    work: Path
    restore_work: Path
    connection: Mapping[str, Any]


@dataclass
class Drill:
    """One drill on an engine."""

    wish: DrillWish
    engine: Engine
    tell: Tell
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, *, check: bool) -> dict[str, Any]:
        """The module's answer; ``problems`` are what is wrong with the restored cluster, and the drill is noted.

        Raises BackupError where there is nothing to restore, or no room for it.
        """
        wish = self.wish
        with only_one(wish.work, check=check), no_restore(wish.restore_work, check=check):
            listing = self.engine.listing()
            target = parse_target(wish.target, listing)
            backup = choose_backup(listing, target, wish.backup)
            self._require_room()
            plan = f"{backup.name} restored into {wish.name}, recovered to {target.text}, checked ({wish.scope})\n"
            facts = {
                "changed": True,
                "backup": backup.facts(),
                "scope": wish.scope,
                "diff": {"before": "", "after": plan},
            }
            if check:
                return facts
            started, began = datetime.now(UTC), time.monotonic()
            found: dict[str, Any] = {"recovered_to": None, "compared_hours": 0, "restored_bytes": 0}
            problems: list[str] = []
            try:
                self._remove()
                self._rehearse(backup, target, found, problems)
            except BackupError as error:
                problems += [str(error), *(f"{each.object}: {each.problem}" for each in error.problems)]
            finally:
                self._remove()
            took = timedelta(seconds=time.monotonic() - began)
            if wish.app_database:
                self._note(backup, started, took, found, problems)
        return facts | found | {"problems": problems, "seconds": self.seconds, "duration_s": took.total_seconds()}

    def _require_room(self) -> None:
        with connect(self.wish.connection, "postgres", read_only=True) as connection:
            row = connection.execute("SELECT sum(pg_database_size(oid))::bigint FROM pg_database").fetchone()
        assert row is not None
        needed = int(row[0]) + SPARE_BYTES
        answer = docker("exec", self.wish.server, "df", "--block-size=1", "--output=avail", DATA)
        free = int(answer.split()[-1])
        if free < needed:
            raise BackupError(
                "store",
                f"{DATA} of {self.wish.server} has {free >> 20} MB free, expected {needed >> 20} MB for a second "
                "copy of the cluster: make room; nothing was restored.",
            )

    def _rehearse(self, backup: Backup, target: Target, found: dict[str, Any], problems: list[str]) -> None:
        wish = self.wish
        with self._timed("fetch"):
            self._files(f"mkdir -m 0700 {HOME}")
            self.engine.fetch(backup.name, PGDATA, self.tell)
            self._files(f"touch {PGDATA}/recovery.signal; chmod 0700 {PGDATA}")
        with self._timed("recovery"):
            self._start(target)
            found |= self._await()
        inside = drill_checks.Inside(self._exec, wish.database)
        with self._timed("amcheck"):
            self.tell("checking tables and indexes")
            problems += drill_checks.amcheck(inside, wish.scope, random.Random())  # noqa: S311
        with self._timed("digests"):
            self.tell("comparing closed days with the live datalake")
            with connect(wish.connection, wish.database, read_only=True) as live:
                compared, differing = drill_checks.compare_days(
                    inside,
                    live,
                    found["recovered_to"] or text_of(backup.finished_at),  # nothing was committed since
                    wish.scope,
                    random.Random(),  # noqa: S311
                )
            found["compared_hours"] = compared
            problems += differing
        with self._timed("test inserts"):
            problems += drill_checks.try_inserts(inside)
        if wish.scope == "full":
            with self._timed("checksums"):
                self.tell("checking every page's checksum")
                docker("stop", "--time", "120", wish.name)
                problems += self._checksums()

    def _start(self, target: Target) -> None:
        wish = self.wish
        values = settings(target, self.engine.restore_command, "promote") | _OVERRIDES
        words = [word for name, value in sorted(values.items()) for word in ("-c", f"{name}={value}")]
        script = (
            f"printf \"\\ninclude '/etc/cryptopip/postgresql/postgresql.conf'\\n\" >> {PGDATA}/postgresql.conf\n"
            f'exec postgres -D {PGDATA} "$@"'
        )
        limits = ["--cpus", f"{wish.cpus:g}", "--memory", f"{wish.memory_mb}m", "--blkio-weight", "100"]
        docker("run", "--detach", "--name", wish.name, *limits, *self._sandbox(), "-euc", script, "drill", *words)

    def _sandbox(self) -> list[str]:
        """Options and the image: no network, no capability, the drill's folder to write in, nothing of the live one."""
        server = json.loads(docker("inspect", self.wish.server))[0]
        options = ["--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--pull", "never"]  # noqa: S108
        options += ["--security-opt", "no-new-privileges", "--user", "5432:5432", "--shm-size", "512m"]
        options += ["--label", "cryptopip.restore=drill", "--env", f"PGDATA={PGDATA}", "--env", "PGHOST=/tmp"]
        options += ["--env", "PGPORT=5432"]
        home = None
        for mount in server["Mounts"]:
            inside, source = mount["Destination"], mount["Source"]
            if inside == DATA or DATA.startswith(f"{inside}/"):
                home = source + HOME.removeprefix(inside)
            elif not inside.startswith("/var/lib/postgresql"):
                options += ["--mount", f"type=bind,source={source},target={inside},readonly"]
        if home is None:
            raise BackupError("engine", f"{self.wish.server} mounts nothing at {DATA}: is it the server's container?")
        options += ["--mount", f"type=bind,source={home},target={HOME}"]
        return [*options, "--entrypoint", "sh", server["Image"]]

    def _await(self) -> dict[str, Any]:
        deadline = time.monotonic() + self.wish.timeout_s
        query = (
            "SELECT pg_last_xact_replay_timestamp(), (SELECT sum(pg_database_size(oid)) FROM pg_database) "
            "WHERE NOT pg_is_in_recovery()"
        )
        done = Finished(0, "", "it was not asked")
        while time.monotonic() < deadline:
            if docker("inspect", "--format", "{{.State.Running}}", self.wish.name).strip() != "true":
                raise BackupError("server", f"recovery failed: {last_words(self.wish.name, '0')}")
            done = self._psql("postgres", query)
            if done.code == 0 and done.stdout.strip():
                at, size = done.stdout.strip().split("|")
                return {"recovered_to": text_of(instant(at)) if at else None, "restored_bytes": int(size)}
            self.tell(f"recovering, {done.said() if done.code else 'not there yet'}")
            time.sleep(0.5)
        raise BackupError("deadline", f"recovery was not done after {self.wish.timeout_s:g} s: {done.said()}")

    def _psql(self, database: str, query: str) -> Finished:
        return self._exec(["psql", "-U", "postgres", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", query])

    def _exec(self, argv: list[str]) -> Finished:
        return run_in(self.wish.name, argv)

    def _checksums(self) -> list[str]:
        script = f"pg_checksums --check -D {PGDATA} 2>&1 || echo FAILED"
        said = docker("run", "--rm", *self._sandbox(), "-euc", script, "drill").strip().splitlines()
        return [f"pg_checksums: {' / '.join(said[-6:])}"] if "FAILED" in said else []

    def _files(self, script: str) -> None:
        """Among the server's folders, as its user."""
        docker("exec", "--user", "5432:5432", self.wish.server, "sh", "-euc", script)

    def _remove(self) -> None:
        with contextlib.suppress(BackupError):  # there is none
            docker("rm", "--force", "--volumes", self.wish.name)
        self._files(f"rm -rf {HOME}")

    @contextlib.contextmanager
    def _timed(self, phase: str) -> Any:
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[phase] = round(time.monotonic() - began, 1)

    def _note(
        self, backup: Backup, started: datetime, took: timedelta, found: Mapping[str, Any], problems: list[str]
    ) -> None:
        with connect(self.wish.connection, self.wish.app_database, read_only=False) as connection:
            connection.execute(
                "INSERT INTO restore_drills (started_at, duration, engine, backup, backup_age, recovered_to, scope, "
                "result, problems, compared_hours, restored_bytes) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [
                    started,
                    took,
                    backup.engine,
                    backup.name,
                    started - backup.finished_at,
                    found["recovered_to"],
                    self.wish.scope,
                    "bad" if problems else "good",
                    problems,
                    found["compared_hours"],
                    found["restored_bytes"],
                ],
            )
