"""Whether files, manifest and datalake say the same of a month."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import psycopg
from msgspec import Struct

from collectors.archive.bundle import bundle_name, bundle_problem
from collectors.archive.database import columns_of, digest_of, months_with_data
from collectors.archive.errors import ArchiveError
from collectors.archive.manifest import MANIFEST, PROGRESS, Entry, Manifest, read_manifest
from collectors.archive.month import Month, is_month
from collectors.archive.tables import BY_NAME, TABLES

AGAIN = "`cryptopip archive export` writes it again"
_PIECE = 1 << 20


class Finding(Struct, frozen=True):
    """One thing that is not as it should be; ``what`` is a file of the month, or the month's folder itself."""

    month: str
    what: str
    problem: str


class Checked(Struct, frozen=True):
    """A month that was looked at: what its manifest promises, and what is not so."""

    month: str
    rows: int
    bytes: int
    findings: list[Finding]


def archived_months(root: Path) -> list[Month]:
    """Those that have a folder, in order; raises ArchiveError where ``root`` is none."""
    if not root.is_dir():
        raise ArchiveError(f"{root} is no folder: give that of an archive")
    return [Month.named(path.name) for path in sorted(root.iterdir()) if path.is_dir() and is_month(path.name)]


def unarchived(connection: psycopg.Connection[Any], months: list[Month]) -> list[Finding]:
    """Months of the datalake that are not among ``months``."""
    return [
        Finding(month.name, month.name, f"the datalake has data of it, the archive has none: {AGAIN}")
        for month in months_with_data(connection)
        if month not in months
    ]


def verify_month(root: Path, month: Month, connection: psycopg.Connection[Any] | None) -> Checked:
    """Read every file of the month, and ask the datalake where there is a connection to it."""
    folder = root / month.name
    try:
        manifest = read_manifest(folder)
    except ArchiveError as error:
        return Checked(month.name, 0, 0, [Finding(month.name, MANIFEST, str(error))])
    if manifest is None:
        unfinished = f"it is not there, so no export of the month was finished; {AGAIN}"
        return Checked(month.name, 0, 0, [Finding(month.name, MANIFEST, unfinished)])
    findings = _folder_findings(folder, month, manifest)
    for entry in manifest.entries:
        problems = [file_problem(folder, entry)]
        if connection is not None:
            problems.append(_database_problem(connection, month, entry))
        findings += [Finding(month.name, entry.file, problem) for problem in problems if problem]
    if problem := bundle_problem(root, month, manifest):
        findings.append(Finding(month.name, bundle_name(month), f"{problem}: {AGAIN}"))
    return Checked(
        month.name,
        sum(entry.rows for entry in manifest.entries),
        sum(entry.bytes for entry in manifest.entries),
        findings,
    )


def _folder_findings(folder: Path, month: Month, manifest: Manifest) -> list[Finding]:
    def found(what: str, problem: str) -> Finding:
        return Finding(month.name, what, problem)

    findings = []
    if manifest.month != month.name:
        findings.append(found(MANIFEST, f"it is that of {manifest.month}: bring the folder's own back"))
    if (folder / PROGRESS).exists():
        findings.append(found(PROGRESS, f"an export was interrupted here: {AGAIN}"))
    named = {entry.file for entry in manifest.entries} | {MANIFEST, PROGRESS}
    findings += [
        found(path.name, "the manifest does not know this file: remove it")
        for path in sorted(folder.iterdir())
        if path.name not in named and not path.name.endswith(".tmp")
    ]
    findings += [
        found(table.name, f"the manifest has no file of this table: {AGAIN}")
        for table in TABLES
        if manifest.entry(table.name) is None
    ]
    return findings


def file_problem(folder: Path, entry: Entry) -> str | None:
    """What is wrong with a file, None where it is byte for byte what was written."""
    path = folder / entry.file
    if not path.is_file():
        return f"the file is not there: bring it back from the off-site copy, or {AGAIN}"
    size = path.stat().st_size
    if size != entry.bytes:
        return f"{size:,} bytes, expected {entry.bytes:,}: bring it back from the off-site copy, or {AGAIN}"
    sha256 = sha256_of(path)
    if sha256 != entry.sha256:
        return (
            f"SHA-256 {sha256}, expected {entry.sha256}: remove it and bring it back from the off-site copy, or {AGAIN}"
        )
    return None


def sha256_of(path: Path) -> str:
    """In hex, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _database_problem(connection: psycopg.Connection[Any], month: Month, entry: Entry) -> str | None:
    table = BY_NAME.get(entry.table)
    if table is None:
        return "this version archives no such table: verify with the release that wrote it"
    now = digest_of(connection, table, month)
    if now.rows != entry.digest.rows:
        return f"{entry.digest.rows:,} rows in the archive, {now.rows:,} in the datalake: {AGAIN}"
    if now != entry.digest:
        return f"{now.rows:,} rows in both, with other content: {AGAIN}"
    if columns_of(connection, entry.table) != entry.columns:
        return f"the table has other columns since: {AGAIN}"
    return None
