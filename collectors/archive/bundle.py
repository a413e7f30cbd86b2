"""A month's folder as one ``.tar.gz`` beside it: what goes off-site in one piece."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from pathlib import Path
from typing import IO, cast

from collectors.archive.gzip_csv import GzipWriter
from collectors.archive.manifest import MANIFEST, Manifest, read_manifest
from collectors.archive.month import Month
from collectors.files import replace_file

_PIECE = 1 << 20
_BROKEN = (tarfile.TarError, EOFError, zlib.error, OSError)


def bundle_name(month: Month) -> str:
    """Its file name, as in ``2026-11.tar.gz``."""
    return f"{month.name}.tar.gz"


def bundle_month(root: Path, month: Month) -> bool:
    """Write it where the one that is there is not of this manifest; returns whether it was written.

    The same folder gives the same bytes. The manifest is its first member, so that it is quickly compared.
    """
    folder, path = root / month.name, root / bundle_name(month)
    manifest = read_manifest(folder)
    assert manifest is not None, "a month is bundled once it is exported"
    if _manifest_within(path) == (folder / MANIFEST).read_bytes():
        return False
    for left in root.glob(f".{path.name}.*.tmp"):
        left.unlink()
    with replace_file(path) as file:
        writer = GzipWriter(file, stored=True)
        with tarfile.open(fileobj=cast(IO[bytes], writer), mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for name in _names(manifest):
                with (folder / name).open("rb") as member:
                    info = tarfile.TarInfo(f"{month.name}/{name}")
                    info.size = (folder / name).stat().st_size
                    info.mtime = int(manifest.snapshot_at.timestamp())
                    tar.addfile(info, member)
        writer.finish()
    return True


def bundle_problem(root: Path, month: Month, manifest: Manifest) -> str | None:
    """What is wrong with a month's bundle, None where it holds the files that the manifest names, byte for byte."""
    path = root / bundle_name(month)
    if not path.is_file():
        return "it is not there"
    if _manifest_within(path) != (root / month.name / MANIFEST).read_bytes():
        return "it is damaged, or of another state of the folder"
    expected = {f"{month.name}/{entry.file}": entry.sha256 for entry in manifest.entries}
    try:
        with gzip.open(path, "rb") as file:
            with tarfile.open(fileobj=file, mode="r|") as tar:
                found = {info.name: _sha256(member) for info in tar if (member := tar.extractfile(info)) is not None}
            while file.read(_PIECE):
                pass  # up to the end, where the checksum of it all stands
    except _BROKEN as error:
        return f"it is damaged ({error})"
    found.pop(f"{month.name}/{MANIFEST}", None)
    if wrong := sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)):
        return f"{', '.join(wrong)} in it is not what the manifest says"
    return None


def _names(manifest: Manifest) -> list[str]:
    return [MANIFEST, *(entry.file for entry in manifest.entries)]


def _manifest_within(path: Path) -> bytes | None:
    """That of a bundle, None where there is none or it cannot be read."""
    if not path.is_file():
        return None
    try:
        with tarfile.open(path, "r|gz") as tar:
            first = tar.next()
            member = tar.extractfile(first) if first is not None else None
            return member.read() if member is not None else None
    except _BROKEN:
        return None


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while piece := file.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest()
