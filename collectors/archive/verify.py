"""Whether files, manifest and datalake say the same of a month."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import psycopg
from msgspec import Struct

from collectors.archive.bundle import bundle_name, bundle_problem
from collectors.archive.database import columns_of, digest_of, moment_of, months_with_data
from collectors.archive.errors import ArchiveError
from collectors.archive.manifest import MANIFEST, PROGRESS, Entry, Manifest, read_manifest
from collectors.archive.month import Month, is_month
from collectors.archive.tables import BY_NAME, TABLES

AGAIN = "`cryptopip archive export` writes it again"
_PIECE = 1 << 20


class Finding(Struct, frozen=True):
    """One thing that is not as it should be; ``what`` is a file of the month, or the month's folder itself.

    ``newer``: the files are whole, and the datalake has merged more since they were written; the next export adds it.
    """

    month: str
    what: str
    problem: str
    newer: bool = False


class WrittenFile(Protocol):
    """What is known of a file since it was written."""

    @property
    def file(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def sha256(self) -> str: ...


class Checked(Struct, frozen=True):
    """A month that was looked at: what its manifest promises, and what is not so.

    ``whole``: the files are byte for byte those of the manifest. ``held_until``: all that had been merged of the month
    before is in them; None where they are not whole, or the datalake was not asked.
    """

    month: str
    rows: int
    bytes: int
    findings: list[Finding]
    whole: bool = False
    held_until: datetime | None = None


def archived_months(root: Path) -> list[Month]:
    """Those that have a folder, in order; raises ArchiveError where ``root`` is none."""
    if not root.is_dir():
        raise ArchiveError(f"{root} is no folder: give that of an archive")
    return [Month.named(path.name) for path in sorted(root.iterdir()) if path.is_dir() and is_month(path.name)]


def unarchived(connection: psycopg.Connection[Any], months: list[Month]) -> list[Finding]:
    """Months of the datalake that are not among ``months``; one behind them all may have begun since the export."""
    return [
        Finding(
            month.name,
            month.name,
            f"the datalake has data of it, the archive has none: {AGAIN}",
            newer=bool(months) and month > months[-1],
        )
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
    differing: list[Finding] = []
    for entry in manifest.entries:
        if problem := file_problem(folder, entry):
            findings.append(Finding(month.name, entry.file, problem))
        if connection is not None and (found := _database_finding(connection, month, entry)):
            differing.append(found)
    whole = not findings
    if problem := bundle_problem(root, month, manifest):
        findings.append(Finding(month.name, bundle_name(month), f"{problem}: {AGAIN}"))
    held_until = None
    if whole and connection is not None and all(found.newer for found in differing):
        held_until = manifest.snapshot_at if differing else moment_of(connection)
    return Checked(
        month.name,
        sum(entry.rows for entry in manifest.entries),
        sum(entry.bytes for entry in manifest.entries),
        _in_order(manifest, [*findings, *differing]),
        whole,
        held_until,
    )


def _in_order(manifest: Manifest, findings: list[Finding]) -> list[Finding]:
    """What is said of the files in the order of the manifest, behind what is said of the folder; the bundle last."""
    order = {entry.file: number for number, entry in enumerate(manifest.entries)}
    bundle = f"{manifest.month}.tar.gz"
    return sorted(findings, key=lambda found: len(order) if found.what == bundle else order.get(found.what, -1))


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


def file_problem(folder: Path, entry: WrittenFile, again: str = AGAIN) -> str | None:
    """What is wrong with a file, None where it is byte for byte what was written."""
    path = folder / entry.file
    size = size_of(path)
    if size is None:
        return f"the file is not there: bring it back from the off-site copy, or {again}"
    if size != entry.bytes:
        return f"{size:,} bytes, expected {entry.bytes:,}: bring it back from the off-site copy, or {again}"
    sha256 = sha256_of(path)
    if sha256 != entry.sha256:
        return (
            f"SHA-256 {sha256}, expected {entry.sha256}: remove it and bring it back from the off-site copy, or {again}"
        )
    return None


def size_of(path: Path) -> int | None:
    """Bytes of a file, None where there is none."""
    return path.stat().st_size if path.is_file() else None


def sha256_of(path: Path) -> str:
    """In hex, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _database_finding(connection: psycopg.Connection[Any], month: Month, entry: Entry) -> Finding | None:
    table = BY_NAME.get(entry.table)
    if table is None:
        return Finding(
            month.name, entry.file, "this version archives no such table: verify with the release that wrote it"
        )
    now = digest_of(connection, table, month)
    if now.rows != entry.digest.rows:
        problem = f"{entry.digest.rows:,} rows in the archive, {now.rows:,} in the datalake: {AGAIN}"
        return Finding(month.name, entry.file, problem, newer=table.kind == "state" or now.rows > entry.digest.rows)
    if now != entry.digest:
        problem = f"{now.rows:,} rows in both, with other content: {AGAIN}"
        return Finding(month.name, entry.file, problem, newer=table.kind == "state")
    if columns_of(connection, entry.table) != entry.columns:
        return Finding(month.name, entry.file, f"the table has other columns since: {AGAIN}", newer=True)
    return None
