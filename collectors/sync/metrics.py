"""What a pull comes to, as metrics."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from collectors.metrics import Metric
from collectors.sync.run import SyncReport

_TOLD = {"conflicts": "that contradict the copy kept", "late": "not merged, as what was of their time is dropped"}


def metrics_of(report: SyncReport, now: datetime) -> Iterator[Metric]:
    """Of each ingestor rows, lag and last success; a source that failed keeps the times it had."""
    yield Metric("cryptopip_sync_run_timestamp_seconds", "gauge", "When the last pull ended.", now.timestamp())
    yield Metric("cryptopip_sync_duration_seconds", "gauge", "How long the last pull took.", report.seconds)
    for source in report.sources:
        of = {"ingestor": source.ingestor}
        succeeded = source.error is None
        yield Metric(
            "cryptopip_sync_up", "gauge", "1 where all that the ingestor had was merged.", float(succeeded), of
        )
        yield Metric(
            "cryptopip_sync_success_timestamp_seconds",
            "gauge",
            "When all that the ingestor had was merged last.",
            now.timestamp() if succeeded else None,
            of,
        )
        until = source.merged_until
        yield Metric(
            "cryptopip_sync_merged_until_timestamp_seconds",
            "gauge",
            "Receive time up to which the ingestor's connections are merged.",
            until.timestamp() if until else None,
            of,
        )
        yield Metric(
            "cryptopip_sync_lag_seconds",
            "gauge",
            "How far that lay back when the last pull ended that reached the ingestor.",
            (now - until).total_seconds() if until else None,
            of,
        )
        for channel, counts in source.channels.items():
            for name in ("pulled", "inserted", "conflicts", "late"):
                yield Metric(
                    f"cryptopip_sync_{name}_rows_total",
                    "counter",
                    f"Rows {_TOLD.get(name, name)}.",
                    float(getattr(counts, name)),
                    of | {"channel": channel},
                )
