"""Removal of base backups and of the WAL that no remaining one needs. A crash half-way leaves nothing half listed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cryptopip_wale.archive import archived_files, archived_name
from cryptopip_wale.catalog import (
    complete_names,
    exclusive,
    list_backups,
    read_manifest,
    sentinel_path,
    start_segment,
)
from cryptopip_wale.errors import WaleError
from cryptopip_wale.store import BASE, Store
from cryptopip_wale.verification import check, verify


def unneeded_wal(archived: Sequence[str], remaining: Sequence[str]) -> list[str]:
    """Archived files older than every remaining backup's start; none where no backup remains.

    Positions in the WAL only grow, across timelines too, so the position alone decides. History files stay.
    """
    if not remaining:
        return []
    first = min(start_segment(name)[8:] for name in remaining)
    return [name for name in archived if not name.endswith(".history") and name[8:24] < first]


def trim_wal(store: Store) -> list[str]:
    """Remove WAL that no complete backup needs; the names. Holds the lock."""
    names = unneeded_wal(archived_files(store), complete_names(store))
    if names:
        store.remove_all([archived_name(name) for name in names])
    return names


def sweep(store: Store, removed: Sequence[str] | None = None) -> None:
    """Remove what belongs to no complete backup: the rest of removals and of pushes that died. Holds the lock.

    The lock is this host's, and a removal may run on another than the pushes: with ``removed`` only these go, and what
    is older than the newest complete backup: no push is at work on that. Names sort by timeline, then position.
    """
    complete = set(complete_names(store))
    newest = max(complete, default="")

    def is_left(name: str) -> bool:
        if not name.startswith("base_") or name in complete:
            return False
        return removed is None or name in removed or name < newest

    for name in store.folders(BASE):
        if is_left(name):
            store.remove_folder(f"{BASE}/{name}")
    for folder in ("verified", "manifests"):
        for name in store.names(folder):
            if is_left(name.removesuffix(".json")):
                store.remove(f"{folder}/{name}")


def _remove(store: Store, names: Sequence[str]) -> list[str]:
    for name in names:
        store.remove(sentinel_path(name))
    sweep(store, names)
    return trim_wal(store)


def delete(store: Store, name: str, *, dry_run: bool = False) -> dict[str, Any]:
    """Remove one backup, but never the only verified one, and the WAL that no other needs; what was, or would be."""
    with exclusive(store):
        read_manifest(store, name)
        rows, unreadable = list_backups(store)
        others = [row["name"] for row in rows if row["name"] != name]
        if not any(row["verified"] for row in rows if row["name"] != name):
            raise WaleError(
                "last_verified", f"no other backup than {name} is verified, expected one: verify another first"
            )
        if dry_run:
            return {"removed": [name], "removed_wal": unneeded_wal(archived_files(store), [*others, *unreadable])}
        return {"removed": [name], "removed_wal": _remove(store, [name])}


def retain(store: Store, keep: int, *, dry_run: bool) -> dict[str, Any]:
    """Keep the newest ``keep`` backups and the WAL they need; what was, or would be, removed.

    Reads the newest through first: where it is not whole, nothing is removed, and ``corrupt`` says what is wrong.
    """
    if keep < 1:
        raise WaleError("usage", f"retain {keep} would leave nothing, expected at least 1")
    with exclusive(store):
        rows, unreadable = list_backups(store)
        if not rows:
            raise WaleError("not_found", "there is no complete backup, so nothing may be removed")
        names = [row["name"] for row in rows]
        kept, doomed = names[-keep:], names[:-keep]
        answer = {"kept": kept, "unreadable": unreadable, "removed": doomed}
        if dry_run:
            check(store, kept[-1])
            return answer | {"removed_wal": unneeded_wal(archived_files(store), [*kept, *unreadable])}
        verify(store, kept[-1])
        return answer | {"removed_wal": _remove(store, doomed)}
