"""Windows cut into full hours and edges, and what is usual."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.coverage.checks import covered_seconds, full_hours, median
from collectors.coverage.ids import id_range
from collectors.coverage.model import Interval
from collectors.coverage.rows import split

T = datetime(2026, 11, 1, tzinfo=UTC)
windows = st.tuples(st.integers(0, 20_000), st.integers(0, 20_000)).map(
    lambda pair: Interval(T + timedelta(seconds=pair[0]), T + timedelta(seconds=sum(pair)))
)


@given(windows)
def test_hours_and_edges_are_the_window_once(window: Interval) -> None:
    whole, edges = split(window)
    parts = sorted([*edges, *([whole] if whole else [])], key=lambda part: part.start)
    assert sum(part.seconds for part in parts) == window.seconds
    assert all(part.seconds > 0 for part in parts)
    assert all(one.end == other.start for one, other in pairwise(parts))
    if whole is not None:
        assert not whole.start.timestamp() % 3600
        assert not whole.end.timestamp() % 3600
        assert all(edge.seconds < 3600 for edge in edges)
        hours = full_hours(window)
        assert (hours[0], hours[-1] + timedelta(hours=1)) == (whole.start, whole.end)
    else:
        assert full_hours(window) == []


def test_windows_of_another_zone_have_utc_hours() -> None:
    half_past = timezone(timedelta(hours=5, minutes=30))
    window = Interval(T.astimezone(half_past), (T + timedelta(hours=2)).astimezone(half_past))
    assert split(window) == (Interval(T, T + timedelta(hours=2)), [])
    assert full_hours(window) == [T, T + timedelta(hours=1)]


@given(st.lists(st.tuples(st.integers(0, 7200), st.integers(1, 600)), max_size=8))
def test_covered_seconds_are_those_of_the_hour(pieces: list[tuple[int, int]]) -> None:
    seconds: set[int] = set()
    intervals = []
    for start, length in pieces:
        if not seconds & set(range(start, start + length)):
            seconds |= set(range(start, start + length))
            intervals.append(Interval(T + timedelta(seconds=start), T + timedelta(seconds=start + length)))
    assert covered_seconds(intervals, T + timedelta(hours=1)) == len(seconds & set(range(3600, 7200)))


def test_nothing_is_usual_of_less_than_a_day() -> None:
    assert median([5] * 23) is None
    assert median(list(range(24))) == 11.5
    assert median([*range(24), 100]) == 12.0


@pytest.mark.parametrize(
    ("before", "after", "count"),
    [("9", "10", 0), ("9", "12", 2), ("9", "9", None), ("12", "3", None), ("a", "b", None), (None, "3", None)],
)
def test_ids_between_two_events(before: str | None, after: str | None, count: int | None) -> None:
    ids = id_range(before, after, T, T)
    assert (ids.count if ids else None) == count
