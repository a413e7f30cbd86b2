"""Removal of base backups and of the WAL that no remaining one needs. A crash half-way leaves nothing half listed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptopip_wale.catalog import complete_names, exclusive, list_backups, read_manifest, sentinel_path, start_segment
from cryptopip_wale.durable import remove_durably, sync_folder
from cryptopip_wale.errors import WaleError
from cryptopip_wale.verification import check, verify


def unneeded_wal(archived: Sequence[str], remaining: Sequence[str]) -> list[str]:
    """Archived files older than every remaining backup's start; none where no backup remains.

    Positions in the WAL only grow, across timelines too, so the position alone decides. History files stay.
    """
    if not remaining:
        return []
    first = min(start_segment(name)[8:] for name in remaining)
    return [name for name in archived if not name.endswith(".history") and name[8:24] < first]


def archived_names(root: Path) -> list[str]:
    """Every archived file of WAL, by the name the server gave it."""
    return sorted(path.name.removesuffix(".lzo") for path in (root / "wal_005").glob("*.lzo"))


def trim_wal(root: Path) -> list[str]:
    """Remove WAL that no complete backup needs; the names. Holds the lock."""
    names = unneeded_wal(archived_names(root), complete_names(root))
    for name in names:
        (root / "wal_005" / f"{name}.lzo").unlink(missing_ok=True)
    if names:
        sync_folder(root / "wal_005")
    return names


def sweep(root: Path) -> None:
    """Remove what belongs to no complete backup: the rest of removals and of pushes that died. Holds the lock."""
    base = root / "basebackups_005"
    for folder in base.glob("base_*"):
        if folder.is_dir() and not sentinel_path(root, folder.name).exists():
            shutil.rmtree(folder)
            sync_folder(base)
    for path in [*(root / "verified").glob("base_*.json"), *(root / "manifests").glob("base_*.json")]:
        if not sentinel_path(root, path.stem).exists():
            remove_durably(path)


def _remove(root: Path, names: Sequence[str]) -> list[str]:
    for name in names:
        remove_durably(sentinel_path(root, name))
    sweep(root)
    return trim_wal(root)


def delete(root: Path, name: str, *, dry_run: bool = False) -> dict[str, Any]:
    """Remove one backup, but never the only verified one, and the WAL that no other needs; what was, or would be."""
    with exclusive(root):
        read_manifest(root, name)
        rows, unreadable = list_backups(root)
        others = [row["name"] for row in rows if row["name"] != name]
        if not any(row["verified"] for row in rows if row["name"] != name):
            raise WaleError(
                "last_verified", f"no other backup than {name} is verified, expected one: verify another first"
            )
        if dry_run:
            return {"removed": [name], "removed_wal": unneeded_wal(archived_names(root), [*others, *unreadable])}
        return {"removed": [name], "removed_wal": _remove(root, [name])}


def retain(root: Path, keep: int, *, dry_run: bool) -> dict[str, Any]:
    """Keep the newest ``keep`` backups and the WAL they need; what was, or would be, removed.

    Reads the newest through first: where it is not whole, nothing is removed, and ``corrupt`` says what is wrong.
    """
    if keep < 1:
        raise WaleError("usage", f"retain {keep} would leave nothing, expected at least 1")
    with exclusive(root):
        rows, unreadable = list_backups(root)
        if not rows:
            raise WaleError("not_found", "there is no complete backup, so nothing may be removed")
        names = [row["name"] for row in rows]
        kept, doomed = names[-keep:], names[:-keep]
        answer = {"kept": kept, "unreadable": unreadable, "removed": doomed}
        if dry_run:
            check(root, kept[-1])
            return answer | {"removed_wal": unneeded_wal(archived_names(root), [*kept, *unreadable])}
        verify(root, kept[-1])
        return answer | {"removed_wal": _remove(root, doomed)}
