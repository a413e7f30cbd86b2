"""What ``logical_backup`` writes beside a dump, and ``tuned_restore`` compares a restored database with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FORMAT = 1
NAME = "manifest.json"


class ManifestError(Exception):
    """A manifest cannot be read, or files are not those it tells of: what was found, expected, and what to do."""


@dataclass(frozen=True)
class File:
    """A file of the dump; ``name`` is relative to the folder of the manifest, ``size`` in bytes."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Hypertable:
    """A hypertable as the snapshot had it; ``digest_rows`` and ``digest_hash`` are the datalake's, None elsewhere."""

    rows: int
    chunks: int
    digest_rows: int | None = None
    digest_hash: str | None = None


@dataclass(frozen=True)
class Manifest:
    """A dump: times are ISO 8601 in UTC, ``rows`` are of each table that it holds, as SQL names it.

    ``sha256`` is that of the dump as a whole, ``checksum_of_lines`` for a folder; ``files`` has the globals too.
    ``merged_until``: what was received before is in it; None for what is no datalake.
    """

    database: str
    snapshot_at: str
    finished_at: str
    system_identifier: str
    postgresql: str
    timescaledb: str | None
    migrations: tuple[str, ...]
    format: str
    compression: str
    dump: str
    sha256: str
    database_bytes: int
    files: tuple[File, ...]
    rows: Mapping[str, int]
    hypertables: Mapping[str, Hypertable]
    merged_until: str | None

    @property
    def dump_files(self) -> list[File]:
        """The files that are the dump itself."""
        return [file for file in self.files if file.name == self.dump or file.name.startswith(f"{self.dump}/")]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put it into the folder; making it durable is the caller's."""
    text = json.dumps({"manifest": FORMAT, **asdict(manifest)}, indent=1, ensure_ascii=False)
    (folder / NAME).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in the folder, None where there is none. Raises ManifestError where it is not one of ours."""
    path = folder / NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fields: dict[str, Any] = json.loads(text)
        if fields.pop("manifest") != FORMAT:
            raise ManifestError(f"{path} is of another release's format, expected {FORMAT}: use the release it is of.")
        files = tuple(File(**file) for file in fields.pop("files"))
        hypertables = {name: Hypertable(**told) for name, told in fields.pop("hypertables").items()}
        migrations = tuple(fields.pop("migrations"))
        return Manifest(files=files, hypertables=hypertables, migrations=migrations, **fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ManifestError(
            f"{path} is no manifest of a dump ({error!r}): bring it back from a copy, or remove it to restore without "
            "knowing whether the dump is what was written."
        ) from error


def manifest_of(dump: Path) -> tuple[Path, Manifest | None]:
    """The dump itself and its manifest, for the path of a dump or of the folder that holds both."""
    if (dump / NAME).is_file():
        manifest = read_manifest(dump)
        assert manifest is not None
        return dump / manifest.dump, manifest
    beside = read_manifest(dump.parent)
    return dump, beside if beside is not None and beside.dump == dump.name else None


def checksum_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum_of_lines(files: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over the lines that sha256sum prints for the files of a folder: (name, SHA-256), by name."""
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def file_problems(folder: Path, files: Iterable[File]) -> list[str]:
    """What is not so of the files, a line each; reads all of them."""
    problems = []
    for file in files:
        path = folder / file.name
        if not path.is_file():
            problems.append(f"{file.name} is not there")
        elif path.stat().st_size != file.size:
            problems.append(f"{file.name} has {path.stat().st_size} bytes, expected {file.size}")
        elif (found := checksum_of(path)) != file.sha256:
            problems.append(f"{file.name} has the SHA-256 {found}, expected {file.sha256}")
    return problems


def row_problems(expected: Mapping[str, int], found: Mapping[str, int]) -> list[str]:
    """Tables whose rows in the dump are not those that were counted, a line each."""
    return [
        f"{table} has {found.get(table, 'no')} rows in the dump, expected {expected.get(table, 'no')}"
        for table in sorted(expected.keys() | found.keys())
        if expected.get(table) != found.get(table)
    ]
