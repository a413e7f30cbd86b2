"""A database server of a test's own, in a container, so that it can be restarted and killed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

import psycopg

from tests.integration.harness.process import ROOT, until

_IMAGE_FOLDER = ROOT / "roles" / "timescaledb" / "files" / "image"


DISK = ("--volume", "/var/lib/postgresql")


class DatabaseServer:
    """PostgreSQL as hosts run it, on a free port of this machine; ``dsn`` is a superuser's. ``remove`` ends it.

    ``storage``: what the engine puts under its data; ``flags``: of the server's command line.
    """

    def __init__(self, image: str, folder: Path, *, storage: Sequence[str] = DISK, flags: Sequence[str] = ()) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        configuration = folder / "postgresql"
        configuration.mkdir(mode=0o755)
        for name in ("postgresql.conf", "pg_ident.conf"):
            shutil.copy(_IMAGE_FOLDER / name, configuration)
        with (configuration / "postgresql.conf").open("a") as file:
            file.write(
                f"port = {port}\nshared_buffers = 128MB\nmax_connections = 100\n"
            )  # fsync stays on: it is killed
        (configuration / "pg_hba.conf").write_text("local all postgres peer\nhost all all 127.0.0.1/32 trust\n")
        for path in (configuration, *configuration.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
        self.dsn = f"host=127.0.0.1 port={port} user=postgres"
        self._name = f"cryptopip-test-restart-{uuid.uuid4().hex[:8]}"
        # Under the temporary folders of pytest only root may look, so the files are copied in, not mounted.
        _docker(
            *("create", "--name", self._name, "--label", "cryptopip.test=restart", "--network", "host"),
            *("--shm-size", "256m", *storage, image, "postgres", *flags),
        )
        _docker("cp", f"{configuration}/.", f"{self._name}:/etc/cryptopip/postgresql/")
        _docker("start", self._name)
        self.wait()

    def wait(self) -> None:
        """Wait until it takes connections."""
        until(self._answers, f"PostgreSQL in {self._name}", 120, pause=0.3)

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.dsn, dbname="postgres", connect_timeout=5):
                return True
        except psycopg.OperationalError:
            return False

    def restart(self) -> None:
        """An operator's restart: fast shutdown, start."""
        _docker("restart", self._name)
        self.wait()

    def crash(self) -> None:
        """SIGKILL of the server, start, crash recovery."""
        _docker("kill", self._name)
        _docker("start", self._name)
        self.wait()

    def remove(self) -> None:
        """End it and delete its data."""
        _docker("rm", "--force", "--volumes", self._name)


def _docker(*arguments: str) -> None:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
