"""From what an operator wants of a pool to the commands that bring it about: read, plan, refuse or carry out.

The one path for check mode and for real. Nothing is run that could lose data: there is no command here that destroys
a pool or removes a vdev, and none is given ``-f`` but an import that the operator allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

from ansible_collections.cryptopip.marketdata.plugins.module_utils.zfs_pool_disks import (
    BY_ID,
    Device,
    DiskError,
    Disks,
    canonical,
    has_name,
    identity_of_leaf,
    resolve,
)
from ansible_collections.cryptopip.marketdata.plugins.module_utils.zfs_pool_host import (
    NoZfsError,
    RunCommand,
    ZfsError,
    checked,
    read_disks,
    read_importable,
    read_pools,
    read_properties,
    read_tools,
)
from ansible_collections.cryptopip.marketdata.plugins.module_utils.zfs_pool_plan import (
    Action,
    Add,
    Attach,
    Create,
    Detach,
    Import,
    Mirror,
    Named,
    Pool,
    Replace,
    Set,
    apply_action,
    new_disks,
    plan_pool,
    render_tree,
)
from ansible_collections.cryptopip.marketdata.plugins.module_utils.zfs_pool_status import (
    DISK,
    HEALTHY,
    Importable,
    Vdev,
)

FOREIGN = "another system"


class RefusedError(Exception):
    """Nothing was changed: what stands against it, a line for each reason."""


@dataclass(frozen=True)
class Wish:
    """The pool as the operator wants it, disks under whatever names; see the module's documentation."""

    name: str
    mirrors: Sequence[Sequence[str]]
    properties: Mapping[str, str] = field(default_factory=dict)
    replaced: Mapping[str, str] = field(default_factory=dict)
    detached: Sequence[str] = ()
    mountpoint: str = "none"
    import_foreign: bool = False
    assume_new_without_zfs: bool = False
    wait: bool = False


@dataclass(frozen=True)
class Found:
    """The host as it is: the pool, or those of its name to import; the disks; and of each disk of the pool its guid."""

    pool: Pool | None
    importable: Sequence[tuple[Pool, Importable]]
    disks: Disks
    guids: Mapping[str, str]
    has_zfs: bool = True


@dataclass(frozen=True)
class Outcome:
    """What was done or would be: the commands, the tree before and after, and what the given names stand for."""

    commands: tuple[str, ...]
    before: str
    after: str
    disks: Mapping[str, str]
    warnings: tuple[str, ...] = ()


def manage_pool(run: RunCommand, wish: Wish, *, check: bool, done: list[str]) -> Outcome:
    """Bring a pool to what is wanted, or say what that would take; commands that ran are in ``done`` if it fails."""
    found, warnings = _look(run, wish, check=check)
    wanted, named, names = _understand(wish, found)
    by_identity = _by_identity(found.disks)
    plan = plan_pool(
        found.pool,
        wanted,
        named=named,
        importable=[pool for pool, _ in found.importable],
        used={path: ", ".join(device.holds) for path, device in by_identity.items() if device.holds},
    )
    refusals = [*plan.refusals, *_refuse_import(plan.actions, wish, found)]
    refusals += _refuse_disks(
        plan.actions, found.pool or next((pool for pool, _ in found.importable), None), by_identity
    )
    if refusals:
        raise RefusedError("\n".join(refusals))
    commands = [command_of(action, wish, found) for action in plan.actions]
    for command in commands if found.has_zfs else ():
        _rehearse(run, command, imported=found.pool is not None)
    after = reduce(apply_action, plan.actions, found.pool)
    if not check:
        _carry_out(run, wish, plan.actions, commands, done)
        _compare(run, wish, after, changed=bool(done))
    return Outcome(
        commands=tuple(" ".join(command) for command in commands),
        before=render_tree(found.pool),
        after=render_tree(after),
        disks=names,
        warnings=warnings,
    )


def _look(run: RunCommand, wish: Wish, *, check: bool) -> tuple[Found, tuple[str, ...]]:
    """The host, and what to warn of."""
    disks = read_disks(run)
    try:
        pools = read_pools(run, read_tools(run))
    except NoZfsError as error:
        if not (check and wish.assume_new_without_zfs):
            raise
        return Found(None, (), disks, {}, has_zfs=False), (f"taken for a host without pools: {error}",)
    status = next((pool for pool in pools if pool.name == wish.name), None)
    if status is None:
        importable = [
            (pool_of(one.name, one.vdevs, disks), one) for one in read_importable(run) if one.name == wish.name
        ]
        return Found(None, importable, disks, {}), ()
    properties = read_properties(run, wish.name, sorted(wish.properties))
    guids = {identity_of_leaf(leaf, disks): leaf.guid for leaf in status.leaves()}
    return Found(replace(pool_of(status.name, status.vdevs, disks), properties=properties), (), disks, guids), ()


def pool_of(name: str, vdevs: Sequence[Vdev], disks: Disks) -> Pool:
    """The mirrors of a pool's data; raises RefusedError where it holds what is no mirror and no single disk."""
    data = [vdev for vdev in vdevs if vdev.group == "data" and vdev.kind != "indirect"]
    if other := [vdev.name for vdev in data if vdev.kind not in {"mirror", "replacing", "spare", DISK}]:
        raise RefusedError(f"pool {name} holds {', '.join(other)}, expected mirrors only: manage it by hand")
    sides = [vdev.children if vdev.kind == "mirror" else (vdev,) for vdev in data]
    mirrors = [[_side(side) for side in its] for its in sides]
    # A replacement that runs has not everything yet.
    ailing = [_side(side) for its in sides for side in its if side.kind == "replacing"]
    ailing += [leaf for mirror in mirrors for leaf in mirror if leaf.state not in HEALTHY]
    return Pool(
        name=name,
        mirrors=tuple(tuple(identity_of_leaf(leaf, disks) for leaf in mirror) for mirror in mirrors),
        ailing=frozenset(identity_of_leaf(leaf, disks) for leaf in ailing),
    )


def _side(vdev: Vdev) -> Vdev:
    """The disk that a side of a mirror stands for: under a replacement that runs the new one, under a spare its own."""
    if not vdev.children:
        return vdev
    return _side(vdev.children[-1 if vdev.kind == "replacing" else 0])


def _understand(wish: Wish, found: Found) -> tuple[Pool, Named, dict[str, str]]:
    """The wish in canonical paths, and given name -> path; raises DiskError."""
    known = {disk for pool, _ in found.importable for mirror in pool.mirrors for disk in mirror} | {*found.guids}
    gone = frozenset(known - {*_by_identity(found.disks)})
    given = [
        *(name for mirror in wish.mirrors for name in mirror),
        *(name for pair in wish.replaced.items() for name in pair),
        *wish.detached,
    ]
    names = {name: resolve(name, found.disks, gone) for name in given}
    if twice := sorted(
        f"{', '.join(old for old in wish.replaced if names[old] == path)} are all {path}"
        for path in {names[old] for old in wish.replaced}
        if sum(names[old] == path for old in wish.replaced) > 1
    ):
        raise DiskError(f"replace names a disk twice: {'; '.join(twice)}: leave one of the names")
    wanted = Pool(wish.name, tuple(tuple(names[name] for name in mirror) for mirror in wish.mirrors), wish.properties)
    named = Named(
        {names[old]: names[new] for old, new in wish.replaced.items()},
        frozenset(names[name] for name in wish.detached),
    )
    return wanted, named, names


def _by_identity(disks: Disks) -> dict[str, Device]:
    """The host's whole disks by canonical path; those that have none cannot be asked for."""
    found: dict[str, Device] = {}
    for device in disks.devices.values():
        if device.kind == "disk" and has_name(device):
            found[canonical(device)] = device
    return found


def _refuse_import(actions: Sequence[Action], wish: Wish, found: Found) -> list[str]:
    """Why a pool that was found should not come in."""
    if not any(isinstance(action, Import) for action in actions):
        return []
    refusals = []
    for _, one in found.importable:
        if one.state not in HEALTHY:
            refusals.append(f"pool {one.name} is on the disks and {one.state}: {one.message or 'bring its disks back'}")
        elif FOREIGN in one.message and not wish.import_foreign:
            refusals.append(
                f"pool {one.name} was last used by {FOREIGN}, expected this one: see that no other host has it "
                "imported, then allow it with import_foreign"
            )
    return refusals


def _refuse_disks(actions: Sequence[Action], pool: Pool | None, disks: Mapping[str, Device]) -> list[str]:
    """Which disks that would be written to are not there, or are smaller than those they would be copied from."""
    refusals = [
        f"disk {disk} is not there, expected an empty disk: plug it in, or name another"
        for disk in new_disks(actions)
        if disk not in disks
    ]
    for action in actions:
        if not isinstance(action, Replace | Attach) or action.new not in disks:
            continue
        # Empty where what it is put beside comes only in this run: that one is checked itself.
        beside = next((mirror for mirror in pool.mirrors if _beside(action) in mirror), ()) if pool else ()
        need = min((disks[disk].size for disk in beside if disk in disks), default=0)
        if (size := disks[action.new].size) < need:
            refusals.append(f"disk {action.new} has {size} bytes, expected {need} as its mirror has: name a larger one")
    return refusals


def _beside(action: Replace | Attach) -> str:
    return action.old if isinstance(action, Replace) else action.present


def command_of(action: Action, wish: Wish, found: Found) -> list[str]:
    """The one command that carries an action out; disks of the pool go by guid, which no renaming can mistake."""
    ashift = ["-o", f"ashift={wish.properties['ashift']}"] if "ashift" in wish.properties else []
    options = [word for name, value in sorted(wish.properties.items()) for word in ("-o", f"{name}={value}")]
    words: list[str]
    match action:
        case Import(pool):
            guid = next(one.guid for its, one in found.importable if its is pool)
            words = ["import", "-d", BY_ID, *(["-f"] if wish.import_foreign else []), guid]
        case Create(pool):
            words = ["create", *options, "-m", wish.mountpoint, pool.name, *_mirrors(pool.mirrors)]
        case Add(mirror):
            words = ["add", *ashift, wish.name, *_mirrors([mirror])]
        case Replace(at, new):
            words = ["replace", *ashift, wish.name, found.guids.get(at) or at, new]
        case Attach(at, new):
            words = ["attach", *ashift, wish.name, found.guids.get(at) or at, new]
        case Detach(at):
            words = ["detach", wish.name, found.guids.get(at) or at]
        case Set(name, value):
            words = ["set", f"{name}={value}", wish.name]
    return ["zpool", *words]


def _mirrors(mirrors: Sequence[Mirror]) -> list[str]:
    return [word for mirror in mirrors for word in ("mirror", *mirror)]


def _rehearse(run: RunCommand, command: Sequence[str], *, imported: bool) -> None:
    """Ask zpool itself, which can say beforehand whether it would create or add; raises RefusedError with its words."""
    zpool, verb, *rest = command
    if verb == "create" or (verb == "add" and imported):
        try:
            checked(run, [zpool, verb, "-n", *rest])
        except ZfsError as error:
            raise RefusedError(str(error)) from error


def _carry_out(
    run: RunCommand, wish: Wish, actions: Sequence[Action], commands: Sequence[Sequence[str]], done: list[str]
) -> None:
    for action, command in zip(actions, commands, strict=True):
        if isinstance(action, Detach):
            # Also of an earlier run: a side goes only once the others have all that it has.
            _wait(run, wish.name)
        checked(run, command)
        done.append(" ".join(command))
    if wish.wait:
        _wait(run, wish.name)


def _wait(run: RunCommand, pool: str) -> None:
    checked(run, ["zpool", "wait", "-t", "resilver,replace", pool])


def _compare(run: RunCommand, wish: Wish, expected: Pool | None, *, changed: bool) -> None:
    """Ask the pool what it came to; raises ZfsError where that is not what the plan said."""
    if not changed or expected is None:
        return
    disks = read_disks(run)
    status = next((pool for pool in read_pools(run, read_tools(run)) if pool.name == wish.name), None)
    came_to = render_tree(replace(pool_of(status.name, status.vdevs, disks), properties={}) if status else None)
    meant = render_tree(replace(expected, properties={}))
    if came_to != meant:
        raise ZfsError(f"pool {wish.name} came to\n{came_to}expected\n{meant}zpool status says more")
