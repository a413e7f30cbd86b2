"""One machine for all tests of ZFS; CRYPTOPIP_TEST_VM names one that runs already and shall stay."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.zfs.machine import Machine


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with six empty disks and ZFS loaded."""
    kept = os.environ.get("CRYPTOPIP_TEST_VM")
    machine = Machine(kept or f"test-{os.getpid()}", tmp_path_factory.mktemp("zfs"))
    try:
        machine.vm("up", "--disks", "6")
        yield machine
    finally:
        if not kept:
            machine.vm("down")
