"""Bring files back from the remote: all, or those below a path, as they were when a list was taken."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from msgspec import Struct

from collectors.files import fsync_folder
from collectors.offsite.config import Offsite
from collectors.offsite.copy import opened
from collectors.offsite.errors import OffsiteError
from collectors.offsite.ledger import Entry, Index, sha256_of
from collectors.offsite.rclone import list_of
from collectors.offsite.remote import FILES, Remote

STAGE = ".offsite-fetch"
"""In the folder that is filled: what is not whole yet, to go on from after a crash."""


class Fetched(Struct, frozen=True):
    """What came: files and bytes, files that were there already, and the list they are of."""

    copy: str
    index: str
    written: int
    bytes: int
    present: int


def fetch(offsite: Offsite, name: str, folder: Path, *, below: str = "", at: str = "") -> Fetched:
    """Fill ``folder`` with the files of the newest list that has any ``below`` this path; ``at`` names another list.

    Every file is compared with its SHA-256 before it takes its name. Raises OffsiteError, before anything is written,
    where a file of that name and other content is there already. May be killed at any moment: the next run goes on.
    """
    with opened(offsite, name) as remote:
        index = _chosen(remote, below, at)
        wanted = index.below(below)
        present = [entry for entry in wanted if _is_there(folder, entry)]
        missing = [entry for entry in wanted if entry not in present]
        stage = folder / STAGE
        stage.mkdir(parents=True, exist_ok=True)
        with list_of({entry.object for entry in missing}) as names:
            if missing:
                remote.rclone.do("copy", remote.path(FILES), str(stage), "--files-from-raw", names)
        for entry in missing:
            _settle(stage / entry.object, folder / entry.path, entry)
        shutil.rmtree(stage)
    return Fetched(name, index.name, len(missing), sum(entry.bytes for entry in missing), len(present))


def _chosen(remote: Remote, below: str, at: str) -> Index:
    names = remote.index_names()
    if at:
        names = [name for name in names if name.startswith(at)]
    for name in reversed(names):
        index = remote.index(name)
        if index.below(below):
            return index
    what = f"anything below {below!r}" if below else "any file"
    raise OffsiteError(
        f"no list {f'{at}* ' if at else ''}on {remote.copy.remote} has {what}: it has {len(names)} lists"
        f"{f', {names[0]} to {names[-1]}' if names else ''}"
    )


def _is_there(folder: Path, entry: Entry) -> bool:
    path = folder / entry.path
    if not path.exists():
        return False
    if path.stat().st_size == entry.bytes and sha256_of(path) == entry.sha256:
        return True
    raise OffsiteError(f"{path} is there with other content: fetch into an empty folder; nothing was written")


def _settle(came: Path, path: Path, entry: Entry) -> None:
    if not came.exists():
        raise OffsiteError(f"{entry.object} is not on the remote: take an older list with --index")
    if (found := sha256_of(came)) != entry.sha256:
        came.unlink()
        raise OffsiteError(
            f"{entry.object} came with SHA-256 {found}, expected {entry.sha256}: try again; if it stays so, that of the"
            " remote is damaged: take an older list with --index"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with came.open("rb") as file:
        os.fsync(file.fileno())
    came.replace(path)
    fsync_folder(path.parent)
