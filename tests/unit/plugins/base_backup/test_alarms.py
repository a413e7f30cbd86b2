"""Which figures raise which alarm, and the metrics of them: pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup.alarms import (
    NAMES,
    Figures,
    Limits,
    alarms,
    keep_samples,
    metrics_text,
    span,
    wal_rate,
)
from hypothesis import given
from hypothesis import strategies as st

LIMITS = Limits(
    archive_lag_segments=4,
    archive_lag_s=600,
    backup_age_s=86400,
    drill_age_s=864000,
    wal_left_s=3600,
    wal_free_bytes=1 << 30,
)
FINE = Figures(
    archive_lag_segments=4,
    archive_lag_s=600,
    backup_age_s=86400,
    drill_age_s=864000,
    wal_free_bytes=1 << 30,
    wal_bytes_per_s=1000,
)


def test_at_the_limits_all_is_fine() -> None:
    assert alarms(FINE, LIMITS) == []


@pytest.mark.parametrize(
    ("change", "name", "said"),
    [
        ({"archive_lag_segments": 5}, "archive", "5 WAL segments wait"),
        ({"archive_lag_s": 1200.0}, "archive", "the oldest for 20.0 min"),
        ({"backup_age_s": 172800.0}, "backup", "the last verified base backup is 2.0 d ago"),
        ({"backup_age_s": None}, "backup", "there is no verified base backup"),
        ({"drill_age_s": 864001.0}, "drill", "successful restore drill"),
        ({"wal_free_bytes": (1 << 30) - 1}, "wal_space", "1023 MB free"),
        ({"wal_bytes_per_s": 1e6}, "wal_space", "enough for 17.9 min at the present rate"),
        ({"troubles": ("nobody answers",)}, "unknown", "nobody answers"),
    ],
)
def test_each_limit_passed_raises_its_alarm_alone(change: dict[str, Any], name: str, said: str) -> None:
    (alarm,) = alarms(replace(FINE, **change), LIMITS)
    assert alarm.name == name
    assert said in alarm.text


def test_drills_that_nobody_asks_for_raise_none() -> None:
    assert alarms(replace(FINE, drill_age_s=None), replace(LIMITS, drill_age_s=None)) == []


def test_metrics_are_the_figures_and_every_alarm() -> None:
    found = replace(FINE, backup_age_s=None, wal_bytes_per_s=0.0, archive_lag_segments=9)
    text = metrics_text(found, alarms(found, LIMITS), 1764000000.4)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    values = dict(line.split(" ") for line in lines)
    assert values.pop("cryptopip_backup_status_time_seconds") == "1764000000"
    assert {name: float(value) for name, value in values.items()} == {
        "cryptopip_archive_lag_segments": 9,
        "cryptopip_archive_lag_seconds": 600,
        "cryptopip_restore_drill_age_seconds": 864000,
        "cryptopip_wal_free_bytes": 1 << 30,
        "cryptopip_wal_bytes_per_second": 0,
        "cryptopip_wal_left_seconds": float("inf"),
        **{f'cryptopip_backup_alarm{{alarm="{name}"}}': float(name in {"archive", "backup"}) for name in NAMES},
    }
    for name in {line.partition("{")[0].partition(" ")[0] for line in lines}:
        assert text.count(f"# TYPE {name} gauge\n") == 1


@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 1 << 40)), min_size=1))
def test_the_rate_is_of_the_window_and_never_negative(steps: list[tuple[int, int]]) -> None:
    samples: list[tuple[float, int]] = []
    at, position = 0.0, 0
    for seconds, written in steps:
        at, position = at + seconds, position + written
        samples = keep_samples(samples, (at, position), 3600)
        assert samples[-1] == (at, position)
        assert all(at - sample[0] <= 3600 for sample in samples)
        rate = wal_rate(samples)
        assert (rate is None) == (len(samples) < 2)
        assert rate is None or rate >= 0


def test_another_cluster_begins_anew() -> None:
    assert keep_samples([(0, 100), (60, 200)], (120, 50), 3600) == [(120, 50)]
    assert wal_rate([(0, 100), (50, 600)]) == 10


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (7200, "2.0 h"), (86400 * 3, "3.0 d"), (float("inf"), "for ever")]
)
def test_a_span_is_readable(seconds: float, text: str) -> None:
    assert span(seconds) == text
