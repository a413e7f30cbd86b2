"""A PostgreSQL server and its WAL-E sidecar in containers, as the roles run them: no network, no capabilities."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import uuid
from pathlib import Path
from typing import Any

from tests.integration.harness.process import ROOT, until
from tests.integration.s3_harness import S3Service

IMAGE = os.environ.get("CRYPTOPIP_TEST_IMAGE", "cryptopip-timescaledb:apache")
SIDECAR = "cryptopip-wale:latest"
PGDATA = "/var/lib/postgresql/data/pg_data"
STORE = "/var/lib/cryptopip-wale"
CONFIG = "/etc/cryptopip/postgresql"
SECRETS = "/etc/cryptopip/wale"
HELPER = f"{CONFIG}/cryptopip-wal"
PYTHON = "/opt/wale/venv/bin/python"
KEY_ID = "backup@fleet.test"
_IN_IMAGE = ("docker", "run", "--rm", "--network", "none", "--init", "--tmpfs", "/tmp", "--entrypoint")
_MAKE_KEY = (
    "export GNUPGHOME=$(mktemp -d); gpg --batch --quiet --passphrase '' --quick-generate-key "
    f"{KEY_ID} 2>&1 >&2; gpg --batch --armor --export-secret-keys {KEY_ID}"
)
_HARDENED = ("--cap-drop", "ALL", "--read-only", "--tmpfs", "/tmp", "--security-opt")


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A command with a deadline; its words in the failure where it must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert not check or done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def killing(target: str, nth: int, *, after: bool) -> str:
    """Python with which a process of the sidecar kills itself, SIGKILL, before or after the nth ``module.function``.

    ``module.Class.function`` names a method.
    """
    module, *owner, function = target.split(".")
    return (
        f"import os, sys\nimport cryptopip_wale.{module}\n"
        f"module = cryptopip_wale.{'.'.join([module, *owner])}\nreal, calls = module.{function}, []\n"
        "def dying(*arguments, **options):\n"
        "    calls.append(1)\n"
        f"    if len(calls) == {nth} and not {after}: os.kill(os.getpid(), 9)\n"
        "    result = real(*arguments, **options)\n"
        f"    if len(calls) == {nth}: os.kill(os.getpid(), 9)\n"
        "    return result\n"
        f"module.{function} = dying\n"
    )


class Pair:
    """A server and its sidecar, sharing PGDATA, WAL and the folder of the sockets; the store is a folder or ``s3``."""

    def __init__(
        self, folder: Path, *, port: int | None = None, s3: S3Service | None = None, is_encrypted: bool = False
    ) -> None:
        """With a ``port`` the server can be reached from this machine, else through its socket alone."""
        self.s3 = s3
        self.is_encrypted = is_encrypted
        self.environment: dict[str, str] = {}  # of the sidecar
        self.id = uuid.uuid4().hex[:8]
        self.port = port
        self.image = SIDECAR
        self.folder = folder
        self.db, self.wale = f"cryptopip-test-db-{self.id}", f"cryptopip-test-wale-{self.id}"
        self.containers: list[str] = []
        self.volumes = {
            f"cryptopip-test-pg-{self.id}": "/var/lib/postgresql",
            f"cryptopip-test-run-{self.id}": "/run/cryptopip/postgresql",
            f"cryptopip-test-store-{self.id}": STORE,
        }
        self.token = secrets.token_hex(32)

    def settings(self, name: str, **extra: str) -> Path:
        """A folder of settings, as the roles write it."""
        config = self.folder / name
        config.mkdir()
        image = ROOT / "roles" / "timescaledb" / "files" / "image"
        for source in (image / "pg_hba.conf", image / "pg_ident.conf", ROOT / "roles/wale/files/image/cryptopip-wal"):
            (config / source.name).write_bytes(source.read_bytes())
        lines = "".join(f"{key} = '{value}'\n" for key, value in extra.items())
        (config / "postgresql.conf").write_text((image / "postgresql.conf").read_text() + lines)
        if self.port:
            with (config / "pg_hba.conf").open("a") as file:
                file.write("host all all 127.0.0.1/32 trust\n")
        (config / "wale.token").write_text(self.token + "\n")
        for path in (config, *config.iterdir()):
            path.chmod(0o755 if path.is_dir() or path.name == "cryptopip-wal" else 0o644)
        return config

    def secrets(self) -> Path:
        """The sidecar's own folder of secrets, as the role writes it; sets what the sidecar is told of them."""
        folder = self.folder / "secrets"
        folder.mkdir(exist_ok=True)
        if self.s3:
            (folder / "s3.ini").write_text(self.s3.credentials_text())
            self.environment |= {
                "CRYPTOPIP_WALE_STORE_URL": f"s3://{self.s3.bucket}/fleet",
                "CRYPTOPIP_WALE_S3_ENDPOINT": self.s3.endpoint,
                "CRYPTOPIP_WALE_S3_TIMEOUT_S": "3",
            }
        if self.is_encrypted:
            self.environment["WALE_GPG_KEY_ID"] = KEY_ID
            (folder / "gpg.key").write_text(run(*_IN_IMAGE, "sh", SIDECAR, "-euc", _MAKE_KEY).stdout)
        for path in (folder, *folder.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
        return folder

    def start_sidecar_container(self, name: str, *options: str, command: tuple[str, ...] = ()) -> None:
        """One sidecar, with its secrets; on the host's network where the store is a service."""
        folder = self.secrets()
        env = [word for key, value in self.environment.items() for word in ("--env", f"{key}={value}")]
        create = [*env, "--volume", SECRETS, *options]
        network = "host" if self.s3 else "none"
        self.start(name, self.image, self.config, *create, command=command, network=network, secrets=folder)

    def start(
        self,
        container: str,
        image: str,
        config: Path,
        *options: str,
        command: tuple[str, ...] = (),
        network: str = "none",
        secrets: Path | None = None,
    ) -> None:
        """One container of the pair. The settings are copied in: only root may look into the folders of pytest."""
        mounts = [word for source, target in self.volumes.items() for word in ("--volume", f"{source}:{target}")]
        self.containers.append(container)
        place = ("--network", "host" if self.port else network, "--env", f"PGPORT={self.port or 5432}")
        hardened = (*_HARDENED, "no-new-privileges:true", "--init", "--stop-signal", "SIGINT", *place)
        run("docker", "create", "--name", container, *hardened, *mounts, "--volume", CONFIG, *options, image, *command)
        run("docker", "cp", f"{config}/.", f"{container}:{CONFIG}")
        if secrets:
            run("docker", "cp", f"{secrets}/.", f"{container}:{SECRETS}")
        run("docker", "start", container)

    def up(self) -> None:
        """Both running, archiving."""
        commands = {"archive_command": f"{HELPER} push %f", "restore_command": f"{HELPER} fetch %f %p"}
        network = {"port": str(self.port), "listen_addresses": "127.0.0.1"} if self.port else {}
        self.config = self.settings("config", archive_mode="on", **commands, **network)
        self.start(self.db, IMAGE, self.config)
        self.await_server(self.db)
        self.start_sidecar_container(self.wale)
        self.await_sidecar()

    def down(self) -> None:
        """Nothing left."""
        run("docker", "rm", "--force", "--volumes", *self.containers, check=False)
        run("docker", "volume", "rm", "--force", *self.volumes)

    def await_server(self, container: str) -> None:
        """Wait until the server is out of recovery and takes writes."""
        query = ("docker", "exec", container, "psql", "-U", "postgres", "-Atc", "select pg_is_in_recovery()")
        until(lambda: run(*query, check=False).stdout.strip() == "f", f"{container} to take writes", 120, pause=0.2)

    def await_sidecar(self) -> None:
        """Wait until the sidecar listens (a killed one leaves its socket's file behind, so the file says nothing)."""
        until(lambda: "serving" in self.sidecar_log(), "the sidecar", 60, pause=0.1)

    def sidecar_log(self) -> str:
        """What the sidecar said in its present life."""
        born = run("docker", "inspect", "--format", "{{.State.StartedAt}}", self.wale).stdout.strip()
        done = run("docker", "logs", "--since", born, self.wale)
        return done.stdout + done.stderr

    def kill_sidecar(self) -> None:
        run("docker", "kill", self.wale)

    def start_sidecar(self) -> None:
        run("docker", "start", self.wale)
        self.await_sidecar()

    def sql(self, query: str, container: str | None = None, database: str = "postgres") -> str:
        """The rows of a query, unaligned."""
        psql = ("psql", "-U", "postgres", "-d", database, "-v", "ON_ERROR_STOP=1", "-Atc", query)
        return run("docker", "exec", container or self.db, *psql).stdout.strip()

    def sidecar(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command in the sidecar, as an operator gives it."""
        return run("docker", "exec", self.wale, *command, check=check)

    def shell(self, script: str) -> str:
        """A shell script in the sidecar; what it printed."""
        return self.sidecar("sh", "-euc", script).stdout

    def helper(self, *arguments: str, env: str = "UNUSED=") -> subprocess.CompletedProcess[str]:
        """The archive_command's and restore_command's helper, in the server's container."""
        return run("docker", "exec", "--env", env, self.db, HELPER, *arguments, check=False)

    def answer(self, *arguments: str) -> dict[str, Any]:
        """The answer of ``cryptopip-wale``."""
        answer: dict[str, Any] = json.loads(self.sidecar("cryptopip-wale", *arguments, check=False).stdout)
        return answer

    def names(self) -> list[str]:
        """Names of the complete backups, oldest first."""
        return [row["name"] for row in self.answer("list")["backups"]]

    @property
    def root(self) -> str:
        """The folder of this cluster in the store."""
        return f"{STORE}/{self.sql('select system_identifier from pg_control_system()')}"

    def stored(self, folder: str) -> list[str]:
        """Names of the files of this cluster directly in a folder of the store."""
        if self.s3:
            prefix = f"fleet/{self.root.rsplit('/', 1)[1]}/{folder}/"
            return [name.removeprefix(prefix) for name in self.s3.names(prefix) if "/" not in name.removeprefix(prefix)]
        return self.shell(f"ls {self.root}/{folder}").split()

    def exists(self, path: str) -> bool:
        """Whether the sidecar sees the file."""
        return self.sidecar("test", "-e", path, check=False).returncode == 0

    def await_archived(self, name: str) -> None:
        """Wait until the server was told that the segment is archived."""
        query = "select coalesce(max(last_archived_wal), '') from pg_stat_archiver"
        until(lambda: self.sql(query) >= name, f"{name} to be archived", 120, pause=0.2)

    def switch_wal(self) -> str:
        """Fill a segment, make the server go to the next; the filled one's name."""
        self.sql("create table if not exists filler (a int); insert into filler values (1)")
        return self.sql("select pg_walfile_name(pg_switch_wal())")

    def archived_segment(self) -> str:
        """Name of a segment that was just filled and archived."""
        name = self.switch_wal()
        self.await_archived(name)
        return name

    def push(self, code: str = "") -> str:
        """A new base backup, after the Python in ``code``; its name."""
        if code:
            self.sidecar(PYTHON, "-c", _pushing(code))
        else:
            self.sidecar("wal-e", "backup-push", PGDATA)
        return self.names()[-1]

    def killed_push(self, code: str) -> None:
        """A push that kills itself, by ``killing``."""
        done = self.sidecar(PYTHON, "-c", _pushing(code), check=False)
        assert done.returncode == 137, f"not killed: this run proved nothing: {done.returncode} {done.stderr}"

    def restore(self, target: str, backup: str, **recovery: str) -> str:
        """A server of its own on a fetched backup, recovered as told and promoted; its container."""
        folder, container = f"/var/lib/postgresql/data/{target}", f"cryptopip-test-{target}-{self.id}"
        self.sidecar("wal-e", "backup-fetch", folder, backup)
        self.sidecar("touch", f"{folder}/recovery.signal")
        settings = {"restore_command": f"{HELPER} fetch %f %p", "recovery_target_action": "promote"} | recovery
        config = self.settings(
            target, archive_mode="off", unix_socket_directories="/tmp", listen_addresses="", **settings
        )
        self.start(
            container, IMAGE, config, "--env", f"PGDATA={folder}", "--env", "PGHOST=/tmp", "--env", "PGPORT=5432"
        )
        return container


def _pushing(code: str) -> str:
    arguments = ["wal-e", "backup-push", PGDATA]
    return f"import sys\nsys.argv = {arguments}\n{code}\nfrom cryptopip_wale.engine import main\nmain()"
