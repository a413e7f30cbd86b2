"""Hosts of molecule's fleet, for the tests in molecule/default/tests."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import testinfra
from testinfra.host import Host
from testinfra.utils.ansible_runner import AnsibleRunner

INVENTORY = str(Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent)
ROOT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])


def host(name: str) -> Host:
    """A host of molecule's inventory, over ssh."""
    return testinfra.get_host(f"ansible://{name}?ansible_inventory={INVENTORY}")


def variables(name: str) -> dict[str, Any]:
    """The inventory's variables of a host."""
    return dict(AnsibleRunner(INVENTORY).get_variables(name))


def datalake(query: str) -> str:
    """The answer of a query on the datalake, unaligned."""
    return str(
        host("db1").check_output("docker exec cryptopip-timescaledb psql -XAtq -U postgres -d datalake -c %s", query)
    )


def unit(name: str, service: str, key: str) -> str:
    """A property of a systemd unit."""
    return str(host(name).check_output("systemctl show --value --property=%s %s", key, service)).strip()


def wait_until(state: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Ask until the state holds; fails, naming it, when it has not come in time."""
    deadline = time.monotonic() + seconds
    while not state():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(1)
