"""Backups without a control node: ``cryptopip-backup run|status|drill``, for systemd's timers and by hand on the host.

run      takes a base backup where one is due, reads it through, and removes old ones; exit 1 where any of it failed
status   figures and alarms as JSON, metrics into a file; exit 1 where there is an alarm
drill    restores the newest backup beside the server and checks it, as JSON; exit 1 where it is not well

It reads /etc/cryptopip/backup.json, which the role backup writes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..postgres import PostgresError
from .alarms import Limits, alarms, metrics_text
from .drill import Drill, DrillWish
from .engines import ENGINES
from .model import BackupError
from .observe import Observer, write_whole
from .operate import Operation, Request, told_in
from .plan import duration

CONFIG = Path("/etc/cryptopip/backup.json")
DRILL_CONTAINER = "cryptopip-restore-drill"
ERRORS: tuple[type[Exception], ...] = (BackupError, OSError, PostgresError)
with contextlib.suppress(ImportError):
    import psycopg

    ERRORS = (*ERRORS, psycopg.Error)


@dataclass(frozen=True)
class Config:
    """The file's content. Lengths of time carry their unit; folders are the host's."""

    engine: str
    container: str
    max_age: str
    keep: int
    database: str
    app_database: str
    login_host: str
    login_port: int
    work_path: str
    restore_path: str
    wal_path: str
    metrics_file: str
    server: str
    drill_scope: str
    drill_cpus: float
    drill_memory_mb: int
    limit_archive_segments: int
    limit_archive_lag: str
    limit_backup_age: str
    limit_drill_age: str
    limit_wal_left: str
    limit_wal_free_mb: int

    @property
    def connection(self) -> dict[str, Any]:
        """As the superuser through the socket, which root may be."""
        return {"login_host": self.login_host, "login_port": self.login_port, "login_user": "postgres"}

    @property
    def limits(self) -> Limits:
        """What is still fine."""
        return Limits(
            archive_lag_segments=self.limit_archive_segments,
            archive_lag_s=duration(self.limit_archive_lag, "limit_archive_lag").total_seconds(),
            backup_age_s=duration(self.limit_backup_age, "limit_backup_age").total_seconds(),
            drill_age_s=duration(self.limit_drill_age, "limit_drill_age").total_seconds()
            if self.limit_drill_age
            else None,
            wal_left_s=duration(self.limit_wal_left, "limit_wal_left").total_seconds(),
            wal_free_bytes=self.limit_wal_free_mb << 20,
        )


def read_config(path: Path) -> Config:
    """The configuration. Raises BackupError ``usage`` where it is missing or another release's."""
    try:
        return Config(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise BackupError("usage", f"{path}: {error}; run the role backup of this release.") from error


def say(text: str) -> None:
    """To the service's log."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def run(config: Config) -> int:
    """Take where due, verify, retain; the second also where the first failed, for a full store is what it may mend."""
    failed = False
    for state, told in (("present", "backup"), ("retained", "removed")):
        request = Request(
            state=state,
            name=None,
            keep=config.keep if state == "retained" else None,
            max_age=config.max_age if state == "present" else None,
            verify=True,
            database=config.database,
            app_database=config.app_database,
            work=Path(config.work_path),
            restore_work=Path(config.restore_path),
            check=False,
            connection=config.connection,
        )
        with told_in(request.work) as tell:
            operation = Operation(request, ENGINES[config.engine](config.container or None), tell)
            try:
                answer = operation.run()
            except ERRORS as error:
                failed = True
                say(f"{state} failed: {str(error).strip()}")
                for each in error.problems if isinstance(error, BackupError) else ():
                    say(f"  {each.object}: {each.problem}")
                continue
        say(json.dumps({"state": state, "changed": answer["changed"], told: answer[told]}))
    return int(failed)


def status(config: Config) -> int:
    """Find the figures, write the metrics, say every alarm."""
    limits = config.limits
    observer = Observer(
        engine=ENGINES[config.engine](config.container or None),
        connection=config.connection,
        wal_path=Path(config.wal_path),
        work=Path(config.work_path),
        app_database=config.app_database if limits.drill_age_s is not None else "",
    )
    found = observer.figures()
    raised = alarms(found, limits)
    if config.metrics_file:
        write_whole(Path(config.metrics_file), metrics_text(found, raised, time.time()))
    sys.stdout.write(json.dumps(asdict(found) | {"alarms": [asdict(alarm) for alarm in raised]}) + "\n")
    for alarm in raised:
        say(f"ALARM {alarm.name}: {alarm.text}")
    return int(bool(raised))


def drill(config: Config) -> int:
    """Rehearse a restore."""
    wish = DrillWish(
        target="latest",
        backup=None,
        scope=config.drill_scope,
        server=config.server,
        name=DRILL_CONTAINER,
        cpus=config.drill_cpus,
        memory_mb=config.drill_memory_mb,
        timeout_s=86400,
        database=config.database,
        app_database=config.app_database,
        work=Path(config.work_path),
        restore_work=Path(config.restore_path),
        connection=config.connection,
    )
    with told_in(wish.work) as tell:
        try:
            answer = Drill(wish, ENGINES[config.engine](config.container or None), tell).run(check=False)
        except ERRORS as error:
            say(f"no drill was made: {str(error).strip()}")
            return 1
    sys.stdout.write(json.dumps(answer) + "\n")
    for problem in answer["problems"]:
        say(f"NOT WELL: {problem}")
    return int(bool(answer["problems"]))


def main() -> None:
    """Exit 0 where all is well, 1 where not, 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="cryptopip-backup", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["run", "status", "drill"])
    parser.add_argument("--config", type=Path, default=CONFIG, help="(default: %(default)s)")
    arguments = parser.parse_args()
    try:
        config = read_config(arguments.config)
        code = {"run": run, "status": status, "drill": drill}[arguments.command](config)
    except BackupError as error:
        say(f"cryptopip-backup: {error}")
        code = 2 if error.code == "usage" else 1
    sys.exit(code)


if __name__ == "__main__":
    main()
