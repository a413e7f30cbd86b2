"""The planner of pools of mirrors: what it does, what it refuses, and that its plans reach what was wanted."""

from __future__ import annotations

from functools import reduce

import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.zfs_pool_plan import (
    Add,
    Attach,
    Create,
    Detach,
    Import,
    ImpossibleError,
    Mirror,
    Named,
    Plan,
    Pool,
    Replace,
    Set,
    apply_action,
    new_disks,
    plan_pool,
    render_tree,
)
from hypothesis import event, given, settings
from hypothesis import strategies as st

ONE = Pool("tank", (("a", "b"),))
TWO = Pool("tank", (("a", "b"), ("c", "d")))


def after(pool: Pool | None, plan: Plan) -> Pool | None:
    """The pool once every action of a plan is done."""
    return reduce(apply_action, plan.actions, pool)


def sides(pool: Pool | None) -> set[frozenset[str]]:
    """A pool's mirrors whatever their order."""
    return {frozenset(mirror) for mirror in pool.mirrors} if pool else set()


def tank(*mirrors: str, ailing: str = "", **properties: str) -> Pool:
    """A pool whose disks are letters."""
    return Pool("tank", tuple(tuple(mirror) for mirror in mirrors), properties, frozenset(ailing))


def test_creates_adds_imports_sets() -> None:
    assert plan_pool(None, TWO) == Plan((Create(TWO),))
    assert plan_pool(ONE, TWO) == Plan((Add(("c", "d")),))
    assert plan_pool(None, TWO, importable=[Pool("other", (("x", "y"),)), ONE]) == Plan((Import(ONE), Add(("c", "d"))))
    assert plan_pool(ONE, tank("ab", autotrim="on")) == Plan((Set("autotrim", "on"),))
    assert plan_pool(TWO, tank("dc", "ba")) == Plan()


def test_attaches_to_a_healthy_disk_and_gives_up_only_what_is_named() -> None:
    assert plan_pool(tank("ab", ailing="a"), tank("abc")) == Plan((Attach("b", "c"),))
    assert plan_pool(tank("abc"), ONE, named=Named(detached=frozenset("c"))) == Plan((Detach("c"),))
    assert plan_pool(tank("ab", ailing="b"), tank("ac"), named=Named({"b": "c"})) == Plan((Replace("b", "c"),))
    assert plan_pool(tank("ac"), tank("ac"), named=Named({"b": "c"}, frozenset("d"))) == Plan()


def test_copies_before_it_gives_up_a_side() -> None:
    """A side is attached to a disk already in place, and detached only after what takes its part is attached."""
    whole = plan_pool(ONE, tank("cde"), named=Named({"a": "c", "b": "d"}))
    assert whole == Plan((Replace("a", "c"), Replace("b", "d"), Attach("c", "e")))
    assert plan_pool(ONE, tank("ac"), named=Named(detached=frozenset("b"))) == Plan((Attach("a", "c"), Detach("b")))


@pytest.mark.parametrize(
    ("current", "wanted", "named", "says"),
    [
        (None, tank(), Named(), "has no mirror"),
        (None, tank("a"), Named(), "expected two or more"),
        (None, tank("ab", "bc"), Named(), "is named 2 times"),
        (TWO, ONE, Named(), "a mirror is never removed"),
        (TWO, ONE, Named(detached=frozenset("cd")), "a mirror is never removed"),
        (tank("abc"), ONE, Named(), "nothing is removed unless named"),
        (ONE, tank("ac"), Named(), "nothing is removed unless named"),
        (TWO, tank("abcd"), Named(), "mixes 2 mirrors"),
        (tank("abcd"), TWO, Named(), "is spread over 2"),
        (ONE, ONE, Named({"b": "c"}), "wanted in a mirror"),
        (ONE, tank("ac"), Named({"b": "x"}), "wanted in no mirror"),
        (ONE, tank("abc"), Named({"x": "c"}), "neither is in pool"),
        (tank("abc"), tank("ac"), Named({"b": "c"}), "both are in pool"),
        (ONE, tank("ac"), Named({"b": "c"}, frozenset("b")), "both replaced and detached"),
        (ONE, tank("cd"), Named({"a": "c", "b": "c"}), "replaces 2 disks"),
        (tank("abc", ailing="ab"), ONE, Named(detached=frozenset("c")), "no healthy disk"),
        (tank("ab", ailing="ab"), tank("ac"), Named({"b": "c"}), "no healthy disk"),
    ],
)
def test_refuses(current: Pool | None, wanted: Pool, named: Named, says: str) -> None:
    plan = plan_pool(current, wanted, named=named)
    assert plan.actions == ()
    assert any(says in refusal for refusal in plan.refusals), plan.refusals


def test_refuses_disks_in_use_and_pools_of_one_name() -> None:
    for current, wanted, named in (
        (None, tank("ax"), Named()),
        (ONE, tank("ab", "cx"), Named()),
        (ONE, tank("abx"), Named()),
        (ONE, tank("ax"), Named({"b": "x"})),
    ):
        plan = plan_pool(current, wanted, named=named, used={"x": "an ext4 file system", "b": "pool tank"})
        assert plan.actions == ()
        assert plan.refusals == (
            "disk x holds an ext4 file system, expected an empty one: name another, or clear it yourself",
        )
    assert "2 pools named tank" in plan_pool(None, ONE, importable=[ONE, TWO]).refusals[0]


@pytest.mark.parametrize(
    ("pool", "action"),
    [(None, Detach("a")), (ONE, Create(ONE)), (ONE, Add(("b", "c"))), (ONE, Detach("x")), (tank("a"), Detach("a"))],
)
def test_the_model_takes_no_impossible_action(pool: Pool | None, action: Create | Add | Detach) -> None:
    with pytest.raises(ImpossibleError):
        apply_action(pool, action)


def test_renders_the_same_tree_for_any_order() -> None:
    assert render_tree(None) == ""
    expected = "tank\n  mirror\n    a\n    b\n  mirror\n    c\n    d\n  autotrim=on\n"
    assert render_tree(tank("dc", "ba", autotrim="on")) == expected


DISKS = "abcdefgh"


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Mirror, ...]:
    """Up to three mirrors of two or three different disks."""
    left = draw(st.permutations(DISKS))
    sizes = draw(st.lists(st.integers(2, 3), min_size=1, max_size=3).filter(lambda them: sum(them) <= len(DISKS)))
    return tuple(tuple(left[sum(sizes[:at]) : sum(sizes[: at + 1])]) for at in range(len(sizes)))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Pool | None, Pool, Named, dict[str, str]]:
    """A pool, and a wish near it or anywhere, with disks named to be given up and disks in use."""
    mirrors = draw(layouts())
    goal = [list(mirror) for mirror in mirrors]
    free = [disk for disk in DISKS if not any(disk in mirror for mirror in mirrors)]
    replaced: dict[str, str] = {}
    detached: set[str] = set()
    for mirror in goal:
        way = draw(st.sampled_from(["keep", "replace", "attach", "detach"]))
        if way == "replace" and free:
            replaced[mirror[0]] = free[0]
            mirror[0] = free.pop(0)
        elif way == "attach" and free:
            mirror.append(free.pop(0))
        elif way == "detach" and len(mirror) > 2:
            detached.add(mirror.pop())
    if len(free) > 1 and draw(st.booleans()):
        goal.append(free[:2])
    near = draw(st.booleans())
    wanted = tuple(tuple(mirror) for mirror in goal) if near else draw(layouts())
    named = Named(replaced, frozenset(detached)) if draw(st.integers(0, 3)) else Named()
    current = Pool("tank", mirrors, {}, frozenset(draw(st.sets(st.sampled_from(DISKS), max_size=2))))
    used = dict.fromkeys(draw(st.sets(st.sampled_from(DISKS), max_size=1)), "a partition")
    return (current if draw(st.integers(0, 4)) else None), Pool("tank", wanted, {"autotrim": "on"}), named, used


@settings(max_examples=500)
@given(cases())
def test_a_plan_reaches_what_was_wanted_or_does_nothing(case: tuple[Pool | None, Pool, Named, dict[str, str]]) -> None:
    current, wanted, named, used = case
    plan = plan_pool(current, wanted, named=named, used=used)
    event("refused" if plan.refusals else "planned")
    if plan.refusals:
        assert plan.actions == ()
        return
    reached = after(current, plan)
    assert sides(reached) == sides(wanted)
    assert not set(new_disks(plan.actions)) & set(used)
    gone = set().union(*sides(current)) - set().union(*sides(reached))
    assert gone <= {*named.replaced, *named.detached}
    if current is not None:
        again = plan_pool(reached, wanted, named=named, used=dict.fromkeys(DISKS, "pool tank"))
        assert again == Plan()
