"""Into which pieces the time is cut in which streams are compared."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from collectors.sync.claims import pieces

T0 = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


@given(st.timedeltas(timedelta(0), timedelta(days=3)))
def test_pieces_follow_each_other_from_the_beginning_to_the_end(length: timedelta) -> None:
    windows = list(pieces(T0, T0 + length))
    assert [w.since for w in windows] == [T0, *(w.until for w in windows[:-1])][: len(windows)]
    assert all(timedelta(0) < w.until - w.since <= HOUR for w in windows)
    assert not windows or windows[-1].until == T0 + length
    assert bool(windows) == (length > timedelta(0))


def test_where_the_end_is_not_behind_the_beginning_there_are_none() -> None:
    assert list(pieces(T0, T0 - HOUR)) == []
