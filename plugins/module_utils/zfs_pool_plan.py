"""A pool of mirrors as a value: the one plan from what is to what is wanted, its refusals, and the tree a diff shows.

Pure. A disk is one string throughout: whoever calls resolves every name to one identity first. A replacement that
still resilvers counts as its new disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

MIRROR_MINIMUM_DISKS = 2

Mirror = tuple[str, ...]


class ImpossibleError(Exception):
    """An action does not fit the pool it is applied to: what was asked, and what the pool holds."""


@dataclass(frozen=True)
class Pool:
    """A pool's mirrors, the properties that were asked about, and its disks that cannot be copied from."""

    name: str
    mirrors: tuple[Mirror, ...]
    properties: Mapping[str, str] = field(default_factory=dict)
    ailing: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Named:
    """What an operator named to be given up: disks replaced (old to new), and sides detached."""

    replaced: Mapping[str, str] = field(default_factory=dict)
    detached: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Import:
    """Take in a pool that exists on the disks."""

    pool: Pool


@dataclass(frozen=True)
class Create:
    """Make the pool with all its mirrors."""

    pool: Pool


@dataclass(frozen=True)
class Replace:
    """Put a disk in another's place."""

    old: str
    new: str


@dataclass(frozen=True)
class Attach:
    """Give the mirror that holds a disk another side."""

    present: str
    new: str


@dataclass(frozen=True)
class Detach:
    """Take a side from its mirror."""

    disk: str


@dataclass(frozen=True)
class Add:
    """Grow the pool by a mirror."""

    mirror: Mirror


@dataclass(frozen=True)
class Set:
    """Give the pool's property a value."""

    name: str
    value: str


Action = Import | Create | Replace | Attach | Detach | Add | Set


@dataclass(frozen=True)
class Plan:
    """What to do in this order, or why nothing is done: never both."""

    actions: tuple[Action, ...] = ()
    refusals: tuple[str, ...] = ()


def plan_pool(
    current: Pool | None,
    wanted: Pool,
    *,
    named: Named | None = None,
    importable: Iterable[Pool] = (),
    used: Mapping[str, str] | None = None,
) -> Plan:
    """The way from the pool that is (or could be imported) to the one wanted; ``used`` says what a disk holds."""
    named, used = named or Named(), used or {}
    refusals = _refuse_wanted(wanted, named)
    found = [pool for pool in importable if pool.name == wanted.name] if current is None else []
    if len(found) > 1:
        refusals.append(f"{len(found)} pools named {wanted.name} can be imported, expected one: import one by its id")
    if refusals:
        return Plan(refusals=tuple(refusals))
    base = current or next(iter(found), None)
    actions: list[Action]
    if base is None:
        actions = [Create(replace(wanted, ailing=frozenset()))]
    else:
        actions, refusals = _plan_changes(base, wanted, named)
        actions = [*(Import(pool) for pool in found), *actions]
    refusals += [
        f"disk {disk} holds {used[disk]}, expected an empty one: name another, or clear it yourself"
        for disk in new_disks(actions)
        if disk in used
    ]
    return Plan(refusals=tuple(refusals)) if refusals else Plan(actions=tuple(actions))


def new_disks(actions: Iterable[Action]) -> list[str]:
    """The disks that actions write to for the first time."""
    disks: list[str] = []
    for action in actions:
        match action:
            case Create(pool):
                disks += [disk for mirror in pool.mirrors for disk in mirror]
            case Add(mirror):
                disks += mirror
            case Replace(_, new) | Attach(_, new):
                disks.append(new)
            case Import() | Detach() | Set():
                pass
    return disks


def _refuse_wanted(wanted: Pool, named: Named) -> list[str]:
    """What is wrong with the wish alone, whatever the pool is."""
    disks = [disk for mirror in wanted.mirrors for disk in mirror]
    targets = list(named.replaced.values())
    refusals = [] if wanted.mirrors else [f"pool {wanted.name} has no mirror, expected at least one: name its disks"]
    refusals += [
        f"mirror {' '.join(mirror) or '(empty)'} has {len(mirror)} disk(s), expected two or more: name another side"
        for mirror in wanted.mirrors
        if len(mirror) < MIRROR_MINIMUM_DISKS
    ]
    refusals += [
        f"disk {disk} is named {disks.count(disk)} times, expected once: it may go by two names"
        for disk in sorted(set(disks))
        if disks.count(disk) > 1
    ]
    refusals += [
        f"disk {disk} is to be given up and is wanted in a mirror: remove it from one of the two"
        for disk in sorted({*named.replaced, *named.detached} & set(disks))
    ]
    refusals += [
        f"disk {disk} is to be both replaced and detached, expected one: remove it from one of the two"
        for disk in sorted(named.replaced.keys() & named.detached)
    ]
    refusals += [
        f"disk {disk} replaces {targets.count(disk)} disks, expected one: name a disk for each"
        for disk in sorted(set(targets))
        if targets.count(disk) > 1
    ]
    refusals += [
        f"disk {new} is to replace {old} and is wanted in no mirror: name it in the place of {old}"
        for old, new in named.replaced.items()
        if new not in disks
    ]
    return refusals


def _plan_changes(base: Pool, wanted: Pool, named: Named) -> tuple[list[Action], list[str]]:
    """The changes to a pool that exists, and what stands against them."""
    present = {disk for mirror in base.mirrors for disk in mirror}
    refusals = [
        f"disk {new} is to replace {old} and both are in pool {base.name}: detach one, or name a disk outside the pool"
        for old, new in named.replaced.items()
        if old in present and new in present
    ]
    refusals += [
        f"disk {old} is to be replaced by {new} and neither is in pool {base.name}: name a disk of the pool"
        for old, new in named.replaced.items()
        if old not in present and new not in present
    ]
    pairs, unmatched = _match(base, wanted, named)
    refusals += unmatched
    if refusals:
        return [], refusals
    replaces: list[Action] = []
    attaches: list[Action] = []
    detaches: list[Action] = []
    for mirror, goal in pairs:
        swaps = {old: named.replaced[old] for old in mirror if old in named.replaced}
        staying = tuple(swaps.get(disk, disk) for disk in mirror)
        anchors = [disk for disk in mirror if disk in goal and disk not in base.ailing]
        anchors += [new for old, new in swaps.items() if old not in base.ailing]
        extra = [disk for disk in staying if disk not in goal]
        attached = [disk for disk in goal if disk not in staying]
        refusals += [
            f"disk {disk} is in pool {base.name} and not wanted, nothing is removed unless named: "
            "name it in replaced or detached, or want it"
            for disk in extra
            if disk not in named.detached
        ]
        if (swaps or extra or attached) and not anchors:
            refusals.append(f"mirror {' '.join(mirror)} would keep no healthy disk to copy from: bring one back first")
            continue
        replaces += [Replace(old, new) for old, new in swaps.items()]
        attaches += [Attach(anchors[0], disk) for disk in attached]
        detaches += [Detach(disk) for disk in extra]
    matched = {goal for _, goal in pairs}
    adds: list[Action] = [Add(goal) for goal in wanted.mirrors if goal not in matched]
    sets: list[Action] = [
        Set(name, value) for name, value in sorted(wanted.properties.items()) if base.properties.get(name) != value
    ]
    return [*replaces, *attaches, *detaches, *adds, *sets], refusals


def _match(base: Pool, wanted: Pool, named: Named) -> tuple[list[tuple[Mirror, Mirror]], list[str]]:
    """Each mirror of the pool with the wanted one that shares a disk of it, and the mirrors that have not just one."""
    pairs: list[tuple[Mirror, Mirror]] = []
    refusals: list[str] = []
    for mirror in base.mirrors:
        staying = {named.replaced.get(disk, disk) for disk in mirror}
        goals = [goal for goal in wanted.mirrors if staying & set(goal)]
        if not goals:
            refusals.append(f"mirror {' '.join(mirror)} of pool {base.name} is not wanted: a mirror is never removed")
        elif len(goals) > 1:
            refusals.append(f"mirror {' '.join(mirror)} is spread over {len(goals)} wanted mirrors: keep it together")
        pairs += [(mirror, goal) for goal in goals]
    for goal in wanted.mirrors:
        sources = [mirror for mirror, its_goal in pairs if its_goal == goal]
        if len(sources) > 1:
            refusals.append(f"wanted mirror {' '.join(goal)} mixes {len(sources)} mirrors of the pool: keep them apart")
    return pairs, refusals


def apply_action(pool: Pool | None, action: Action) -> Pool:
    """The pool after an action; raises ImpossibleError where the pool cannot take it."""
    if isinstance(action, Import | Create):
        if pool is not None:
            raise ImpossibleError(f"{action} with pool {pool.name} present, expected none")
        return action.pool
    if pool is None:
        raise ImpossibleError(f"{action} without a pool")
    if isinstance(action, Set):
        return replace(pool, properties={**pool.properties, action.name: action.value})
    present = {disk for mirror in pool.mirrors for disk in mirror}
    if any(disk in present for disk in new_disks([action])):
        raise ImpossibleError(f"{action} uses a disk that is in the pool: {sorted(present)}")
    change: dict[str, Mirror]
    match action:
        case Add(mirror):
            return replace(pool, mirrors=(*pool.mirrors, mirror))
        case Replace(at, new):
            change = {at: (new,)}
        case Attach(at, new):
            change = {at: (at, new)}
        case Detach(at):
            change = {at: ()}
    if at not in present:
        raise ImpossibleError(f"{action} names a disk that is not in the pool: {sorted(present)}")
    mirrors = tuple(tuple(new for disk in mirror for new in change.get(disk, (disk,))) for mirror in pool.mirrors)
    if not all(mirrors):
        raise ImpossibleError(f"{action} takes the last disk of a mirror")
    gone = present - {disk for mirror in mirrors for disk in mirror}
    return replace(pool, mirrors=mirrors, ailing=pool.ailing - gone)


def render_tree(pool: Pool | None) -> str:
    """The pool's vdev tree and properties as a diff shows them; sides sorted, so that their order is no change."""
    if pool is None:
        return ""
    lines = [pool.name]
    for mirror in sorted(sorted(mirror) for mirror in pool.mirrors):
        lines += ["  mirror", *(f"    {disk}" for disk in mirror)]
    lines += [f"  {name}={value}" for name, value in sorted(pool.properties.items())]
    return "\n".join(lines) + "\n"
