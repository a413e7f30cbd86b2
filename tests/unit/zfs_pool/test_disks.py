"""Which disk is meant, and what it holds: pure functions over a host as lsblk, udev and blkid show it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.zfs_pool_disks import (
    Device,
    DiskError,
    Disks,
    canonical,
    identity_of_leaf,
    read_devices,
    resolve,
)
from ansible_collections.cryptopip.marketdata.plugins.module_utils.zfs_pool_status import Vdev

BY_ID = "/dev/disk/by-id"
A, B, C = (f"{BY_ID}/ata-DISK_{letter}" for letter in "ABC")


def node(
    name: str, kind: str = "disk", *children: dict[str, Any], mounts: tuple[str | None, ...] = ()
) -> dict[str, Any]:
    """A device as lsblk --json shows it."""
    return {"name": name, "type": kind, "size": 4096, "mountpoints": [*mounts], "children": [*children]}


HOST = read_devices(
    {
        "blockdevices": [
            node("/dev/sda", "disk", node("/dev/sda1", "part"), node("/dev/sda9", "part")),
            node("/dev/sdb"),
            node("/dev/sdc", "disk", node("/dev/sdc1", "part", mounts=("/boot", None))),
            node("/dev/sdd", "disk", node("/dev/mapper/vault", "crypt")),
            node("/dev/sde"),
        ]
    },
    {
        A: "/dev/sda",
        f"{A}-part1": "/dev/sda1",
        B: "/dev/sdb",
        C: "/dev/sdc",
        f"{C}-part1": "/dev/sdc1",
        f"{BY_ID}/wwn-0x5": "/dev/sdb",
        "/dev/disk/by-path/pci-1-ata-4": "/dev/sdd",
    },
    {
        "/dev/sda1": {"TYPE": "zfs_member", "USAGE": "filesystem", "LABEL": "tank", "UUID_SUB": "77"},
        "/dev/sdc1": {"TYPE": "vfat", "USAGE": "filesystem"},
        "/dev/sdd": {"TYPE": "crypto_LUKS", "USAGE": "crypto"},
        "/dev/sde": {"AMBIVALENT": "yes"},
    },
)


@pytest.mark.parametrize("name", ["sdb", "/dev/sdb", B, "ata-DISK_B", f"{BY_ID}/wwn-0x5", "wwn-0x5"])
def test_a_disk_is_one_whatever_name_it_goes_by(name: str) -> None:
    assert resolve(name, HOST) == B


def test_a_disk_without_a_serial_number_goes_by_its_place() -> None:
    assert resolve("sdd", HOST) == "/dev/disk/by-path/pci-1-ata-4"
    with pytest.raises(DiskError, match="/dev/sde has no link"):
        resolve("sde", HOST)


def test_a_partition_is_refused() -> None:
    for name in ("sda1", f"{A}-part1"):
        with pytest.raises(DiskError, match=r"is a part .* expected a whole disk"):
            resolve(name, HOST)


def test_a_disk_that_is_gone_is_known_by_what_the_pool_remembers() -> None:
    gone = frozenset({f"{BY_ID}/ata-GONE", "991"})
    assert resolve("ata-GONE", HOST, gone) == f"{BY_ID}/ata-GONE"
    assert resolve("991", HOST, gone) == "991"
    assert resolve("ata-NEVER", HOST, gone) == f"{BY_ID}/ata-NEVER"


@pytest.mark.parametrize(
    ("path", "holds"),
    [
        ("/dev/sda", ("a part of the pool tank", "2 partition(s)")),
        ("/dev/sdb", ()),
        ("/dev/sdc", ("a mount at /boot", "a file system (vfat)", "1 partition(s)")),
        ("/dev/sdd", ("a signature of crypto_LUKS", "/dev/mapper/vault (crypt)")),
        ("/dev/sde", ("several signatures at once",)),
    ],
)
def test_what_a_disk_holds(path: str, holds: tuple[str, ...]) -> None:
    assert HOST.devices[path].holds == holds


def leaf(guid: str, path: str) -> Vdev:
    return Vdev(name=path, kind="disk", state="ONLINE", guid=guid, path=path)


def test_a_disk_of_a_pool_is_known_by_its_label_then_its_link_then_its_guid() -> None:
    assert identity_of_leaf(leaf("77", "/dev/sdx1"), HOST) == A
    assert identity_of_leaf(leaf("78", f"{B}-part1"), HOST) == B
    assert identity_of_leaf(leaf("78", f"{BY_ID}/ata-GONE-part1"), HOST) == f"{BY_ID}/ata-GONE"
    # What is called sdb today may be another disk than the one the pool knew by that name.
    assert identity_of_leaf(leaf("78", "/dev/sdb1"), HOST) == "78"


def test_a_readable_name_comes_before_a_number() -> None:
    links = (f"{BY_ID}/nvme-eui.01", f"{BY_ID}/nvme-MODEL_SERIAL_1", f"{BY_ID}/nvme-MODEL_SERIAL", f"{BY_ID}/wwn-0x1")
    assert canonical(Device("/dev/nvme0n1", links=links)) == f"{BY_ID}/nvme-MODEL_SERIAL"
    assert canonical(Device("/dev/sda", links=(f"{BY_ID}/wwn-0x1",))) == f"{BY_ID}/wwn-0x1"


def test_an_empty_host_has_no_disks() -> None:
    assert Disks().find("sda") is None
    assert Disks().of_vdev("") is None
