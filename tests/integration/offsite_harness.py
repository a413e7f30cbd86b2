"""Remotes that rclone really talks to, on this machine: WebDAV, SFTP, S3 and a folder, plain and encrypted."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner, Result

from collectors.cli import app
from tests.integration.harness.process import until

PASSWORD = "an off-site pass phrase"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def served(argv: list[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server for as long as the block lasts."""
    with log.open("wb") as output:
        server = subprocess.Popen(argv, stdout=output, stderr=output)
    try:
        until(lambda: server.poll() is not None or is_open(port), f"{argv[:3]} listens")
        assert server.poll() is None, log.read_text()
        yield server
    finally:
        server.kill()
        server.wait()


def obscured(text: str) -> str:
    return subprocess.run(["rclone", "obscure", text], capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def webdav(folder: Path, port: int | None = None) -> Iterator[dict[str, str]]:
    """No hashes, no times: what is weakest of all that rclone knows."""
    store, port = folder / "store", port or free_port()
    store.mkdir(parents=True, exist_ok=True)
    argv = ["rclone", "serve", "webdav", str(store), "--addr", f"127.0.0.1:{port}", "--user", "u", "--pass", "p"]
    with served(argv, port, folder / "serve.log"):
        yield {
            "type": "webdav", "url": f"http://127.0.0.1:{port}", "vendor": "other", "user": "u", "pass": obscured("p"),
        }  # fmt: skip


@contextmanager
def sftp(folder: Path) -> Iterator[dict[str, str]]:
    """Half of a file under its name, where an upload is killed."""
    store, port = folder / "store", free_port()
    store.mkdir(parents=True, exist_ok=True)
    argv = ["rclone", "serve", "sftp", str(store), "--addr", f"127.0.0.1:{port}", "--user", "u", "--pass", "p"]
    with served([*argv, "--vfs-cache-mode", "off"], port, folder / "serve.log"):
        yield {
            "type": "sftp", "host": "127.0.0.1", "port": str(port), "user": "u", "pass": obscured("p"),
            "disable_hashcheck": "true",
        }  # fmt: skip


@contextmanager
def s3(folder: Path) -> Iterator[dict[str, str]]:
    """Amazon's API, MD5 of whole objects."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    argv = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with served(argv, port, folder / "serve.log"):
        yield {
            "type": "s3", "provider": "Other", "endpoint": f"http://127.0.0.1:{port}", "access_key_id": "k",
            "secret_access_key": "s", "region": "us-east-1", "force_path_style": "true",
        }  # fmt: skip


def crypt(remote: str) -> dict[str, str]:
    return {"type": "crypt", "remote": remote, "password": obscured(PASSWORD), "password2": obscured("salt")}


class Site:
    """A host's configuration, and the command run with it."""

    def __init__(self, folder: Path, remotes: dict[str, dict[str, str]]) -> None:
        self.folder = folder
        self.config = folder / "offsite.yml"
        self.rclone_config = folder / "rclone.conf"
        self.source = folder / "source"
        self.source.mkdir()
        self.options: dict[str, Any] = {}
        self.rclone_config.write_text(
            "".join(
                f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in options.items()) + "\n"
                for name, options in remotes.items()
            )
        )

    def configure(self, remote: str, **copy: Any) -> None:
        copies = {"it": {"source": str(self.source), "remote": remote} | copy}
        self.config.write_text(
            yaml.safe_dump(
                {"rclone_config": str(self.rclone_config), "state": str(self.folder / "state"), "copies": copies}
                | self.options
            )
        )

    def write(self, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            path = self.source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.tmp")
            part.write_bytes(content)
            part.replace(path)

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "collectors", "offsite", *map(str, arguments), "--config", str(self.config)]

    def invoke(self, *arguments: str | Path, code: int = 0) -> Result:
        """The command, here: a process of its own for each would take most of the time."""
        done = CliRunner().invoke(app, ["offsite", *map(str, arguments), "--config", str(self.config)])
        assert done.exit_code == code, f"{arguments}: {done.exit_code}\n{done.output}{done.exception!r}"
        return done

    def run(self, *arguments: str | Path, code: int = 0) -> str:
        """Its answer, or where it fails as it should, what it says."""
        done = self.invoke(*arguments, code=code)
        return done.stdout if code == 0 else done.output

    def copied(self, code: int = 0) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.invoke("copy", "--json", code=code).stdout)[0]
        return result

    def rclone(self, *arguments: str) -> str:
        return self._rclone(*arguments).decode()

    def _rclone(self, *arguments: str) -> bytes:
        argv = ["rclone", "--config", str(self.rclone_config), *arguments]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("RCLONE_", "AWS_"))}
        return subprocess.run(argv, capture_output=True, check=True, env=environment).stdout

    def objects(self, remote: str) -> dict[str, int]:
        listed = json.loads(self.rclone("lsjson", "-R", "--files-only", f"{remote}/files"))
        return {one["Path"]: one["Size"] for one in listed}

    def content(self, remote: str, name: str) -> bytes:
        return self._rclone("cat", f"{remote}/files/{name}")


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
