"""Whether the files beside the months' own, Parquet and Tardis', are those that were written, and of what there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psycopg

from collectors.archive.errors import ArchiveError
from collectors.archive.manifest import Digest
from collectors.archive.month import Month
from collectors.archive.parts import FOLDER, list_path, partitions, read_parts
from collectors.archive.tardis import INDEX, day_files, index_of
from collectors.archive.verify import Finding, WrittenFile, file_problem


class _Listed(NamedTuple):
    """A file as the list has it that was written with it; ``path`` is below the archive's folder."""

    path: str
    folder: Path
    known: WrittenFile
    digest: Digest


class _Format(Protocol):
    name: str
    """Of its command, and of its folder."""

    def listed(self, root: Path, month: Month) -> Iterator[_Listed]:
        """What was written, as the lists say."""

    def there(self, root: Path, month: Month) -> Iterator[str]:
        """Paths of what lies there."""

    def wanted(self, connection: psycopg.Connection[Any], month: Month) -> Iterator[tuple[str, Digest]]:
        """What the datalake has events for."""


class _Parquet:
    name = FOLDER

    def listed(self, root: Path, month: Month) -> Iterator[_Listed]:
        for part in read_parts(root, month):
            yield _Listed(part.file, root, part, part.digest)

    def there(self, root: Path, month: Month) -> Iterator[str]:
        for path in root.glob(f"{FOLDER}/*/*/day={month.name}-*/*"):
            yield str(path.relative_to(root))

    def wanted(self, connection: psycopg.Connection[Any], month: Month) -> Iterator[tuple[str, Digest]]:
        for one in partitions(connection, month):
            yield one.file, one.digest


class _Tardis:
    name = "tardis"

    def listed(self, root: Path, month: Month) -> Iterator[_Listed]:
        for folder in sorted(self._days(root, month)):
            for file in index_of(folder).values():
                yield _Listed(str((folder / file.file).relative_to(root)), folder, file, file.digest)

    def there(self, root: Path, month: Month) -> Iterator[str]:
        for folder in self._days(root, month):
            for path in folder.iterdir():
                if path.name != INDEX:
                    yield str(path.relative_to(root))

    def wanted(self, connection: psycopg.Connection[Any], month: Month) -> Iterator[tuple[str, Digest]]:
        for one in day_files(connection, month):
            yield str(one.folder(Path()) / one.file), one.digest

    @staticmethod
    def _days(root: Path, month: Month) -> Iterator[Path]:
        return root.glob(f"tardis/*/*/{month.year:04}/{month.number:02}/*")


def verify_formats(root: Path, month: Month, connection: psycopg.Connection[Any] | None) -> list[Finding]:
    """Read every file of the month in the formats that the archive has, and ask the datalake where there is one."""
    return [finding for one in (_Parquet(), _Tardis()) for finding in _verify(one, root, month, connection)]


def _verify(kind: _Format, root: Path, month: Month, connection: psycopg.Connection[Any] | None) -> Iterator[Finding]:
    if not (root / kind.name).is_dir():
        return
    again = f"`cryptopip archive {kind.name}` writes it again"
    try:
        listed = {one.path: one for one in kind.listed(root, month)}
    except ArchiveError as error:
        yield Finding(month.name, list_path(root, month).name, str(error))
        return
    there = {path for path in kind.there(root, month) if not path.endswith(".tmp")}
    for path in sorted(there - listed.keys()):
        yield Finding(month.name, path, f"no list of the archive knows this file: remove it, or {again} and lists it")
    wanted = None if connection is None else dict(reversed(list(kind.wanted(connection, month))))
    for path in sorted(listed.keys() | (wanted or {}).keys()):
        problem = file_problem(listed[path].folder, listed[path].known, again) if path in listed else None
        if problem is not None:
            yield Finding(month.name, path, problem)
        elif wanted is not None:
            yield from _compared(month, path, listed.get(path), wanted.get(path), again)


def _compared(month: Month, path: str, listed: _Listed | None, now: Digest | None, again: str) -> Iterator[Finding]:
    if now is None:
        yield Finding(
            month.name,
            path,
            "the archive has it, and the datalake has no rows of it: find out who took them away; the file stays until"
            " somebody removes it",
        )
    elif listed is None:
        problem = f"the datalake has {now.rows:,} rows of it, the archive has none: {again}"
        yield Finding(month.name, path, problem, newer=True)
    elif now.rows != listed.digest.rows:
        problem = f"{listed.digest.rows:,} rows in the archive, {now.rows:,} in the datalake: {again}"
        yield Finding(month.name, path, problem, newer=now.rows > listed.digest.rows)
    elif now != listed.digest:
        yield Finding(month.name, path, f"{now.rows:,} rows in both, with other content: {again}")
