"""Metrics: counters that outlive the process, gauges that say nothing new, a file that is read or started anew."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from collectors.errors import UsageError
from collectors.metrics import Metric, read_values, write_metrics
from collectors.sync.metrics import metrics_of
from collectors.sync.run import SourceReport, SyncReport


def of(rows: float | None, lag: float | None) -> list[Metric]:
    return [
        Metric("a_rows_total", "counter", "Rows.", rows, {"ingestor": 'a"\\\n', "channel": "trades"}),
        Metric("a_lag_seconds", "gauge", "Lag.", lag),
    ]


def test_counters_go_on_and_gauges_without_a_value_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.prom"
    write_metrics(path, of(3, 1.5))
    write_metrics(path, of(4, None))
    assert path.read_text() == (
        "# HELP a_lag_seconds Lag.\n# TYPE a_lag_seconds gauge\na_lag_seconds 1.5\n# HELP a_rows_total Rows.\n"
        '# TYPE a_rows_total counter\na_rows_total{channel="trades",ingestor="a\\"\\\\\\n"} 7\n'
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [each.name for each in tmp_path.iterdir()] == ["a.prom"]


def test_a_gauge_that_never_had_a_value_is_not_there(tmp_path: Path) -> None:
    write_metrics(tmp_path / "a.prom", of(1, None))
    assert "a_lag_seconds" not in (tmp_path / "a.prom").read_text()


@pytest.mark.parametrize("text", ["a_rows_total", "a_rows_total many", "a_rows_total 1\n<html>"])
def test_a_file_of_something_else_starts_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.prom"
    path.write_text(text)
    assert read_values(path) == {}
    write_metrics(path, of(2, 1))
    assert read_values(path)["a_lag_seconds"] == 1


def test_a_name_that_node_exporter_would_not_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"end in \.prom"):
        write_metrics(tmp_path / "a.txt", [])


def test_a_source_that_fails_keeps_its_times_and_is_down(tmp_path: Path) -> None:
    path, now = tmp_path / "sync.prom", datetime(2026, 11, 1, tzinfo=UTC)
    good = SourceReport("ing1", merged_until=now - timedelta(seconds=2))
    good.channels["trades"].pulled = 5
    write_metrics(path, metrics_of(SyncReport([good], 0.5), now))
    write_metrics(path, metrics_of(SyncReport([SourceReport("ing1", error="away")], 0.5), now + timedelta(hours=1)))
    values = read_values(path)
    assert values['cryptopip_sync_up{ingestor="ing1"}'] == 0
    assert values['cryptopip_sync_lag_seconds{ingestor="ing1"}'] == 2
    assert values['cryptopip_sync_success_timestamp_seconds{ingestor="ing1"}'] == now.timestamp()
    assert values["cryptopip_sync_run_timestamp_seconds"] == now.timestamp() + 3600
    assert values['cryptopip_sync_pulled_rows_total{channel="trades",ingestor="ing1"}'] == 5
