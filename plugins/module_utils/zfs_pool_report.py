"""The health of pools in plain values, for operators and for monitoring."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from ansible_collections.cryptopip.marketdata.plugins.module_utils.zfs_pool_disks import Disks, identity_of_leaf
from ansible_collections.cryptopip.marketdata.plugins.module_utils.zfs_pool_host import (
    NoZfsError,
    RunCommand,
    ZfsError,
    read_capacity,
    read_disks,
    read_pools,
    read_tools,
)
from ansible_collections.cryptopip.marketdata.plugins.module_utils.zfs_pool_status import PoolStatus, Scan, Vdev

DAY_S = 86400
GOOD = {"data": {"ONLINE"}, "spare": {"AVAIL", "INUSE"}}


def read_report(run: RunCommand, name: str | None, *, now: float, absent_is_empty: bool) -> list[dict[str, Any]]:
    """The report of a pool, or of all; raises ZfsError where the pool asked for is not there."""
    try:
        tools = read_tools(run)
    except NoZfsError:
        if absent_is_empty:
            return []
        raise
    pools = read_pools(run, tools)
    wanted = [pool for pool in pools if name in {None, pool.name}]
    if name is not None and not wanted and not absent_is_empty:
        there = ", ".join(pool.name for pool in pools) or "none"
        raise ZfsError(f"no pool {name} is imported, found {there}: import or create it")
    if not wanted:
        return []
    capacity, disks = read_capacity(run, tools), read_disks(run)
    return [report(pool, capacity[pool.name], disks, now) for pool in wanted]


def report(pool: PoolStatus, capacity: dict[str, str], disks: Disks, now: float) -> dict[str, Any]:
    """One pool; ``now`` is Unix time."""
    rows = [_disk(leaf, vdev, disks, replacing=replacing) for vdev in pool.vdevs for leaf, replacing in _leaves(vdev)]
    ailing = any(sum(leaf.errors) or leaf.state not in GOOD.get(leaf.group, GOOD["data"]) for leaf in pool.leaves())
    scrub_ended = pool.scan.ended if pool.scan and pool.scan.function == "scrub" else None
    return {
        "name": pool.name,
        "state": pool.state,
        "healthy": pool.state == "ONLINE" and not ailing and not pool.data_errors,
        "message": pool.message,
        **{key: int(capacity[key].rstrip("%")) for key in ("size", "allocated", "free", "capacity")},
        "data_errors": pool.data_errors,
        "scan": _scan(pool.scan) if pool.scan else None,
        "scrub_age_days": None if scrub_ended is None else round((now - scrub_ended) / DAY_S, 3),
        "disks": rows,
    }


def _leaves(vdev: Vdev, *, replacing: bool = False) -> Iterator[tuple[Vdev, bool]]:
    """Every disk below, and whether it is the old or the new one of a replacement that runs."""
    if not vdev.children:
        yield vdev, replacing
    for child in vdev.children:
        yield from _leaves(child, replacing=replacing or vdev.kind == "replacing")


def _disk(leaf: Vdev, vdev: Vdev, disks: Disks, *, replacing: bool) -> dict[str, Any]:
    read, write, checksum = leaf.errors
    return {
        "disk": identity_of_leaf(leaf, disks),
        "vdev": vdev.name,
        "group": leaf.group,
        "state": leaf.state,
        "read_errors": read,
        "write_errors": write,
        "checksum_errors": checksum,
        "replacing": replacing,
    }


def _scan(scan: Scan) -> dict[str, Any]:
    ended = datetime.fromtimestamp(scan.ended, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if scan.ended is not None else None
    return {"function": scan.function, "state": scan.state, "ended": ended, "errors": scan.errors}
