"""What the tests of logical_backup need: the module as a process, its dumps, and kills at its steps.

Run as a program it is the module, with a victim that is killed as soon as a step begins.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # it is run as a program too
from psycopg.conninfo import conninfo_to_dict

from tests.integration.tuned_restore_harness import RestoreServer, Site, docker, give_again, kill

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "plugins" / "modules" / "logical_backup.py"
KILLER = Path(__file__)
STEPS = ("snapshot", "globals", "dumping", "hashing", "verifying", "naming", "protecting", "removing")
WITH_TOOL = ("globals", "dumping", "verifying")


class DumpSite(Site):
    """A server with a folder of dumps."""

    @property
    def dumps(self) -> Path:
        return self.folder / "dumps"

    def arguments(self, **options: Any) -> dict[str, Any]:
        server = conninfo_to_dict(self.dsn)
        return {
            "login_host": server["host"],
            "login_port": int(str(server["port"])),
            "login_user": server["user"],
            "container": self.container,
            "work_path": str(self.work),
            "path": str(self.dumps),
            "jobs": 2,
            **self.defaults,
            **options,
        }

    def names(self) -> list[str]:
        """What lies in the folder, but for its lock."""
        return sorted(path.name for path in self.dumps.iterdir() if path.name != ".lock")

    def manifest(self, name: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads((self.dumps / name / "manifest.json").read_text())
        return answer

    def one(self, **options: Any) -> str:
        """The name of a dump made now."""
        (name,) = self.ok(**options)["made"]
        return str(name)

    def restore(self) -> Site:
        """The same server and work path, for tuned_restore."""
        return Site(self.container, self.dsn, self.folder, {"accept_cluster_risk": True})


@contextmanager
def serving(folder: Path) -> Iterator[DumpSite]:
    """A server of a test's own; its superuser ``keyed`` logs in by a password alone, ``sesame``."""
    server = RestoreServer(os.environ["CRYPTOPIP_TEST_IMAGE"], folder)
    try:
        site = DumpSite(server.container, server.dsn, folder, {}, MODULE, KILLER)
        for role in ("keeper", "reader"):
            site.query(f"CREATE ROLE {role}")
        site.query("CREATE ROLE keyed SUPERUSER LOGIN PASSWORD 'sesame'")
        rules = folder / "postgresql" / "pg_hba.conf"
        rules.write_text("host all keyed 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
        docker("cp", str(rules), f"{server.container}:/etc/cryptopip/postgresql/")
        site.query("SELECT pg_reload_conf()")
        yield site
    finally:
        for tool in ("dump", "restore"):
            docker("rm", "--force", f"{server.container}-{tool}", check=False)
        server.remove()


@contextmanager
def small_disk(megabytes: int, image: str) -> Iterator[Path]:
    """A folder of this machine with no more room than that."""
    name = f"cryptopip-test-small-{os.getpid()}"
    options = ("--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", f"o=size={megabytes}m")
    docker("volume", "create", *options, name)
    try:
        holds = ("--entrypoint", "sleep", image, "infinity")
        docker("run", "--detach", "--init", "--name", name, "--user", "0:0", "--volume", f"{name}:/small", *holds)
        path = Path(docker("volume", "inspect", "--format", "{{.Mountpoint}}", name).strip())
        assert path.is_mount(), f"{path} is not mounted here: the engine runs in a mount namespace of its own"
        yield path
    finally:
        docker("rm", "--force", "--volumes", name, check=False)
        docker("volume", "rm", name)


def at_other_folder(site: DumpSite, path: Path) -> DumpSite:
    """The same server, other dumps."""
    return replace(site, defaults={**site.defaults, "path": str(path)})


def main() -> None:
    """The module, and a victim that is killed at a step: what stands on standard error first proves it was."""
    at, victim = sys.argv[1:]
    from ansible_collections.cryptopip.marketdata.plugins.module_utils.logical_backup import run
    from ansible_collections.cryptopip.marketdata.plugins.modules import logical_backup

    arguments = sys.stdin.read()
    site = json.loads(arguments)["ANSIBLE_MODULE_ARGS"]
    killed: list[str] = []

    def enter(step: str) -> None:
        if step == at and not killed:
            killed.append(step)
            print(f"killing {victim} in step {step}", file=sys.stderr, flush=True)
            kill(victim, site, "restore" if step == "restoring" else "dump")

    run.__dict__["enter"] = enter
    give_again(arguments)
    sys.argv = [str(MODULE)]
    logical_backup.main()


def ansible(site: DumpSite, *options: str, **arguments: Any) -> str:
    """What ``ansible -m`` prints of the module on this machine."""
    command = [str(Path(sys.executable).parent / "ansible"), "localhost", "-i", "localhost,", "-c", "local", *options]
    command += ["-e", f"ansible_python_interpreter={sys.executable}", "-m", "cryptopip.marketdata.logical_backup"]
    done = subprocess.run(
        [*command, "-a", json.dumps(site.arguments(**arguments))],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCAL_TEMP": str(site.folder / "ansible")},
    )
    return done.stdout + done.stderr


if __name__ == "__main__":
    main()
