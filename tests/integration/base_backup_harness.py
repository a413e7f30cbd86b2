"""A server with a datalake and its sidecar, and module base_backup run against them, as a process or by Ansible."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg

from tests.integration.harness.process import ROOT
from tests.integration.wale_harness import Pair

MODULES = ROOT / "plugins" / "modules"


class Site:
    """One host's database, its backups, and the module's folders."""

    def __init__(self, pair: Pair, folder: Path) -> None:
        self.pair, self.folder = pair, folder
        self.work, self.restore_work = folder / "backup", folder / "restore"
        self.dsn = f"host=127.0.0.1 port={pair.port} user=postgres"

    def make_database(self, kind: str) -> None:
        """The database of a kind, by its name, with its whole schema."""
        self.pair.sql(f"create database {kind}")
        with psycopg.connect(self.dsn, dbname=kind, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION timescaledb")
            for migration in sorted((ROOT / "files" / "sql" / kind).glob("*.up.sql")):
                text = migration.read_text()
                if "edition: community" not in text:
                    connection.execute(text.encode())

    def protections(self) -> list[str]:
        """Names in table protections."""
        with psycopg.connect(self.dsn, dbname="datalake") as connection:
            return [name for (name,) in connection.execute("SELECT name FROM protections ORDER BY name")]

    def results(self) -> list[tuple[str, str | None, str, list[str]]]:
        """Operation, backup, result and problems of what table base_backups tells, the newest last."""
        with psycopg.connect(self.dsn, dbname="app") as connection:
            return connection.execute(
                "SELECT operation, backup, result, problems FROM base_backups ORDER BY id"
            ).fetchall()

    def arguments(self, **options: Any) -> dict[str, Any]:
        """The module's options for this host."""
        return {
            "container": self.pair.wale,
            "login_host": "127.0.0.1",
            "login_port": self.pair.port,
            "work_path": str(self.work),
            "restore_path": str(self.restore_work),
            **options,
        }

    def start(self, *, module: str = "base_backup", check: bool = False, **options: Any) -> subprocess.Popen[str]:
        """A module as a process."""
        given = self.arguments(**options) | {"_ansible_check_mode": check, "_ansible_diff": True}
        process = subprocess.Popen(
            [sys.executable, str(MODULES / f"{module}.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "collections")},
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": given}))
        process.stdin.close()
        process.stdin = None
        return process

    def command(self, command: str, **changes: Any) -> subprocess.CompletedProcess[str]:
        """``cryptopip-backup`` with the configuration that the role would write, but for ``changes``."""
        config = {
            "engine": "wal_e",
            "container": self.pair.wale,
            "max_age": "1h",
            "keep": 2,
            "database": "datalake",
            "app_database": "app",
            "login_host": "127.0.0.1",
            "login_port": self.pair.port,
            "work_path": str(self.work),
            "restore_path": str(self.restore_work),
            "wal_path": str(self.folder),
            "metrics_file": str(self.folder / "metrics" / "x.prom"),
            "server": self.pair.db,
            "drill_scope": "sample",
            "drill_cpus": 1,
            "drill_memory_mb": 1024,
            "limit_archive_segments": 4,
            "limit_archive_lag": "10m",
            "limit_backup_age": "1h",
            "limit_drill_age": "10d",
            "limit_wal_left": "1s",
            "limit_wal_free_mb": 1,
        }
        path = self.folder / "backup.json"
        path.write_text(json.dumps(config | changes))
        module = "ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup.command"
        return subprocess.run(
            [sys.executable, "-m", module, command, "--config", str(path)],
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
            env={**os.environ, "PYTHONPATH": str(ROOT / "collections")},
        )

    def run(self, **options: Any) -> dict[str, Any]:
        """The module's answer, failed or not."""
        out, err = self.start(**options).communicate(timeout=240)
        assert out, err
        answer: dict[str, Any] = json.loads(out)
        return answer

    def ok(self, **options: Any) -> dict[str, Any]:
        """The answer of a run that succeeds."""
        answer = self.run(**options)
        assert not answer.get("failed"), answer
        return answer

    def fails(self, **options: Any) -> dict[str, Any]:
        """The answer of a run that fails."""
        answer = self.run(**options)
        assert answer.get("failed"), answer
        return answer
