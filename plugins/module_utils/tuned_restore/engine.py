"""The container engine, through its command: the server's container, and one-shot containers of its image."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

DUMP = "/dump"
"""Where one-shot containers see the dump."""


class EngineError(Exception):
    """The engine refused or is missing: what it said and what to do."""


@dataclass(frozen=True)
class Container:
    """The server's container; ``memory_bytes`` is its limit, None where it has none; ``mounts`` are host folders."""

    name: str
    image: str
    is_running: bool
    memory_bytes: int | None
    mounts: tuple[Path, ...]


@dataclass(frozen=True)
class Finished:
    """What a one-shot container left."""

    code: int
    stdout: str
    stderr: str

    @property
    def errors(self) -> list[str]:
        """Lines of its that tell of an error."""
        return [line for line in self.stderr.splitlines() if "error:" in line.lower() or "FATAL:" in line]

    @property
    def was_killed(self) -> bool:
        """Whether somebody, or the kernel, ended it: then it says nothing of what it worked on."""
        return self.code in {137, 143}

    def explain(self) -> str:
        """Its exit code and what it said last, for an error message."""
        said = self.errors or self.stderr.strip().splitlines()
        how = "killed, " if self.was_killed else ""
        return f"{how}exit code {self.code}: {' / '.join(said[:3]) or 'it said nothing'}"


def inspect(name: str) -> Container:
    """The server's container. Raises EngineError where there is none."""
    found = json.loads(_docker("container", "inspect", name))[0]
    limit = found["HostConfig"].get("Memory") or None
    mounts = tuple(Path(mount["Source"]) for mount in found["Mounts"] if mount.get("Source"))
    return Container(name, found["Image"], bool(found["State"]["Running"]), limit, mounts)


def start(name: str) -> None:
    """Start the server's container where it stands."""
    _docker("container", "start", name)


def restart(name: str) -> None:
    """An orderly restart of the server's container: its stop signal, its own grace period."""
    _docker("container", "restart", name)


def exists(name: str) -> bool:
    """Whether there is a container of that name, running or not."""
    return bool(_docker("container", "ls", "--all", "--filter", f"name=^/?{name}$", "--format", "{{.Names}}").strip())


def end(name: str) -> bool:
    """End and remove a one-shot container; False where there was none."""
    if not exists(name):
        return False
    _docker("container", "rm", "--force", "--volumes", name)
    return True


def run_once(
    name: str,
    image: str,
    command: Sequence[str],
    *,
    mounts: Mapping[Path, str],
    environment: Mapping[str, str] | None = None,
    writable: Mapping[Path, str] | None = None,
) -> Finished:
    """Run a program in a container of its own until it ends; ``mounts``: host path -> path inside, read-only.

    ``writable``: likewise, of folders that root owns: it may write there, and into nothing else.

    The engine runs it, not this process: killed, it leaves a container of a known name, which ``end`` removes.
    Values of ``environment`` go through this process's own, never through an argument list.
    """
    arguments = ["--name", name, "--label", "cryptopip.restore=one-shot", "--pull", "never", "--restart", "no"]
    arguments += ["--log-driver", "json-file", "--read-only", "--tmpfs", "/tmp", "--security-opt", "no-new-privileges"]  # noqa: S108
    # As root, whom the server's socket takes for the superuser; it may read the dump whoever owns it, and no more.
    arguments += ["--user", "0:0", "--cap-drop", "ALL", "--cap-add", "DAC_READ_SEARCH"]
    arguments += ["--network", "host" if environment else "none"]
    for source, target in mounts.items():
        arguments += ["--mount", f"{_bind(source, target)},readonly"]
    for source, target in (writable or {}).items():
        arguments += ["--mount", _bind(source, target)]
    for variable in environment or {}:
        arguments += ["--env", variable]
    end(name)
    _docker("container", "run", "--detach", *arguments, image, *command, environment=environment)
    code = int(_docker("container", "wait", name))
    done = _run("container", "logs", name)
    if done.returncode != 0:
        raise EngineError(f"docker container logs {name}: {done.stderr.strip()}")
    end(name)
    return Finished(code, done.stdout, done.stderr)


def _bind(source: Path, target: str) -> str:
    quoted = str(source).replace('"', '""')
    return f'type=bind,"source={quoted}",target={target}'


def free_bytes(name: str, folder: str) -> tuple[int, str]:
    """Bytes free below a folder of the server's container, and the mount point that tells file systems apart."""
    answer = _docker("exec", name, "df", "--block-size=1", "--output=avail,target", folder)
    free, mount = answer.splitlines()[-1].split(None, 1)
    return int(free), mount.strip()


def _docker(*arguments: str, environment: Mapping[str, str] | None = None) -> str:
    done = _run(*arguments, environment=environment)
    if done.returncode != 0:
        raise EngineError(f"docker {' '.join(arguments[:2])}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


def _run(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["docker", *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env={**os.environ, **(environment or {})},
        )
    except FileNotFoundError as error:
        raise EngineError(
            "the command docker is not there: expected the engine that runs the database on this host; install "
            "docker-cli, or run the role docker."
        ) from error
