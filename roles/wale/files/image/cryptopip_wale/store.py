"""Where the backups and WAL of one cluster are kept: the same words for a folder and for a bucket."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import BinaryIO, Protocol

from cryptopip_wale.config import Config
from cryptopip_wale.durable import adopt_durably, hash_file, remove_durably, sync_folder, write_durably
from cryptopip_wale.errors import WaleError
from cryptopip_wale.s3 import S3Store, list_clusters
from cryptopip_wale.wal import cluster_identifier

BASE = "basebackups_005"
SENTINEL = "_backup_stop_sentinel.json"
"""WAL-E's folder of base backups, and how its sign that one is complete ends."""


class Store(Protocol):
    """The files of one cluster by names like ``wal_005/NAME.lzo``; nothing here ever shows half a file.

    Raises FileNotFoundError for a file that a readable store lacks, and another OSError or WaleError ``store`` where
    the store does not answer: the two must never be confused, since the first ends a recovery.
    """

    @property
    def identifier(self) -> str:
        """System identifier of the cluster."""

    @property
    def url(self) -> str:
        """Of the store, without the cluster."""

    @property
    def wale_prefix(self) -> str:
        """Of the cluster, as WAL-E wants it."""

    @property
    def lock(self) -> Path:
        """A file of this host, for one push or removal at a time."""

    def names(self, folder: str) -> list[str]:
        """Names of the files directly in ``folder``, without it."""

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly in ``folder``, without it."""

    def tree(self, folder: str) -> list[str]:
        """Whole names of all files below ``folder``."""

    def has_archive(self) -> bool:
        """Whether this is the store of this cluster at all: one that is not mounted, or another's, lacks no file."""

    def size(self, name: str) -> int | None:
        """Bytes; None where it is not there."""

    def read(self, name: str) -> bytes:
        """The content."""

    def sha256(self, name: str) -> str:
        """Of the content, hexadecimal, in constant memory."""

    def put(self, name: str, source: BinaryIO, *, is_new: bool = False) -> tuple[int, str]:
        """Store all of ``source``; size and SHA-256 of what is durable when this returns.

        With ``is_new`` FileExistsError, and nothing changed, where the name is taken.
        """

    def settle(self, name: str) -> None:
        """Make a file durable that is there, but whose writer may have died."""

    def remove(self, name: str) -> None:
        """Remove a file that may be gone already."""

    def remove_all(self, names: list[str]) -> None:
        """Remove many files of one folder."""

    def remove_folder(self, folder: str) -> None:
        """Remove a folder and all below."""


class FileStore:
    """A folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.identifier = root.name
        self.url = root.parent.as_uri()
        self.wale_prefix = f"file://localhost{root}"
        self.lock = root / "lock"
        self._scratch = root.parent / "tmp"

    def names(self, folder: str) -> list[str]:
        """See Store."""
        return sorted(path.name for path in (self.root / folder).glob("*") if not path.is_dir())

    def folders(self, folder: str) -> list[str]:
        """See Store."""
        return sorted(path.name for path in (self.root / folder).glob("*") if path.is_dir())

    def tree(self, folder: str) -> list[str]:
        """See Store."""
        found = (self.root / folder).rglob("*")
        return sorted(str(path.relative_to(self.root)) for path in found if path.is_file())

    def has_archive(self) -> bool:
        """See Store."""
        return (self.root / "wal_005").is_dir()

    def size(self, name: str) -> int | None:
        """See Store."""
        try:
            return (self.root / name).stat().st_size
        except FileNotFoundError:
            return None

    def read(self, name: str) -> bytes:
        """See Store."""
        return (self.root / name).read_bytes()

    def sha256(self, name: str) -> str:
        """See Store."""
        return hash_file(self.root / name)

    def put(self, name: str, source: BinaryIO, *, is_new: bool = False) -> tuple[int, str]:
        """See Store. A temporary file of the same file system is taken as it is, not written twice."""
        if is_new and (self.root / name).exists():  # the sidecar's lock keeps all others out
            raise FileExistsError(name)
        is_ours = isinstance(getattr(source, "name", None), str) and source.name.startswith(f"{self._scratch}/")
        if is_ours:
            return adopt_durably(self.root / name, source)
        return write_durably(self.root / name, source, self._scratch)

    def settle(self, name: str) -> None:
        """See Store."""
        sync_folder((self.root / name).parent)

    def remove(self, name: str) -> None:
        """See Store."""
        remove_durably(self.root / name)

    def remove_all(self, names: list[str]) -> None:
        """See Store."""
        for name in names:
            (self.root / name).unlink(missing_ok=True)
        if names:
            sync_folder((self.root / names[0]).parent)

    def remove_folder(self, folder: str) -> None:
        """See Store."""
        shutil.rmtree(self.root / folder)
        sync_folder((self.root / folder).parent)


def clusters(config: Config) -> list[Store]:
    """The stores of all clusters of which there is anything, by their system identifiers."""
    found = list_clusters(config.s3) if config.s3 else [path.name for path in config.store.glob("*")]
    return [_store_of(config, name) for name in sorted(found) if name.isdigit()]


def has_backup(store: Store) -> bool:
    """Whether there is a complete backup of the cluster, so anything that could be restored."""
    return any(name.endswith(SENTINEL) for name in store.names(BASE))


def system_identifier(config: Config) -> str:
    """Of the cluster that is asked for; else of the one beside us; where that is lost, of the only one with backups."""
    where = f"s3://{config.s3.bucket}/{config.s3.prefix}" if config.s3 else config.store
    if wanted := config.system_identifier:
        known = [store.identifier for store in clusters(config)]
        if wanted not in known:
            raise WaleError(
                "not_found", f"{where} holds nothing of the cluster {wanted}, but of {', '.join(known) or 'none'}"
            )
        return wanted
    try:
        return cluster_identifier(config.data)
    except FileNotFoundError:
        known = [store.identifier for store in clusters(config) if has_backup(store)]
    if len(known) != 1:
        raise WaleError(
            "store",
            f"{config.data} holds no cluster and {where} holds backups of {', '.join(known) or 'none'}, "
            "expected exactly one: mount the data folder or the store, or name the cluster (system_identifier; "
            "by hand CRYPTOPIP_WALE_SYSTEM_IDENTIFIER), cryptopip-wale clusters tells of each",
        )
    return known[0]


def _store_of(config: Config, identifier: str) -> Store:
    if config.s3:
        return S3Store(config.s3, identifier, config.store)
    return FileStore(config.store / identifier)


def open_store(config: Config) -> Store:
    """The store of this cluster: one per system identifier, so no cluster writes over another's."""
    return _store_of(config, system_identifier(config))
