"""When an operator is to be woken: figures, limits, and metrics as Prometheus' node exporter reads them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figures:
    """What was found; None is what could not be found out (or, of an age, that there was never any)."""

    archive_lag_segments: int | None = None
    archive_lag_s: float | None = None
    backup_age_s: float | None = None
    drill_age_s: float | None = None
    wal_free_bytes: int | None = None
    wal_bytes_per_s: float | None = None
    """Of WAL written, over the samples there are; None where there is one sample."""
    troubles: tuple[str, ...] = ()
    """Why something could not be found out."""

    @property
    def wal_left_s(self) -> float | None:
        """Seconds until the WAL volume is full if archiving stopped now; infinite where nothing is written."""
        if self.wal_free_bytes is None or self.wal_bytes_per_s is None:
            return None
        return self.wal_free_bytes / self.wal_bytes_per_s if self.wal_bytes_per_s > 0 else float("inf")


@dataclass(frozen=True)
class Limits:
    """What is still fine. ``drill_age_s`` None: drills are not asked for."""

    archive_lag_segments: int
    archive_lag_s: float
    backup_age_s: float
    drill_age_s: float | None
    wal_left_s: float
    wal_free_bytes: int


@dataclass(frozen=True)
class Alarm:
    """One limit that is passed, and what to do."""

    name: str
    text: str


NAMES = ("archive", "backup", "drill", "wal_space", "unknown")
"""Every alarm there is, so that a metric of each is always there."""


def span(seconds: float) -> str:
    """A length of time as one reads it."""
    if seconds == float("inf"):
        return "for ever"
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s"


def alarms(found: Figures, limits: Limits) -> list[Alarm]:
    """Which limits are passed, the most urgent first. What nobody could find out is an alarm too."""
    raised = _space(found, limits) + _archive(found, limits) + _ages(found, limits)
    return raised + [Alarm("unknown", trouble) for trouble in found.troubles]


def _space(found: Figures, limits: Limits) -> list[Alarm]:
    free, left = found.wal_free_bytes, found.wal_left_s
    if free is None:
        return []
    is_short = left is not None and left < limits.wal_left_s
    if free >= limits.wal_free_bytes and not is_short:
        return []
    rate = "" if left is None else f", enough for {span(left)} at the present rate"
    return [
        Alarm(
            "wal_space",
            f"the WAL volume has {free >> 20} MB free{rate}; expected {limits.wal_free_bytes >> 20} MB and "
            f"{span(limits.wal_left_s)}. The server stops when it is full: see why WAL is not archived, or make room.",
        )
    ]


def _archive(found: Figures, limits: Limits) -> list[Alarm]:
    segments, seconds = found.archive_lag_segments, found.archive_lag_s
    if segments is None or seconds is None:
        return []
    if segments <= limits.archive_lag_segments and seconds <= limits.archive_lag_s:
        return []
    return [
        Alarm(
            "archive",
            f"{segments} WAL segments wait to be archived, the oldest for {span(seconds)}; expected at most "
            f"{limits.archive_lag_segments} and {span(limits.archive_lag_s)}. The server's log says why.",
        )
    ]


def _ages(found: Figures, limits: Limits) -> list[Alarm]:
    raised = []
    wanted = (
        ("backup", "verified base backup", found.backup_age_s, limits.backup_age_s, "cryptopip-backup.service"),
        ("drill", "successful restore drill", found.drill_age_s, limits.drill_age_s, "cryptopip-restore-drill.service"),
    )
    for name, what, age, limit, unit in wanted:
        if limit is None or (age is not None and age <= limit):
            continue
        has = f"the last {what} is {span(age)} ago" if age is not None else f"there is no {what}"
        raised.append(Alarm(name, f"{has}; expected one of the last {span(limit)}. See journalctl -u {unit}."))
    return raised


def wal_rate(samples: Sequence[tuple[float, int]]) -> float | None:
    """Bytes of WAL a second, from (seconds, position) of the first and last sample; None where they do not tell.

    A position that fell is another timeline's or cluster's.
    """
    if len(samples) < 2:
        return None
    (begun, first), (ended, last) = samples[0], samples[-1]
    return (last - first) / (ended - begun) if ended > begun and last >= first else None


def keep_samples(
    samples: Sequence[tuple[float, int]], new: tuple[float, int], window_s: float
) -> list[tuple[float, int]]:
    """The samples of the window up to the new one, that included; only it where position or clock went back."""
    if samples and (samples[-1][1] > new[1] or samples[-1][0] > new[0]):
        return [new]
    return [sample for sample in samples if sample[0] >= new[0] - window_s] + [new]


_HELP = {
    "cryptopip_archive_lag_segments": "WAL segments that wait to be archived",
    "cryptopip_archive_lag_seconds": "how long the oldest of them has waited",
    "cryptopip_backup_age_seconds": "since the end of the newest verified base backup",
    "cryptopip_restore_drill_age_seconds": "since the last restore drill that went well",
    "cryptopip_wal_free_bytes": "free on the WAL volume",
    "cryptopip_wal_bytes_per_second": "WAL written",
    "cryptopip_wal_left_seconds": "until the WAL volume is full if nothing more is archived",
}


def metrics_text(found: Figures, raised: Sequence[Alarm], at: float) -> str:
    """A file for the textfile collector. What is not known has no line; ``at`` tells a file that nobody renews."""
    values: Mapping[str, float | None] = dict(
        zip(
            _HELP,
            (
                found.archive_lag_segments,
                found.archive_lag_s,
                found.backup_age_s,
                found.drill_age_s,
                found.wal_free_bytes,
                found.wal_bytes_per_s,
                found.wal_left_s,
            ),
            strict=True,
        )
    )
    lines = []
    for name, value in values.items():
        if value is not None:
            number = "+Inf" if value == float("inf") else f"{value:.17g}"
            lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} gauge", f"{name} {number}"]
    lines += ["# HELP cryptopip_backup_alarm 1 where the limit is passed", "# TYPE cryptopip_backup_alarm gauge"]
    on = {alarm.name for alarm in raised}
    lines += [f'cryptopip_backup_alarm{{alarm="{name}"}} {int(name in on)}' for name in NAMES]
    name = "cryptopip_backup_status_time_seconds"
    lines += [f"# HELP {name} when these figures were found, since 1970", f"# TYPE {name} gauge", f"{name} {at:.0f}"]
    return "\n".join(lines) + "\n"
