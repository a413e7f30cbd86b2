"""Bring what is new of a source to its remote, compare it there, and list what the source holds."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from collectors.offsite.config import Copy, Offsite
from collectors.offsite.errors import OffsiteError
from collectors.offsite.ledger import (
    Entry,
    State,
    digest_of,
    entries_of,
    look,
    new_index,
    read_state,
    write_state,
)
from collectors.offsite.rclone import rclone_of
from collectors.offsite.remote import FILES, Remote


class Copied(Struct, frozen=True):
    """What became of a copy: files and bytes brought now, files that were there, and what is wrong with others."""

    copy: str
    written: int
    bytes: int
    kept: int
    index: str
    problems: list[str]


@contextmanager
def opened(offsite: Offsite, name: str) -> Iterator[Remote]:
    """A copy's remote, for one run at a time; raises OffsiteError where another is at work, or left rclone at work."""
    copy = offsite.copy(name)
    offsite.state.mkdir(parents=True, exist_ok=True)
    with (offsite.state / f"{name}.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OffsiteError(
                f"another run works on the off-site copy {name}: wait for it; it may be ended at any moment"
            ) from None
        with rclone_of(offsite, lock.fileno()) as rclone:
            yield Remote(rclone, copy)


def copy_source(offsite: Offsite, name: str) -> Copied:
    """Copy what the remote has not; nothing that is there is changed, but what an earlier run left half written.

    May be killed at any moment: the next run goes on. What cannot be copied (a file that was written again although
    its copy keeps no versions, an object of other content) is told, and everything else is copied.
    """
    state_path = offsite.state / f"{name}.json"
    with opened(offsite, name) as remote:
        state = read_state(state_path)
        entries = entries_of(remote.copy, state)
        write_state(state_path, state)
        objects = {entry.object: entry for entry in entries}
        there = remote.rclone.sizes(remote.path(FILES))
        problems = _rewritten(state, objects) if not remote.copy.versions else {}
        unsure = [
            entry
            for entry in objects.values()
            if entry.object in there
            and entry.object not in problems
            and (entry.object not in state.verified or there[entry.object] != entry.bytes)
        ]
        wrong = _wrong(remote, unsure, there)
        _note_verified(state, [entry for entry in unsure if entry.object not in wrong])
        torn = {found for found in wrong if found in state.pending}
        problems |= {found: problem for found, problem in wrong.items() if found not in torn}
        missing = [entry for entry in objects.values() if entry.object not in there or entry.object in torn]
        missing = [entry for entry in missing if entry.object not in problems]
        problems |= _bring(remote, state, state_path, missing, torn)
        whole = [entry for entry in entries if entry.object not in problems]
        _list(remote, state, whole)
        write_state(state_path, state)
    brought = [entry for entry in missing if entry.object not in problems]
    return Copied(
        name,
        len(brought),
        sum(entry.bytes for entry in brought),
        len(objects.keys() - problems.keys()) - len(brought),
        state.index.partition(" ")[2],
        [f"{found}: {problem}" for found, problem in sorted(problems.items())],
    )


def _rewritten(state: State, objects: dict[str, Entry]) -> dict[str, str]:
    return {
        entry.object: "the file was written again since it was copied, and the older copy is kept: set `versions: true`"
        " for a source whose files change, or find out who changed it"
        for entry in objects.values()
        if state.verified.get(entry.object, entry.sha256) != entry.sha256
    }


def _wrong(remote: Remote, entries: list[Entry], there: dict[str, int]) -> dict[str, str]:
    """What is wrong with objects that were there before: their size tells the cheap way, else they are compared."""
    wrong = {
        entry.object: f"it has {there[entry.object]:,} bytes on the remote and {entry.bytes:,} here: remove one"
        for entry in entries
        if there[entry.object] != entry.bytes
    }
    same_size = [entry for entry in entries if entry.object not in wrong]
    return wrong | {
        finding.object: f"{finding.problem}, and no run of this host wrote it: remove or rename it on the remote"
        for finding in remote.differing(same_size)
    }


def _bring(remote: Remote, state: State, state_path: Path, missing: list[Entry], torn: set[str]) -> dict[str, str]:
    """Write the missing objects and compare each; returns what went wrong with which."""
    if not missing:
        return {}
    # From here on these names are ours: whatever a killed run leaves under them may be replaced.
    state.pending |= {entry.object: entry.sha256 for entry in missing}
    write_state(state_path, state)
    remote.remove(sorted(torn))
    remote.add(remote.copy.source, missing)
    changed = {entry.object for entry in missing if not _is_same(remote.copy, state, entry)}
    wrong = {finding.object: finding.problem for finding in remote.differing(missing)}
    # Written again under our hands: the object may be of either content, so it does not stay under this name.
    remote.remove(sorted(changed & wrong.keys()))
    _note_verified(state, [entry for entry in missing if entry.object not in wrong])
    return {
        found: "it was written again while it was copied: the next run copies it"
        if found in changed
        else f"{problem}, just after it was written: the next run writes it again"
        for found, problem in wrong.items()
    }


def _is_same(copy: Copy, state: State, entry: Entry) -> bool:
    known = state.hashes[entry.path]
    try:
        return look(copy.source / entry.path) == (known.bytes, known.mtime_ns, known.inode)
    except FileNotFoundError:
        return False


def _note_verified(state: State, entries: list[Entry]) -> None:
    for entry in entries:
        state.verified[entry.object] = entry.sha256
        state.pending.pop(entry.object, None)


def _list(remote: Remote, state: State, entries: list[Entry]) -> None:
    """Add a list where it says something new."""
    digest = digest_of(entries)
    names = remote.index_names()
    newest = names[-1] if names else None
    if state.index == f"{digest} {newest}":
        return
    if newest is not None and digest_of(remote.index(newest).files) == digest:
        state.index = f"{digest} {newest}"
        return
    index = new_index(entries, newest)
    remote.add_index(index)
    state.index = f"{digest} {index.name}"
