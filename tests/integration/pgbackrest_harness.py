"""A PostgreSQL server that archives through pgBackRest, in a container as the roles run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.integration.harness.process import ROOT
from tests.integration.wale_harness import CONFIG, IMAGE, Pair, run

REPOSITORY = "/var/lib/cryptopip-pgbackrest"
STANZA = "cryptopip"
PUSH = "pgbackrest archive-push %p"
GET = "cryptopip-archive-get %f %p"


class Server(Pair):
    """A server with pgBackRest beside it in the container; nothing of WAL-E."""

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        super().__init__(folder, port=port)
        self.volumes = {
            f"cryptopip-test-pg-{self.id}": "/var/lib/postgresql",
            f"cryptopip-test-run-{self.id}": "/run/cryptopip/postgresql",
            f"cryptopip-test-repository-{self.id}": REPOSITORY,
        }

    def settings(self, name: str, **extra: str) -> Path:
        """As Pair has it, and pgBackRest's own file, as the role writes it."""
        config = super().settings(name, **extra)
        text = (ROOT / "roles/pgbackrest/templates/pgbackrest.conf.j2").read_text()
        values = {"{{ ansible_managed }}": "test", "{{ pgbackrest_processes }}": "2", "{{ pgbackrest_port }}": "5432"}
        for key, value in values.items():
            text = text.replace(key, value)
        begin, end = text.index("{% if"), text.index("{% endif %}")
        cipher = "repo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=test only\n"
        text = text[:begin] + cipher + text[end + len("{% endif %}\n") :]
        (config / "pgbackrest.conf").write_text(text)
        (config / "pgbackrest.conf").chmod(0o644)
        return config

    def up(self) -> None:
        """Running, archiving."""
        commands = {"archive_command": PUSH, "restore_command": GET}
        network = {"port": str(self.port), "listen_addresses": "127.0.0.1"} if self.port else {}
        self.config = self.settings("config", archive_mode="on", **commands, **network)
        self.start(self.db, IMAGE, self.config)
        self.await_server(self.db)
        self.tool("stanza-create")

    def tool(self, *arguments: str, check: bool = True) -> Any:
        """One command of pgBackRest, as an operator gives it."""
        return run("docker", "exec", self.db, "pgbackrest", *arguments, check=check)

    def inside(self, script: str, check: bool = True) -> str:
        """A shell script in the server's container; what it printed."""
        return run("docker", "exec", self.db, "sh", "-euc", script, check=check).stdout

    def labels(self) -> list[str]:
        """Names of the backups, oldest first."""
        (stanza,) = json.loads(self.tool("info", "--output=json").stdout)
        return [backup["label"] for backup in stanza["backup"]]

    def archived_path(self, segment: str) -> str:
        """The file of one archived segment in the repository."""
        found = self.inside(f"ls {REPOSITORY}/archive/{STANZA}/*/{segment[:16]}/{segment}-*").split()
        assert len(found) == 1
        return found[0]

    def recover(self, target: str, *options: str, **recovery: str) -> str:
        """A server of its own on the folder ``target``, recovered as told and promoted; its container."""
        folder, container = f"/var/lib/postgresql/data/{target}", f"cryptopip-test-{target}-{self.id}"
        self.inside(f"touch {folder}/recovery.signal")
        settings = {"restore_command": GET, "recovery_target_action": "promote"} | recovery
        config = self.settings(
            target, archive_mode="off", unix_socket_directories="/tmp", listen_addresses="", **settings
        )
        environment = ("--env", f"PGDATA={folder}", "--env", "PGHOST=/tmp", "--env", "PGPORT=5432")
        self.start(container, IMAGE, config, *environment, *options)
        return container


__all__ = ["CONFIG", "GET", "PUSH", "REPOSITORY", "STANZA", "Server"]
