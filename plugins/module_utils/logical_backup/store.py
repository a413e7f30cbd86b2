"""The folder of dumps. A dump is a folder with a final name, and has that only once all of it is on disk and verified.

Until then it lies in a folder that begins with a point and ends in ``.part``; on its way out, in ``.gone``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from ..dump_manifest import Manifest, ManifestError, read_manifest
from .run import BackupError

VERIFIED = "verified.json"
LOCK = ".lock"
PART, GONE = ".part", ".gone"
_NAMED = re.compile(r"(.+)_(\d{8}T\d{6}Z)")


@dataclass(frozen=True)
class Verdict:
    """The last verification: when (ISO 8601, UTC), how (contents or restore), and what was wrong, if anything."""

    at: str
    how: str
    problem: str | None = None


@dataclass(frozen=True)
class Dump:
    """A dump of the folder. ``manifest`` is None, and ``problem`` says why, where it cannot be read."""

    path: Path
    manifest: Manifest | None
    verdict: Verdict | None
    problem: str | None = None

    @property
    def name(self) -> str:
        """Its name in the folder, which sorts by time among those of a database."""
        return self.path.name

    @property
    def database(self) -> str | None:
        """Of which database it is."""
        return self.manifest.database if self.manifest else None

    @property
    def is_verified(self) -> bool:
        """Whether it was whole when it was last looked at."""
        return self.manifest is not None and self.verdict is not None and self.verdict.problem is None

    @property
    def taken_at(self) -> datetime:
        """When its snapshot was taken."""
        assert self.manifest is not None
        return datetime.fromisoformat(self.manifest.snapshot_at)


def name_of(database: str, at: datetime) -> str:
    """The final name of a dump, whatever the database is called."""
    return f"{quote(database, safe='')}_{at.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def list_dumps(folder: Path) -> list[Dump]:
    """Every dump with a final name, by database and time."""
    if not folder.is_dir():
        return []
    return [read_dump(path) for path in sorted(folder.iterdir()) if path.is_dir() and _NAMED.fullmatch(path.name)]


def read_dump(path: Path) -> Dump:
    """What its manifest and last verdict say; nothing else is read."""
    try:
        manifest = read_manifest(path)
        problem = None if manifest else f"{path} has no manifest: it is damaged, or not of logical_backup; remove it."
        return Dump(path, manifest, _read_verdict(path), problem)
    except ManifestError as error:
        return Dump(path, None, None, str(error))


def _read_verdict(path: Path) -> Verdict | None:
    try:
        return Verdict(**json.loads((path / VERIFIED).read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ManifestError(
            f"{path / VERIFIED} is no verdict ({error!r}): remove it, and verify the dump again."
        ) from error


def write_verdict(path: Path, verdict: Verdict) -> None:
    """Put the verdict into a dump's folder, durably: the old one or the new one is there, whole."""
    beside = path / f".{VERIFIED}.new"
    with beside.open("w") as file:
        json.dump(asdict(verdict), file)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path / VERIFIED)
    sync(path)


def leftovers(folder: Path) -> list[Path]:
    """Folders of dumps that were never finished, or were being removed."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.startswith(".") and path.suffix in {PART, GONE})


def begin(folder: Path, name: str) -> Path:
    """A new folder for a dump in the making, which only its owner may look into."""
    path = folder / f".{name}{PART}"
    path.mkdir(mode=0o700)
    return path


def finish(part: Path) -> Path:
    """Everything in the folder onto the disk, and only then the final name; that onto the disk too."""
    final = part.parent / part.name.removeprefix(".").removesuffix(PART)
    if final.exists():
        raise BackupError(f"{final} exists already: two dumps of one second. Run again.")
    for root, _, files in os.walk(part):
        for file in files:
            (Path(root) / file).chmod(0o600)
            sync(Path(root) / file)
        sync(Path(root))
    part.rename(final)
    sync(part.parent)
    return final


def remove(path: Path) -> None:
    """Remove a dump: first its name, durably, then its files, so that half of it is never taken for a dump."""
    gone = path.parent / f".{path.name}{GONE}"
    path.rename(gone)
    sync(path.parent)
    shutil.rmtree(gone)


def sync(path: Path) -> None:
    """Have a file, or a folder's entries, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def only_one(folder: Path, *, check: bool) -> Iterator[None]:
    """One run at a time for a folder of dumps. Raises BackupError where another is at work."""
    if check and not folder.is_dir():
        yield
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BackupError(f"another dump is at work in {folder}: wait for its end.") from error
        yield
