"""Ask a host about its pools and disks, and run ``zpool`` on it: argument lists, no shell, no guess.

Every function takes ``run``, which must set TZ=UTC and LC_ALL=C, so that text reads the same everywhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.cryptopip.marketdata.plugins.module_utils import zfs_pool_status as status
from ansible_collections.cryptopip.marketdata.plugins.module_utils.zfs_pool_disks import BY_ID, Disks, read_devices
from ansible_collections.cryptopip.marketdata.plugins.module_utils.zfs_pool_status import Importable, PoolStatus

RunCommand = Callable[[Sequence[str]], tuple[int, str, str]]
"""An argv in, return code, stdout and stderr out: AnsibleModule.run_command, without a shell."""

ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC"}
CAPACITY = ("size", "allocated", "free", "capacity", "fragmentation", "health")
JSON_SINCE = (2, 3)
BLKID_NOTHING, BLKID_AMBIVALENT = 2, 8


class ZfsError(Exception):
    """A program on the host failed; the text has what was run and what it said."""


class NoZfsError(ZfsError):
    """The host has no ZFS yet: its tools are not installed, or its kernel has not loaded it."""


@dataclass(frozen=True)
class Tools:
    """The host's zpool: its version, and whether it prints JSON."""

    version: tuple[int, int]

    @property
    def has_json(self) -> bool:
        """Whether ``-j`` is understood."""
        return self.version >= JSON_SINCE


def checked(run: RunCommand, argv: Sequence[str]) -> str:
    """The output of a program that must succeed; raises ZfsError with its words."""
    rc, stdout, stderr = run(argv)
    if rc:
        # Behind a mistake zpool prints how it is used, a page of it.
        said = " ".join((stderr.strip() or stdout.strip() or f"exit code {rc}").split("usage:")[0].split())
        raise ZfsError(f"{' '.join(argv)}: {said}")
    return stdout


def read_tools(run: RunCommand) -> Tools:
    """The version of zpool; raises NoZfsError where there is none, or the kernel has no ZFS."""
    if not any(Path(folder, "zpool").exists() for folder in ("/usr/sbin", "/sbin", "/usr/local/sbin")):
        raise NoZfsError("zpool is not installed, expected OpenZFS 2.1 or later: run the role zfs first")
    if not Path("/dev/zfs").exists():
        raise NoZfsError("the kernel has no ZFS loaded (/dev/zfs is not there): 'modprobe zfs', or run the role zfs")
    return Tools(status.parse_version(checked(run, ["zpool", "version"])))


def read_pools(run: RunCommand, tools: Tools) -> list[PoolStatus]:
    """All pools that are imported."""
    if tools.has_json:
        return status.parse_status_json(checked(run, ["zpool", "status", "-j", "--json-int", "-P"]))
    text = checked(run, ["zpool", "status", "-p", "-P"])
    if "pool:" not in text:
        return []  # it says "no pools available"
    return status.parse_status_text(text, checked(run, ["zpool", "status", "-p", "-g"]))


def read_capacity(run: RunCommand, tools: Tools) -> dict[str, dict[str, str]]:
    """Pool name -> size, allocated, free (bytes), capacity and fragmentation (percent), health."""
    columns = ",".join(CAPACITY)
    if tools.has_json:
        return status.parse_list_json(checked(run, ["zpool", "list", "-j", "-p", "-o", columns]))
    return status.parse_list_text(checked(run, ["zpool", "list", "-H", "-p", "-o", f"name,{columns}"]), CAPACITY)


def read_importable(run: RunCommand) -> list[Importable]:
    """The pools on the host's disks that are not imported."""
    rc, stdout, stderr = run(["zpool", "import", "-d", BY_ID])
    if rc and "no pools available" not in stdout + stderr:
        raise ZfsError(f"zpool import -d {BY_ID}: {' '.join(stderr.split())}")
    return status.parse_importable(stdout, BY_ID)


def read_properties(run: RunCommand, pool: str, names: Sequence[str]) -> dict[str, str]:
    """The pool's values of these properties; raises ZfsError for a name that is none."""
    if not names:
        return {}
    text = checked(run, ["zpool", "get", "-H", "-p", "-o", "property,value", ",".join(names), pool])
    return dict(line.split("\t") for line in text.splitlines())


def read_disks(run: RunCommand) -> Disks:
    """The host's disks, their links and what they hold, probed on the disks themselves, not remembered by udev."""
    columns = "NAME,TYPE,SIZE,MOUNTPOINTS"
    tree = json.loads(checked(run, ["lsblk", "--json", "--bytes", "--paths", "--output", columns]))
    links = {
        str(link): os.path.realpath(link)
        for folder in sorted(Path("/dev/disk").glob("by-*"))
        for link in sorted(folder.iterdir())
    }
    return read_devices(tree, links, _probe(run, sorted(_probed(tree["blockdevices"]))))


def _probed(nodes: Sequence[Mapping[str, Any]]) -> set[str]:
    """The disks and partitions of lsblk's tree; a drive for discs without one in it could not be probed."""
    found = {node["name"] for node in nodes if node["type"] in {"disk", "part"}}
    return found.union(*(_probed(node.get("children", [])) for node in nodes))


def _probe(run: RunCommand, paths: Sequence[str]) -> dict[str, dict[str, str]]:
    """blkid's low-level answer about each device, empty where it found nothing."""
    _, stdout, _ = run(["blkid", "--probe", "--output", "export", *paths])
    answers: dict[str, dict[str, str]] = {}
    for paragraph in stdout.split("\n\n"):
        answer = dict(line.split("=", 1) for line in paragraph.splitlines() if "=" in line)
        if "DEVNAME" in answer:
            answers[answer["DEVNAME"]] = answer
    # Of many devices it tells only of those it knows, and its exit code is that of the last one: ask the silent again.
    return {path: answers.get(path) or _probe_one(run, path) for path in paths}


def _probe_one(run: RunCommand, path: str) -> dict[str, str]:
    rc, stdout, stderr = run(["blkid", "--probe", "--output", "export", path])
    if rc == BLKID_NOTHING:
        return {}
    if rc == BLKID_AMBIVALENT:
        return {"AMBIVALENT": "yes"}
    if rc:
        raise ZfsError(f"blkid --probe {path}: {stderr.strip() or f'exit code {rc}'}")
    return dict(line.split("=", 1) for line in stdout.splitlines() if "=" in line)
