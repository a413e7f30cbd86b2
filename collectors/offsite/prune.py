"""Remove what is old from the remote: only when asked, and never what a list that stays still names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from msgspec import Struct

from collectors.offsite.config import Offsite
from collectors.offsite.copy import opened
from collectors.offsite.errors import OffsiteError
from collectors.offsite.ledger import Index, read_state, write_state
from collectors.offsite.remote import FILES, INDEX


class Pruned(Struct, frozen=True):
    """What goes, or would go: lists, and the objects that no other list names."""

    copy: str
    indexes: list[str]
    objects: list[str]
    bytes: int
    kept_indexes: int


class Plan(Struct, frozen=True):
    """Which of the lists go, and with them which objects."""

    indexes: list[Index]
    objects: set[str]


def plan_pruning(indexes: list[Index], before: datetime) -> Plan:
    """The lists that held no longer at ``before``, and the objects that only they name. ``indexes``: oldest first.

    A list tells what the source held until the next one was taken, since a run that brings nothing takes none.
    """
    go = [index for index, after in pairwise(indexes) if after.taken_at < before]
    gone = {index.name for index in go}
    needed = {entry.object for index in indexes if index.name not in gone for entry in index.files}
    return Plan(go, {entry.object for index in go for entry in index.files} - needed)


def prune(offsite: Offsite, name: str, *, keep_days: int, dry_run: bool) -> Pruned:
    """Forget what the source held more than ``keep_days`` days ago and no longer since.

    Raises OffsiteError where the newest list is not whole there.
    """
    with opened(offsite, name) as remote:
        indexes = [remote.index(one) for one in remote.index_names()]
        there = remote.rclone.sizes(remote.path(FILES))
        lacking = [e.object for index in indexes[-1:] for e in index.files if there.get(e.object) != e.bytes]
        if lacking:
            raise OffsiteError(
                f"the newest list names {lacking[0]} and {len(lacking) - 1} more that are not whole on the remote:"
                " copy and verify first; nothing was removed"
            )
        plan = plan_pruning(indexes, datetime.now(UTC) - timedelta(days=keep_days))
        objects = sorted(plan.objects & there.keys())
        if not dry_run and plan.indexes:
            state_path = offsite.state / f"{name}.json"
            state = read_state(state_path)
            state.verified = {one: sha for one, sha in state.verified.items() if one not in plan.objects}
            write_state(state_path, state)
            remote.remove(objects)  # first: a run that ends here leaves lists by which the next one finds the rest
            remote.remove([index.name for index in plan.indexes], INDEX)
    return Pruned(
        name,
        [index.name for index in plan.indexes],
        objects,
        sum(there[one] for one in objects),
        len(indexes) - len(plan.indexes),
    )
