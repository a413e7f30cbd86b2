"""Back-off, budget, the full hour."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest

from collectors.record.pace import Backoff, Budget, until_full_hour


def test_delays_double_up_to_the_last_rung_and_stay_there() -> None:
    backoff = Backoff(first=0.5, limit=30, draw=lambda: 1.0)
    assert [backoff.delay() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_jitter_cuts_a_delay_by_half_at_most() -> None:
    assert Backoff(first=2, draw=lambda: 0.0).delay() == 1.0
    assert all(0.25 <= Backoff().delay() <= 0.5 for _ in range(100))


def test_a_healthy_minute_begins_anew_and_a_second_less_does_not() -> None:
    backoff = Backoff(draw=lambda: 1.0)
    for _ in range(8):
        backoff.delay()
    assert backoff.delay(lived=59) == 30
    assert backoff.delay(lived=60) == 0.5
    assert backoff.delay() == 1


@pytest.mark.parametrize("step", [0.0, 0.1, 1.0])
def test_a_budget_is_never_overdrawn_in_any_minute(step: float) -> None:
    budget = Budget(burst=8, per_minute=14, now=0.0)
    now, made = 0.0, []
    for _ in range(100):
        now += step
        wait = budget.take(now)
        now += wait
        made.append(now)
    for start in made:
        assert sum(start <= at < start + 60 for at in made) <= 8 + 14
    assert made[7] <= 8 * step + 1e-9, "the burst goes out at once"


def test_after_a_pause_requests_start_one_by_one() -> None:
    budget = Budget(burst=8, per_minute=60, now=0.0)
    budget.pause(30, now=0.0)
    waits = [budget.take(0.0) for _ in range(3)]
    assert waits[0] >= 30
    assert all(later - earlier == pytest.approx(1) for earlier, later in itertools.pairwise(waits))


def test_the_full_hour_includes_midnight() -> None:
    at = datetime(2026, 11, 23, 23, 59, 30, tzinfo=UTC).timestamp()
    assert until_full_hour(at) == 30
    assert until_full_hour(at + 30) == 3600
