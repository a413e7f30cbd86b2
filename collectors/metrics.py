"""Metrics as a file in Prometheus' text format, for node_exporter's textfile collector: no port, no daemon of ours.

Commands that run and end keep their counters in the file itself: a counter goes on from what the file has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import structlog
from msgspec import Struct

from collectors.errors import UsageError
from collectors.files import replace_file

_LINE = re.compile(r"(?P<name>[a-z_]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Metric(Struct, frozen=True):
    """One number with a name; units are in the name. ``value`` of a counter is what came since the last writing.

    A gauge whose value is None keeps the one that the file has, if any.
    """

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    value: float | None
    labels: Mapping[str, str] = {}

    @property
    def series(self) -> str:
        """Name and labels, as the file has them."""
        labels = ",".join(f'{key}="{value.translate(_ESCAPES)}"' for key, value in sorted(self.labels.items()))
        return f"{self.name}{{{labels}}}" if labels else self.name


def write_metrics(path: Path, metrics: Iterable[Metric]) -> None:
    """Put them in ``path``, whole or not at all; other names leave it. Raises UsageError, OSError."""
    if path.suffix != ".prom":
        raise UsageError(f"{path}: node_exporter reads files that end in .prom: name it so")
    before = read_values(path)
    lines: list[str] = []
    told: set[str] = set()
    for metric in sorted(metrics, key=lambda one: one.series):
        value = before.get(metric.series) if metric.value is None else metric.value
        if value is None:
            continue
        if metric.kind == "counter" and metric.value is not None:
            value += before.get(metric.series, 0.0)
        if metric.name not in told:
            told.add(metric.name)
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
        lines.append(f"{metric.series} {value:.17g}")
    with replace_file(path) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
    path.chmod(0o644)  # node_exporter is another user


def read_values(path: Path) -> dict[str, float]:
    """Values by series; empty where there is no file, or none that can be read (then counters start anew)."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    values: dict[str, float] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        try:
            value = float(match["value"]) if match else math.nan
        except ValueError:
            value = math.nan
        if not line.startswith("#") and math.isnan(value):
            structlog.get_logger().warning("metrics cannot be read: their counters start anew", file=str(path))
            return {}
        if match:
            values[line.rpartition(" ")[0]] = value
    return values
