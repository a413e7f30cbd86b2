"""Whether what the lists promise is on the remote, byte for byte."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from collectors.offsite.config import Offsite
from collectors.offsite.copy import opened
from collectors.offsite.errors import OffsiteError
from collectors.offsite.ledger import Entry, entries_of, read_state, write_state
from collectors.offsite.remote import FILES, Finding, Remote


class Verified(Struct, frozen=True):
    """What was looked at: objects and bytes, what is wrong, and files of the source that no list has yet."""

    copy: str
    index: str
    objects: int
    bytes: int
    findings: list[Finding]
    waiting: int


def verify_copy(offsite: Offsite, name: str, *, every: bool = False) -> Verified:
    """Compare the objects of the newest list, or of ``every`` list, with what was copied.

    Where the copy compares by hashes, contents that the source no longer has are seen by their size alone. What is
    found wrong is forgotten as verified. Raises OffsiteError where there is no list.
    """
    state_path = offsite.state / f"{name}.json"
    with opened(offsite, name) as remote:
        names = remote.index_names()
        if not names:
            raise OffsiteError(f"{remote.copy.remote} has no list, so nothing was copied there yet: copy first")
        indexes = [remote.index(one) for one in (names if every else names[-1:])]
        promised = _by_object(entry for index in indexes for entry in index.files)
        state = read_state(state_path)
        here = entries_of(remote.copy, state) if remote.copy.source.is_dir() else []
        findings = _findings(remote, promised, _by_object(here))
        for finding in findings:
            state.verified.pop(finding.object, None)
        if here:
            write_state(state_path, state)
    return Verified(
        name,
        names[-1],
        len(promised),
        sum(entry.bytes for entry in promised.values()),
        findings,
        len([entry for entry in here if entry.object not in promised]),
    )


def _findings(remote: Remote, promised: dict[str, Entry], here: dict[str, Entry]) -> list[Finding]:
    entries = list(promised.values())
    if remote.copy.verify == "download":
        return remote.differing(entries)
    comparable = [entry for entry in entries if here.get(entry.object, entry) == entry and entry.object in here]
    sizes = remote.rclone.sizes(remote.path(FILES))
    rest = [entry for entry in entries if entry not in comparable]
    return [
        *remote.differing(comparable),
        *(
            Finding(entry.object, f"{sizes.get(entry.object, 'no')} bytes, expected {entry.bytes}")
            for entry in rest
            if sizes.get(entry.object) != entry.bytes
        ),
    ]


def _by_object(entries: Iterable[Entry]) -> dict[str, Entry]:
    return {entry.object: entry for entry in entries}
