"""Which batches one transaction takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.sync.errors import SourceError
from collectors.sync.plan import Batch, take


def batch(number: int, trades: int = 1, book_events: int = 0) -> Batch:
    return Batch(number, trades, 0, book_events, None, None)


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 100))
def test_ranges_follow_each_other_without_hole_and_stay_within_the_bound(sizes: list[int], bound: int) -> None:
    batches = [batch(i, trades) for i, trades in enumerate(sizes, start=1)]
    mark, rows = 0, 0
    while (taken := take([b for b in batches if b.number > mark], mark, bound)) is not None:
        assert taken.first == mark + 1
        assert taken.rows["trades"] <= bound or taken.first == taken.last
        mark, rows = taken.last, rows + taken.rows["trades"]
    assert (mark, rows) == (len(sizes), sum(sizes))


def test_a_batch_beyond_the_bound_is_taken_alone() -> None:
    taken = take([batch(1, 1000), batch(2)], 0, 10)
    assert taken is not None
    assert (taken.first, taken.last) == (1, 1)


def test_a_book_event_weighs_more_than_a_trade() -> None:
    assert batch(1, 0, book_events=1).weight > batch(1, 1).weight


def test_a_missing_batch_stops_the_range_before_it_and_is_an_error_behind_it() -> None:
    batches = [batch(4), batch(6)]
    taken = take(batches, 3, 100)
    assert taken is not None
    assert taken.last == 4
    with pytest.raises(SourceError, match=r"batch 5 was expected next and 6 found"):
        take(batches[1:], 4, 100)
