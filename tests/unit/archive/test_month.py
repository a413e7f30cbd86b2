"""Months of the UTC calendar: named, bounded, cut into days; and one run of an archive at a time."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.archive import ArchiveError, Month
from collectors.archive.lock import only_one
from collectors.errors import UsageError

MONTHS = st.builds(Month, st.integers(1, 9998), st.integers(1, 12))


@given(MONTHS)
def test_a_month_is_its_days_without_gap_or_overlap(month: Month) -> None:
    days = list(month.days())
    assert (days[0][0], days[-1][1]) == (month.start, month.end)
    assert all(before[1] == after[0] for before, after in pairwise(days))
    assert {end - start for start, end in days} == {timedelta(days=1)}


@given(MONTHS)
def test_a_month_is_read_back_from_its_name_and_from_its_moments(month: Month) -> None:
    assert Month.named(month.name) == month
    assert Month.of(month.start) == Month.of(month.end - timedelta(microseconds=1)) == month
    assert Month.of(month.end) == month.following
    assert month < month.following


def test_a_moment_of_another_zone_lies_in_its_month_of_utc() -> None:
    assert Month.of(datetime(2026, 11, 1, 1, tzinfo=timezone(timedelta(hours=2)))) == Month(2026, 10)
    assert Month.of(datetime(2026, 10, 31, 23, 59, tzinfo=UTC)) == Month(2026, 10)


@pytest.mark.parametrize("name", ["2026-13", "2026-1", "202611", "2026-00", "0000-01", "2026-11 ", "../2026-11", ""])
def test_what_is_no_month_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="write it as 2026-11"):
        Month.named(name)


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    script = f"""
import sys, time
from itertools import pairwise
from pathlib import Path
from collectors.archive.lock import only_one
with only_one(Path({str(tmp_path)!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ArchiveError, match=f"process {holder.pid}"), only_one(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with only_one(tmp_path):
        pass
