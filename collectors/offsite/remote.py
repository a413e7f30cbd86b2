"""A copy as it lies on its remote: objects compared with what they should be, and the lists beside them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from collectors.offsite.config import Copy
from collectors.offsite.errors import OffsiteError
from collectors.offsite.ledger import Entry, Index, decode, encode
from collectors.offsite.rclone import Rclone, Said, failure, list_of

FILES = "files"
INDEX = "index"
_NO_SUCH_FOLDER = 3
_MEANINGS = {
    "*": "its content is not what was copied",
    "-": "it is not what was copied",
    "+": "it is not there",
    "!": "it could not be read whole: it is damaged, or the connection failed",
}


class Finding(Struct, frozen=True):
    """An object that is not as it should be."""

    object: str
    problem: str


class Remote:
    """The two folders of a copy."""

    def __init__(self, rclone: Rclone, copy: Copy) -> None:
        self.rclone = rclone
        self.copy = copy

    def path(self, *names: str) -> str:
        """As rclone writes it."""
        base = self.copy.remote
        return "/".join([base, *names]) if not base.endswith(":") else base + "/".join(names)

    def index_names(self) -> list[str]:
        """Its lists, oldest first."""
        return sorted(self.rclone.sizes(self.path(INDEX)))

    def index(self, name: str) -> Index:
        """One of its lists."""
        with tempfile.TemporaryDirectory() as folder:
            self.rclone.do("copyto", self.path(INDEX, name), f"{folder}/{name}")
            return decode(name, (Path(folder) / name).read_bytes())

    def add_index(self, index: Index) -> None:
        """Put a list there, and read it back."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / index.name).write_bytes(encode(index))
            self.rclone.do("copy", "--immutable", folder, self.path(INDEX))
        if self.index(index.name) != index:
            raise OffsiteError(f"the list {index.name} reads differently on {self.copy.remote}: verify the copy")

    def add(self, source: Path, entries: Iterable[Entry]) -> None:
        """Write objects that are not there; the remote's own refusal to overwrite is a second guard."""
        with staged(source, entries) as folder:
            self.rclone.do("copy", "--immutable", "--copy-links", folder, self.path(FILES))

    def remove(self, objects: Iterable[str], below: str = FILES) -> None:
        """Remove objects that are there."""
        if names := list(objects):
            with list_of(names) as listed:
                self.rclone.do("delete", self.path(below), "--files-from-raw", listed)

    def differing(self, entries: list[Entry]) -> list[Finding]:
        """Objects that are not what they should be, also of the same size; as ``verify`` of the copy says."""
        if not entries:
            return []
        return self._by_hashes(entries) if self.copy.verify == "hashes" else self._by_reading(entries)

    def _by_reading(self, entries: list[Entry]) -> list[Finding]:
        with (
            list_of(f"{entry.sha256}  {entry.object}" for entry in entries) as sums,
            list_of(entry.object for entry in entries) as names,
        ):
            said = self.rclone.run(
                "check", "--checkfile", "sha256", sums, self.path(FILES), "--download", "--one-way",
                "--files-from-raw", names, "--combined", "-",
            )  # fmt: skip
        if said.code == _NO_SUCH_FOLDER:  # there is no folder of files at all
            return [Finding(entry.object, _MEANINGS["+"]) for entry in entries]
        return _findings("check", said, entries)

    def _by_hashes(self, entries: list[Entry]) -> list[Finding]:
        command = self._comparing_command()
        with staged(self.copy.source, entries) as folder, list_of(entry.object for entry in entries) as names:
            said = self.rclone.run(
                command, folder, self.path(FILES), "--copy-links", "--one-way", "--files-from-raw", names,
                "--combined", "-",
            )  # fmt: skip
        return _findings(command, said, entries)

    def _comparing_command(self) -> str:
        """That which compares hashes; raises OffsiteError where the remote keeps none: sizes alone prove nothing."""
        name = self.copy.remote.partition(":")[0]
        options = self.rclone.kinds().get(name, {})
        encrypted = options.get("type") == "crypt"
        below = options.get("remote", "") if encrypted else self.copy.remote
        features = self.rclone.do("backend", "features", below)
        if '"Hashes": []' in features or '"Hashes": null' in features:
            raise OffsiteError(
                f"{below} keeps no hashes, so that damage of the same size would not be seen: set `verify: download`"
            )
        return "cryptcheck" if encrypted else "check"


def _findings(command: str, said: Said, entries: list[Entry]) -> list[Finding]:
    marks = {name: mark for mark, _, name in (line.partition(" ") for line in said.answer.splitlines())}
    if not marks.keys() >= {entry.object for entry in entries}:
        raise failure(command, said)
    return [
        Finding(entry.object, _MEANINGS.get(marks[entry.object], "rclone could not compare it"))
        for entry in entries
        if marks[entry.object] != "="
    ]


@contextmanager
def staged(source: Path, entries: Iterable[Entry]) -> Iterator[str]:
    """A folder in which the files have the names of their objects: links, so that nothing is copied."""
    with tempfile.TemporaryDirectory(prefix="cryptopip-offsite-") as folder:
        for entry in entries:
            link = Path(folder) / entry.object
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source / entry.path)
        yield folder
