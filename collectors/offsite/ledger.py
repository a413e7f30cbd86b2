"""What a source holds, what is known of its objects, and the lists that lie beside them on the remote."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import msgspec
from msgspec import Struct

from collectors.archive.manifest import PROGRESS
from collectors.files import replace_file
from collectors.journal import is_writer_alive
from collectors.offsite.config import Copy
from collectors.offsite.errors import OffsiteError

FORMAT = 1
SUFFIX = ".json.gz"
_STAMP = "%Y%m%dT%H%M%S.%fZ"
_PIECE = 1 << 20
_TAG = 16  # hex digits of the SHA-256 in a name


class Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the source, and the object below ``files/`` that holds it."""

    path: str
    object: str
    bytes: int
    sha256: str


class Index(Struct, frozen=True, forbid_unknown_fields=True):
    """What the source held at a moment; all of it is on the remote and was compared there."""

    format: int
    taken_at: datetime
    files: list[Entry]

    @property
    def name(self) -> str:
        """Its object below ``index/``."""
        return f"{self.taken_at:{_STAMP}}{SUFFIX}"

    def below(self, prefix: str) -> list[Entry]:
        """The file of this path, or those below it; all for the empty one."""
        return [e for e in self.files if not prefix or e.path == prefix or e.path.startswith(f"{prefix}/")]


class Known(Struct, frozen=True):
    """A file's SHA-256, as long as size and time of change are these."""

    bytes: int
    mtime_ns: int
    inode: int
    sha256: str


class State(Struct):
    """What a host remembers of a copy; without it the next run reads everything again, here and there."""

    hashes: dict[str, Known] = {}
    """By path below the source."""
    verified: dict[str, str] = {}
    """SHA-256 by object, compared on the remote."""
    pending: dict[str, str] = {}
    """The same of objects that a run began to write: whatever lies there may be half of it, and is ours."""
    index: str = ""
    """Digest of the files of the newest list on the remote."""


def read_state(path: Path) -> State:
    """That of a copy, an empty one where there is none or it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=State)
    except (FileNotFoundError, msgspec.DecodeError):
        return State()


def write_state(path: Path, state: State) -> None:
    """Put it on disk, whole or not at all."""
    with replace_file(path) as file:
        file.write(msgspec.json.encode(state))


def scan(copy: Copy) -> Iterator[tuple[str, Path]]:
    """The files to copy, by their path below the source.

    A folder's own files come before what is below: a file that says that a folder is whole (the sentinel of a base
    backup) is seen first. Hidden files are temporary ones; a month that is being written waits for the next run.
    """
    if not copy.source.is_dir():
        raise OffsiteError(f"{copy.source} is no folder, so there is nothing to copy: correct `source`")
    yield from _scan(copy, copy.source)


def _scan(copy: Copy, folder: Path) -> Iterator[tuple[str, Path]]:
    if (folder / PROGRESS).exists():
        return
    folders = []
    for path in sorted(folder.iterdir()):
        name = path.relative_to(copy.source).as_posix()
        if path.name.startswith(".") or any(fnmatchcase(name, pattern) for pattern in copy.exclude):
            continue
        if path.is_symlink():
            raise OffsiteError(
                f"{path} is a symbolic link, which is not followed: name it in `exclude`, or copy it itself"
            )
        if path.is_dir():
            folders.append(path)
        elif path.is_file():
            yield name, path
    for path in folders:
        yield from _scan(copy, path)


def entries_of(copy: Copy, state: State) -> list[Entry]:
    """Every file of the source with its hash; those that changed since are read, and ``state`` keeps what was read.

    Left out is what a process still writes (a journal's open segment is locked) and what went away meanwhile.
    """
    found: list[Entry] = []
    known: dict[str, Known] = {}
    for name, path in scan(copy):
        try:
            fresh = look(path)
            old = state.hashes.get(name)
            if old is None or (old.bytes, old.mtime_ns, old.inode) != fresh:
                if is_writer_alive(path):
                    continue
                sha256 = sha256_of(path)
                if look(path) != fresh:
                    continue  # it changed while it was read; the next run sees it
                old = Known(*fresh, sha256)
        except FileNotFoundError:
            continue
        known[name] = old
        found.append(Entry(name, object_name(name, old.sha256) if copy.versions else name, old.bytes, old.sha256))
    state.hashes = known
    return found


def look(path: Path) -> tuple[int, int, int]:
    """What shows that a file was written again: size, time of change, inode."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def sha256_of(path: Path) -> str:
    """In hex, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def object_name(path: str, sha256: str) -> str:
    """The name of one content of a file: ``a/b.csv.gz`` becomes ``a/b.5f2c0a9e41b7d863.csv.gz``."""
    pure = PurePosixPath(path)
    stem, dot, suffixes = pure.name.partition(".")
    return str(pure.with_name(f"{stem}.{sha256[:_TAG]}{dot}{suffixes}"))


def digest_of(files: Iterable[Entry]) -> str:
    """One for all of them, to see whether a list would say something new."""
    return hashlib.sha256(msgspec.json.encode(sorted(files, key=lambda entry: entry.path))).hexdigest()


def new_index(files: list[Entry], newest: str | None) -> Index:
    """A list of this moment, later than the ``newest`` one whatever the clock says."""
    index = Index(FORMAT, datetime.now(UTC), files)
    if newest is not None and index.name <= newest:
        raise OffsiteError(
            f"the newest list on the remote is {newest}, and now it is {index.name}: this host's clock is wrong, or"
            " another host copies to the same place; each needs a remote folder of its own"
        )
    return index


def encode(index: Index) -> bytes:
    """As it lies on the remote."""
    return gzip.compress(msgspec.json.encode(index), mtime=0)


def decode(name: str, data: bytes) -> Index:
    """A list as it was fetched; raises OffsiteError."""
    try:
        index = msgspec.json.decode(gzip.decompress(data), type=Index)
    except (msgspec.DecodeError, OSError, EOFError) as error:
        raise OffsiteError(f"the list {name} cannot be read ({error}): take an older one with --index") from error
    if index.format != FORMAT:
        raise OffsiteError(
            f"the list {name} has format {index.format}, expected {FORMAT}: use the release that wrote it"
        )
    return index
