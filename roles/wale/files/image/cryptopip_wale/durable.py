"""Files that are there after a crash: written beside, fsync'd, renamed, the folder fsync'd."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

BLOCK = 1 << 20  # bytes


def sync_folder(folder: Path) -> None:
    """Make what was renamed or removed in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """``mkdir -p`` whose every new folder survives a crash."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)


def write_durably(path: Path, source: BinaryIO, scratch: Path) -> tuple[int, str]:
    """Put the bytes of ``source`` at ``path``, wholly or not at all; size in bytes and SHA-256.

    ``scratch`` is on the same file system; what a crash leaves there is nobody's.
    """
    make_folder(path.parent)
    make_folder(scratch)
    digest, size = hashlib.sha256(), 0
    descriptor, name = tempfile.mkstemp(dir=scratch)
    try:
        with os.fdopen(descriptor, "wb") as target:
            while block := source.read(BLOCK):
                digest.update(block)
                size += len(block)
                target.write(block)
            target.flush()
            os.fsync(target.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return size, digest.hexdigest()


def adopt_durably(path: Path, source: BinaryIO) -> tuple[int, str]:
    """Give the temporary file ``source``, on the same file system, the name ``path``, wholly or not at all.

    Size in bytes and SHA-256. Spares writing a partition of a base backup twice.
    """
    make_folder(path.parent)
    source.seek(0)
    digest = hashlib.file_digest(source, "sha256").hexdigest()  # type: ignore[arg-type]  # a file, typed too narrowly
    os.fsync(source.fileno())
    size = os.fstat(source.fileno()).st_size
    linked = Path(f"{source.name}.adopted")
    linked.unlink(missing_ok=True)
    linked.hardlink_to(source.name)
    linked.replace(path)
    sync_folder(path.parent)
    return size, digest


def remove_durably(path: Path) -> None:
    """Remove a file that may be gone already."""
    if path.exists():
        path.unlink()
        sync_folder(path.parent)


def hash_file(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
