"""Which lists go from the remote: those that no day within the limit needs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from collectors.offsite.ledger import Entry, Index
from collectors.offsite.prune import plan_pruning

DAY = datetime(2026, 11, 1, tzinfo=UTC)


def lists(days: list[int]) -> list[Index]:
    """A list at each day, each with contents of its own."""
    return [Index(1, DAY + timedelta(days=day), [Entry(f"{day}", f"{day}.object", 1, f"{day:064x}")]) for day in days]


def test_a_list_that_held_until_within_the_limit_stays() -> None:
    plan = plan_pruning(lists([0, 1, 200]), DAY + timedelta(days=110))
    assert [index.taken_at for index in plan.indexes] == [DAY]
    assert plan.objects == {"0.object"}


@given(st.lists(st.integers(0, 99), unique=True).map(sorted), st.integers(0, 99))
def test_what_the_source_held_on_any_day_since_the_limit_can_still_be_fetched(days: list[int], limit: int) -> None:
    indexes = lists(days)
    gone = {index.name for index in plan_pruning(indexes, DAY + timedelta(days=limit)).indexes}
    held = {
        index.name
        for day in range(limit, 101)
        for index in [one for one in indexes if one.taken_at <= DAY + timedelta(days=day)][-1:]
    }
    assert not gone & held
    assert len(indexes) - len(gone) <= len(held) + 1, "what is older does not stay for ever"
