"""An emulated machine with ZFS for the tests: bin/vm, a shell in it, and the module zfs_pool run on it by Ansible."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 600


def by_id(number: int) -> str:
    """The path of disk tankN in the machine."""
    return f"/dev/disk/by-id/virtio-TANK{number}"


def until(state: Callable[[], bool], what: str, seconds: float = DEADLINE_S) -> None:
    """Ask until the state holds; fails, naming it, when it has not come in time."""
    deadline = time.monotonic() + seconds
    while not state():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.5)


class Machine:
    """One machine of bin/vm, reached as its users reach it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder

    def vm(self, action: str, *arguments: str) -> str:
        """What bin/vm answers."""
        command = [str(ROOT / "bin/vm"), action, "--name", self.name, *arguments]
        ran = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        assert ran.returncode == 0, f"{' '.join(command)}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def shell(self, script: str) -> str:
        """The output of a shell script in the machine, which must succeed."""
        return self.vm("ssh", "--", f"set -e; export LC_ALL=C; {script}")

    def spawn(self, script: str) -> subprocess.Popen[str]:
        """A shell script in the machine that runs on; its output line by line in the result's stdout."""
        command = [str(ROOT / "bin/vm"), "ssh", "--name", self.name, "--", script]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def pool(self, *, check: bool = False, **options: Any) -> dict[str, Any]:
        """The result of the module zfs_pool for the pool tank, run with --diff, failed or not."""
        task = {"cryptopip.marketdata.zfs_pool": {"name": "tank", **options}}
        playbook = self.folder / "pool.json"
        playbook.write_text(json.dumps([{"hosts": "vm", "gather_facts": False, "tasks": [task]}]))
        ansible = str(Path(sys.executable).parent / "ansible-playbook")
        command = [ansible, "--diff", "--inventory", self.vm("inventory").strip(), str(playbook)]
        ran = subprocess.run(
            [*command, "--check"] if check else command,
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            result = json.loads(ran.stdout)["plays"][0]["tasks"][0]["hosts"]["vm"]
        except (json.JSONDecodeError, LookupError) as error:
            raise AssertionError(f"{ran.stdout}\n{ran.stderr}") from error
        assert "module_stderr" not in result, result
        return dict(result)

    def status(self) -> str:
        """All that zpool status prints."""
        return self.shell("zpool status -P tank")

    def sides(self) -> list[set[str]]:
        """The mirrors of the pool, as the report of the module has them."""
        mirrors: dict[str, set[str]] = {}
        for row in self.report()["disks"]:
            mirrors.setdefault(row["vdev"], set()).add(row["disk"])
        return list(mirrors.values())

    def report(self) -> dict[str, Any]:
        """The pool's health as the module reports it."""
        [report] = self.pool(state="status")["pools"]
        return dict(report)
