"""The dump as files: what it is, its checksum, and a form that pg_restore can read from several jobs."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from ..dump_manifest import Manifest, ManifestError, checksum_of, checksum_of_lines, file_problems, manifest_of
from .dump import DumpError

BLOCK = 1 << 20
UNPACKED = "dump.unpacked"
_GZIP, _ZSTD, _CUSTOM, _XZ, _BZIP2 = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PGDMP", b"\xfd7zXZ", b"BZh"
_PLAIN = b"-- PostgreSQL database dump"
_CLUSTER = b"-- PostgreSQL database cluster dump"
_HTML = (b"<!doctype html", b"<html", b"<!doctype>")


@dataclass(frozen=True)
class Source:
    """A dump: ``compression`` is none, gzip or zstd around it; ``size`` and ``sha256`` are of what lies at ``path``.

    ``manifest`` is that of ``logical_backup`` beside it, None where there is none.
    """

    path: Path
    format: str
    compression: str
    size: int
    sha256: str
    manifest: Manifest | None = None


def describe_source(path: Path) -> Source:
    """What lies there, a dump or the folder of one with its manifest; reads all of it for the checksum.

    Raises DumpError where it is no dump, or not what its manifest tells of.
    """
    try:
        dump, manifest = manifest_of(path)
    except ManifestError as error:
        raise DumpError(str(error)) from error
    source = _describe(dump)
    if manifest is not None and source.sha256 != manifest.sha256:
        problems = file_problems(dump.parent, manifest.dump_files) or ["files lie there that it does not know"]
        raise DumpError(
            f"{dump} is not what its manifest tells of: {'; '.join(problems[:3])}. It is damaged; take another, or "
            "bring the files back from a copy."
        )
    return replace(source, manifest=manifest)


def _describe(path: Path) -> Source:
    if not path.exists():
        raise DumpError(f"{path} is not there: expected a dump; check source, it is a path on the managed host.")
    if path.is_dir():
        if not (path / "toc.dat").is_file():
            raise DumpError(f"{path} is a folder without toc.dat: expected one written by pg_dump --format=directory.")
        files = sorted(file for file in path.iterdir() if file.is_file())
        size = sum(file.stat().st_size for file in files)
        sha256 = checksum_of_lines((file.name, checksum_of(file)) for file in files)
        return Source(path, "directory", "none", size, sha256)
    try:
        with path.open("rb") as file:
            head = file.read(512)
        compression = "gzip" if head.startswith(_GZIP) else "zstd" if head.startswith(_ZSTD) else "none"
        if compression != "none":
            with _unpacking(path, compression) as stream:
                head = stream.read(512)
        format_ = recognise(head, path)
        return Source(path, format_, compression, path.stat().st_size, checksum_of(path))
    except OSError as error:
        raise DumpError(f"{path} cannot be read: {error}") from error


def looks_like_html(head: bytes) -> bool:
    """Whether something begins as a web page does."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return any(text.startswith(mark) for mark in _HTML)


def recognise(head: bytes, path: Path) -> str:
    """The format of a dump by its first bytes. Raises DumpError where they are another thing's."""
    if head.startswith(_CUSTOM):
        return "custom"
    if looks_like_html(head):
        raise DumpError(
            f"{path} is an HTML page, expected a dump: the link answered a page to look at (a consent or a log-in), "
            "not the file. Fetch it with the link's direct form, or through an rclone remote."
        )
    if head.startswith((_XZ, _BZIP2)):
        raise DumpError(f"{path} is compressed by xz or bzip2, expected gzip, zstd or none: unpack it.")
    if head[257:262] == b"ustar":
        raise DumpError(f"{path} is a tar file, expected a dump in custom, directory or plain format: unpack it.")
    if _CLUSTER in head:
        raise DumpError(f"{path} is of pg_dumpall, expected a dump of one database: restore it with psql.")
    if _PLAIN in head:
        return "plain"
    raise DumpError(
        f"{path} is no dump: expected pg_dump's custom, directory or plain format, as it is or under gzip or zstd; "
        f"it begins with {head[:16]!r}."
    )


def unpack(source: Source, folder: Path) -> Path:
    """The dump without its compression; in ``folder`` where it has one, which ``remove_unpacked`` takes away.

    Raises DumpError where it is damaged or the folder has no room; then nothing is left of it.
    """
    if source.compression == "none":
        return source.path
    target = folder / UNPACKED
    try:
        with _unpacking(source.path, source.compression) as stream, target.open("wb") as file:
            shutil.copyfileobj(stream, file, BLOCK)
    except (DumpError, OSError) as error:
        target.unlink(missing_ok=True)
        if isinstance(error, DumpError):
            raise
        raise DumpError(
            f"unpacking {source.path} into {folder}: {error}. Nothing was changed; give work_path a folder with room "
            "for the unpacked dump."
        ) from error
    return target


def remove_unpacked(folder: Path) -> None:
    """Take away what ``unpack`` left, in this run or in one that was killed."""
    (folder / UNPACKED).unlink(missing_ok=True)


@contextlib.contextmanager
def _unpacking(path: Path, compression: str) -> Iterator[IO[bytes]]:
    try:
        if compression == "gzip":
            with gzip.open(path) as stream:
                yield stream  # type: ignore[misc]  # GzipFile is IO[bytes] in all but name
            return
        with _zstd(path) as stream:
            yield stream
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DumpError(f"{path} is truncated or damaged ({error}): fetch or make it again.") from error


@contextlib.contextmanager
def _zstd(path: Path) -> Iterator[IO[bytes]]:
    try:
        process = subprocess.Popen(
            ["zstd", "--decompress", "--stdout", "--quiet", "--", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise DumpError("the program zstd is not there, expected it to unpack the dump: install zstd.") from error
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        yield process.stdout
        read_all = not process.stdout.read(1)
        process.stdout.close()
        said = process.stderr.read().decode(errors="replace").strip()
        if process.wait() != 0 and read_all:
            raise DumpError(f"{path} is truncated or damaged ({said}): fetch or make it again.")


def is_below(path: Path, folder: Path) -> bool:
    """Whether a path lies in a folder, links followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
