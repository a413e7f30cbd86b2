"""The base backups in the store: which are complete, and what each consists of."""

from __future__ import annotations

import fcntl
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptopip_wale.durable import make_folder, write_durably
from cryptopip_wale.errors import WaleError

NAME = re.compile(r"base_[0-9A-F]{24}_[0-9A-F]{8}")
_SENTINEL = "_backup_stop_sentinel.json"
FIELDS = (
    "name",
    "start_lsn",
    "stop_lsn",
    "started_at",
    "finished_at",
    "size_bytes",
    "timeline",
    "system_identifier",
)
Manifest = dict[str, Any]


def sentinel_path(root: Path, name: str) -> Path:
    """WAL-E's sign that a backup is complete; written last, removed first."""
    return root / "basebackups_005" / f"{name}{_SENTINEL}"


def manifest_path(root: Path, name: str) -> Path:
    """What a backup consists of: beside WAL-E's folders, which it lists and cleans by its own rules."""
    return root / "manifests" / f"{name}.json"


def verdict_path(root: Path, name: str) -> Path:
    """The answer of the last verification."""
    return root / "verified" / f"{name}.json"


def start_segment(name: str) -> str:
    """Name of the WAL segment a backup starts in, which WAL-E makes part of the backup's name."""
    return name.split("_")[1]


def write_json(root: Path, path: Path, value: object) -> None:
    """Put a JSON document into the store, durably."""
    write_durably(path, io.BytesIO(json.dumps(value, indent=1, sort_keys=True).encode()), root.parent / "tmp")


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """One push or removal at a time; the lock goes with its process, however that ends."""
    make_folder(root)
    with (root / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WaleError(
                "busy", f"another backup-push or delete holds {root / 'lock'}: wait for it to end"
            ) from None
        yield


def complete_names(root: Path) -> list[str]:
    """Names of all backups that have their sentinel, also those whose manifest is lost."""
    found = (root / "basebackups_005").glob(f"base_*{_SENTINEL}")
    return sorted(path.name.removesuffix(_SENTINEL) for path in found)


def read_manifest(root: Path, name: str) -> Manifest:
    """The manifest of a complete backup; ``not_found`` for any other, ``corrupt`` where it is no longer a manifest."""
    path = manifest_path(root, name)
    if not NAME.fullmatch(name) or not sentinel_path(root, name).exists():
        raise WaleError("not_found", f"no complete backup is named {name!r}: see cryptopip-wale list")
    try:
        manifest: Manifest = json.loads(path.read_bytes())
        complete = manifest["name"] == name and all(field in manifest for field in (*FIELDS, "parts", "tablespaces"))
    except FileNotFoundError:
        problem = "missing"
    except (ValueError, TypeError, KeyError) as error:
        problem = f"is no manifest: {error!r}"
    else:
        if complete:
            return manifest
        problem = f"is not the manifest of {name}"
    problems = [{"object": str(path.relative_to(root)), "problem": problem}]
    raise WaleError("corrupt", f"{name} cannot be checked, its manifest {path} {problem}", problems)


def describe(root: Path, manifest: Manifest) -> dict[str, Any]:
    """One row of the list; ``verified`` is null where nobody has verified it yet."""
    path = verdict_path(root, manifest["name"])
    verdict = json.loads(path.read_text()) if path.exists() else {}
    return {field: manifest[field] for field in FIELDS} | {
        "verified": verdict.get("verified"),
        "verified_at": verdict.get("verified_at"),
    }


def list_backups(root: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Complete backups, oldest end first (so a newer timeline is newer), and the names of those without a manifest."""
    rows, unreadable = [], []
    for name in complete_names(root):
        try:
            rows.append(describe(root, read_manifest(root, name)))
        except WaleError:
            unreadable.append(name)  # told apart, never dropped: retention keeps it and its WAL
    return sorted(rows, key=lambda row: (row["finished_at"], row["name"])), unreadable
