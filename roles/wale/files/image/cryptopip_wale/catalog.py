"""The base backups in the store: which are complete, and what each consists of."""

from __future__ import annotations

import fcntl
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cryptopip_wale.durable import make_folder
from cryptopip_wale.errors import WaleError
from cryptopip_wale.store import BASE, SENTINEL, Store

NAME = re.compile(r"base_[0-9A-F]{24}_[0-9A-F]{8}")
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


def sentinel_path(name: str) -> str:
    """WAL-E's sign that a backup is complete; written last, removed first."""
    return f"{BASE}/{name}{SENTINEL}"


def manifest_path(name: str) -> str:
    """What a backup consists of: beside WAL-E's folders, which it lists and cleans by its own rules."""
    return f"manifests/{name}.json"


def verdict_path(name: str) -> str:
    """The answer of the last verification."""
    return f"verified/{name}.json"


def start_segment(name: str) -> str:
    """Name of the WAL segment a backup starts in, which WAL-E makes part of the backup's name."""
    return name.split("_")[1]


def write_json(store: Store, path: str, value: object) -> None:
    """Put a JSON document into the store, durably."""
    store.put(path, io.BytesIO(json.dumps(value, indent=1, sort_keys=True).encode()))


@contextmanager
def exclusive(store: Store) -> Iterator[None]:
    """One push or removal at a time; the lock goes with its process, however that ends."""
    make_folder(store.lock.parent)
    with store.lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WaleError("busy", f"another backup-push or delete holds {store.lock}: wait for it to end") from None
        yield


def complete_names(store: Store) -> list[str]:
    """Names of all backups that have their sentinel, also those whose manifest is lost."""
    return sorted(name.removesuffix(SENTINEL) for name in store.names(BASE) if name.endswith(SENTINEL))


def read_manifest(store: Store, name: str) -> Manifest:
    """The manifest of a complete backup; ``not_found`` for any other, ``corrupt`` where it is no longer a manifest."""
    path = manifest_path(name)
    if not NAME.fullmatch(name) or store.size(sentinel_path(name)) is None:
        raise WaleError("not_found", f"no complete backup is named {name!r}: see cryptopip-wale list")
    try:
        manifest: Manifest = json.loads(store.read(path))
        complete = manifest["name"] == name and all(field in manifest for field in (*FIELDS, "parts", "tablespaces"))
    except FileNotFoundError:
        problem = "missing"
    except (ValueError, TypeError, KeyError) as error:
        problem = f"is no manifest: {error!r}"
    else:
        if complete:
            return manifest
        problem = f"is not the manifest of {name}"
    problems = [{"object": path, "problem": problem}]
    raise WaleError("corrupt", f"{name} cannot be checked, its manifest {path} {problem}", problems)


def describe(store: Store, manifest: Manifest) -> dict[str, Any]:
    """One row of the list; ``verified`` is null where nobody has verified it yet."""
    try:
        verdict = json.loads(store.read(verdict_path(manifest["name"])))
    except FileNotFoundError:
        verdict = {}
    return {field: manifest[field] for field in FIELDS} | {
        "verified": verdict.get("verified"),
        "verified_at": verdict.get("verified_at"),
    }


def list_backups(store: Store) -> tuple[list[dict[str, Any]], list[str]]:
    """Complete backups, oldest end first (so a newer timeline is newer), and the names of those without a manifest."""
    rows, unreadable = [], []
    for name in complete_names(store):
        try:
            rows.append(describe(store, read_manifest(store, name)))
        except WaleError as error:
            if error.code != "corrupt":
                raise
            unreadable.append(name)  # told apart, never dropped: retention keeps it and its WAL
    return sorted(rows, key=lambda row: (row["finished_at"], row["name"])), unreadable
