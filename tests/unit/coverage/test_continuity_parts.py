"""The parts of continuity that need no database."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.coverage.cli import moment, seconds_of
from collectors.coverage.continuity import like
from collectors.coverage.ids import annotate
from collectors.coverage.model import Edge, Interval
from collectors.errors import UsageError

T = datetime(2026, 11, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T + timedelta(seconds=seconds)


def test_a_gap_names_the_ids_nearest_to_it_and_every_ingestors_cause() -> None:
    before = [Edge("ing1", at(10), "100", "crash"), Edge("ing2", at(7), "70", "disconnect")]
    after = [Edge("ing1", at(25), "250"), Edge("ing2", at(20), "200")]
    gap = annotate(Interval(at(10), at(20)), before, after)
    assert (gap.seconds, gap.last_id_before, gap.first_id_after) == (10.0, "100", "200")
    assert gap.ended_by == {"ing1": "crash", "ing2": "disconnect"}


def test_a_gap_before_anybody_listened_has_no_causes() -> None:
    gap = annotate(Interval(at(0), at(5)), [], [])
    assert (gap.last_id_before, gap.first_id_after, gap.ended_by) == (None, None, {})


@given(st.text("aB/%_\\*?"), st.text("aB/%_\\"))
def test_patterns_mean_the_same_to_sql_as_to_people(pattern: str, text: str) -> None:
    expected = re.fullmatch("".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern), text) is not None
    sql, escaped, i = like(pattern), "", 0
    while i < len(sql):
        if sql[i] == "\\":
            i += 1
            escaped += re.escape(sql[i])
        else:
            escaped += {"%": ".*", "_": "."}.get(sql[i], re.escape(sql[i]))
        i += 1
    assert (re.fullmatch(escaped, text) is not None) == expected


def test_durations_need_their_unit() -> None:
    assert [seconds_of(text) for text in ("500ms", "2s", "1.5m", "1h", "1d")] == [0.5, 2, 90, 3600, 86400]
    for wrong in ("5", "s", "-1s", "1w"):
        with pytest.raises(UsageError, match="no duration"):
            seconds_of(wrong)


def test_times_without_a_zone_are_utc() -> None:
    assert moment("2026-11-01") == T
    assert moment("2026-11-01T02:00:00+02:00") == T
    with pytest.raises(UsageError, match="no time"):
        moment("yesterday")
