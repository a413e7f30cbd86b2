"""Which disk is meant, whatever name it goes by, and what a disk holds.

Pure: works on a picture of the host's disks that zfs_pool_host takes. A disk is called by its canonical path, one of
its links in /dev/disk/by-id; kernel names such as /dev/sda change from boot to boot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from ansible_collections.cryptopip.marketdata.plugins.module_utils.zfs_pool_status import Vdev

BY_ID = "/dev/disk/by-id"
BY_PATH = "/dev/disk/by-path"
PREFERRED = ("ata-", "nvme-", "scsi-", "virtio-", "usb-", "")
"""Links that show model and serial number come before those that show only a number, such as wwn- and nvme-eui."""
NUMBERS = ("wwn-", "nvme-eui.", "nvme-nvme.", "nvme-uuid.", "scsi-3")
PART = re.compile(r"-part\d+$")


class DiskError(Exception):
    """A disk cannot be used as asked: what was found, what was expected, what to do."""


@dataclass(frozen=True)
class Device:
    """A block device as the kernel names it: its size in bytes, its links, what it holds, vdevs of ZFS on it."""

    path: str
    kind: str = "disk"
    size: int = 0
    links: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    vdev_guids: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Disks:
    """The host's block devices by kernel name; ``real`` leads from every link to the name behind it."""

    devices: Mapping[str, Device] = field(default_factory=dict)
    real: Mapping[str, str] = field(default_factory=dict)

    def find(self, name: str) -> Device | None:
        """The device of a path, a link, or a plain name such as sda or ata-MODEL_SERIAL; None where it is not there."""
        for path in (name,) if name.startswith("/") else (f"/dev/{name}", f"{BY_ID}/{name}", f"{BY_PATH}/{name}"):
            if device := self.devices.get(self.real.get(path, path)):
                return device
        return None

    def of_vdev(self, guid: str) -> Device | None:
        """The whole disk that carries the label of a vdev, on a partition or not."""
        disks = (device for device in self.devices.values() if device.kind == "disk")
        return next((device for device in disks if guid and guid in device.vdev_guids), None)


def _names(device: Device) -> list[str]:
    """The links that outlive a reboot: those by serial number, or else those by place."""
    of = {folder: [link for link in device.links if link.startswith(f"{folder}/")] for folder in (BY_ID, BY_PATH)}
    return of[BY_ID] or of[BY_PATH]


def has_name(device: Device) -> bool:
    """Whether ``canonical`` has an answer."""
    return bool(_names(device))


def canonical(device: Device) -> str:
    """The one path that a disk is called by; raises DiskError where no link of it outlives a reboot."""
    names = _names(device)
    if not names:
        raise DiskError(
            f"disk {device.path} has no link in {BY_ID} or {BY_PATH}, expected one that stays when kernel names "
            "change: give it a serial number, or use another disk"
        )
    return min(names, key=_rank)


def _rank(link: str) -> tuple[bool, int, int, str]:
    name = PurePosixPath(link).name
    kind = next(at for at, prefix in enumerate(PREFERRED) if name.startswith(prefix))
    return name.startswith(NUMBERS), kind, len(name), name


def identity_of_leaf(leaf: Vdev, disks: Disks) -> str:
    """What a disk of a pool is called: by the label found on it; else by the path it had; else by its guid."""
    if device := disks.of_vdev(leaf.guid):
        return canonical(device)
    if not leaf.path.startswith("/dev/disk/"):
        # A kernel name that no label confirms may by now be that of another disk.
        return leaf.guid or leaf.path
    path = PART.sub("", leaf.path)
    device = disks.find(path)
    return canonical(device) if device else path


def resolve(name: str, disks: Disks, gone: frozenset[str] = frozenset()) -> str:
    """What a disk that the operator named is called; ``gone`` are disks of the pool that are not in the host now."""
    if device := disks.find(name):
        if device.kind != "disk":
            raise DiskError(f"{name} is a {device.kind} ({device.path}), expected a whole disk: name the disk")
        return canonical(device)
    if name in gone:
        return name
    same = [disk for disk in gone if PurePosixPath(disk).name == PurePosixPath(name).name]
    if len(same) == 1:
        return same[0]
    return name if name.startswith("/") else f"{BY_ID}/{name}"


def read_devices(lsblk: Mapping[str, Any], links: Mapping[str, str], probes: Mapping[str, Mapping[str, str]]) -> Disks:
    """The picture: from lsblk's JSON tree, link -> kernel name, and per kernel name what blkid probed."""
    devices: dict[str, Device] = {}
    for node in lsblk["blockdevices"]:
        _read_node(node, links, probes, devices)
    return Disks(devices, links)


def _read_node(
    node: Mapping[str, Any],
    links: Mapping[str, str],
    probes: Mapping[str, Mapping[str, str]],
    devices: dict[str, Device],
) -> Device:
    path = node["name"]
    children = [_read_node(child, links, probes, devices) for child in node.get("children", [])]
    partitions = [child for child in children if child.kind == "part"]
    holds = [f"a mount at {place}" for place in node.get("mountpoints", []) if place]
    holds += _signature(probes.get(path, {}))
    # What is on a partition tells more than that it is one.
    holds += [what for child in partitions for what in child.holds]
    holds += [f"{len(partitions)} partition(s)"] if partitions else []
    holds += [f"{child.path} ({child.kind})" for child in children if child.kind != "part"]
    device = Device(
        path=path,
        kind=node["type"],
        size=int(node["size"]),
        links=tuple(sorted(link for link, target in links.items() if target == path)),
        holds=tuple(dict.fromkeys(holds)),
        vdev_guids=frozenset().union(*(child.vdev_guids for child in partitions), _vdev_guid(probes.get(path, {}))),
    )
    devices[path] = device
    return device


def _vdev_guid(probe: Mapping[str, str]) -> set[str]:
    return {probe["UUID_SUB"]} if probe.get("TYPE") == "zfs_member" and "UUID_SUB" in probe else set()


def _signature(probe: Mapping[str, str]) -> list[str]:
    """What blkid's low-level probe of a device found, in words."""
    kind, usage, label = probe.get("TYPE", ""), probe.get("USAGE", ""), probe.get("LABEL", "")
    if probe.get("AMBIVALENT"):
        return ["several signatures at once"]
    if kind == "zfs_member":
        return [f"a part of the pool {label}".rstrip()]
    if usage == "filesystem":
        return [f"a file system ({kind})"]
    return [f"a signature of {kind}"] if kind else []
