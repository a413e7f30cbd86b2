"""Which settings a restore changes for its time, for whom, and how each goes back. Pure.

The ten of ``SEED`` are those the operator of the seed system set by hand; what each costs or endangers is beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

SEED: Mapping[str, str] = {
    "max_wal_size": "16GB",
    "autovacuum": "off",
    "archive_mode": "off",  # takes a restart, and leaves a hole in the WAL archive
    "fsync": "off",  # a crash of the host may corrupt every database of the cluster
    "full_page_writes": "off",  # the same
    "checkpoint_timeout": "15min",
    "checkpoint_completion_target": "0.9",
    "track_counts": "off",
    "synchronous_commit": "off",
    "bgwriter_delay": "1000ms",
}
ENDANGERS_CLUSTER = ("full_page_writes", "fsync", "archive_mode")
"""What profile safe keeps. The order is that of the way back: pages must be whole again before WAL counts on them."""

SESSION_CONTEXTS = frozenset({"user", "superuser"})
"""Contexts of pg_settings that a single session may set for itself."""

RESTARTABLE = frozenset({"archive_mode"})
"""Settings that take a restart and may be changed: a server starts with either value, so the way back stays open."""

LIST_SETTINGS = frozenset(
    {
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    }
)
"""Settings whose value is a list of quoted names, which a single string cannot bring back."""

_MEMORY_B = {"B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}
_TIME_US = {"us": 1, "ms": 1000, "s": 10**6, "min": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6}
_NUMBER = re.compile(r"\s*([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z]*)\s*")
_TRUE = frozenset({"on", "true", "yes", "1"})
_FALSE = frozenset({"off", "false", "no", "0"})


class SettingsError(Exception):
    """The settings asked for cannot be applied, or not be taken back: each problem with its way out."""


@dataclass(frozen=True)
class Running:
    """A row of pg_settings; ``unit`` is of a bare number, as 8kB or ms."""

    value: str
    unit: str | None = None
    context: str = "sighup"
    source: str = "default"
    kind: str = "string"


@dataclass(frozen=True)
class Change:
    """A setting for the time of a restore; ``prior`` is its value in postgresql.auto.conf, None where it is absent."""

    name: str
    value: str
    running: str
    prior: str | None
    needs_restart: bool = False


@dataclass(frozen=True)
class SettingsPlan:
    """Changes of the server (ALTER SYSTEM, in this order), and settings of the restore's own sessions."""

    server: tuple[Change, ...]
    sessions: Mapping[str, str]

    @property
    def needs_restart(self) -> bool:
        """Whether one of the changes takes effect by a restart only."""
        return any(change.needs_restart for change in self.server)


def wished_settings(
    profile: str, *, memory_bytes: int, cpus: int, jobs: int, overrides: Mapping[str, str | None]
) -> dict[str, str]:
    """The profile's settings with an operator's own over them; one that is None there is left alone."""
    keeps = ENDANGERS_CLUSTER if profile == "safe" else ()
    base = {name: value for name, value in SEED.items() if name not in keeps}
    base |= memory_settings(memory_bytes, cpus, jobs)
    endangering = sorted(set(overrides) & set(keeps))
    if endangering:
        raise SettingsError(
            f"settings holds {', '.join(endangering)}, which profile safe keeps: leave it out, or set profile to fast."
        )
    merged: dict[str, str | None] = {**base, **overrides}
    return {name: value for name, value in merged.items() if value is not None}


def memory_settings(memory_bytes: int, cpus: int, jobs: int) -> dict[str, str]:
    """Memory and workers to build indexes with: three eighths of the memory over the jobs, 64 MB to 2 GB each."""
    each_mb = memory_bytes * 3 // 8 // max(jobs, 1) // _MEMORY_B["MB"]
    return {
        "maintenance_work_mem": f"{min(max(each_mb, 64), 2048)}MB",
        "max_parallel_maintenance_workers": str(min(max(cpus // max(jobs, 1), 1), 4)),
    }


def refuse_fast(others: Iterable[str], *, accepted: bool) -> None:
    """Raise SettingsError where profile fast would endanger databases that nobody put at risk knowingly."""
    names = sorted(others)
    if names and not accepted:
        raise SettingsError(
            f"profile fast turns off fsync, full_page_writes and archiving for the whole cluster, which also holds "
            f"{', '.join(names)}: a crash of the host could corrupt all of it. Set profile to safe, or "
            "accept_cluster_risk to true."
        )


def plan_settings(
    profile: str, wishes: Mapping[str, str], running: Mapping[str, Running], prior: Mapping[str, str]
) -> SettingsPlan:
    """What to change where. Raises SettingsError naming every setting that cannot be changed, or not taken back.

    Under profile safe, other databases go on as they are: what a session may set is set in the restore's sessions only.
    """
    problems: list[str] = []
    server: list[Change] = []
    sessions: dict[str, str] = {}
    for name, value in wishes.items():
        now = running.get(name)
        problem = _problem(name, value, now)
        if problem:
            problems.append(problem)
            continue
        assert now is not None
        if profile == "safe" and now.context in SESSION_CONTEXTS:
            sessions[name] = value
            continue
        if now.source == "command line":
            continue  # it has that value already, else it were a problem
        differs = not same_value(value, now)
        server.append(Change(name, value, now.value, prior.get(name), differs and now.context == "postmaster"))
    if problems:
        raise SettingsError(" ".join(problems))
    return SettingsPlan(tuple(server), sessions)


def _problem(name: str, value: str, now: Running | None) -> str | None:
    if now is None:
        return f"settings: the server knows no setting {name}: check its spelling."
    if name in LIST_SETTINGS or now.context in {"internal", "backend", "superuser-backend"}:
        return f"settings: {name} cannot be changed for the time of a restore: leave it out."
    if name.endswith("_timeout") and name != "checkpoint_timeout":
        return f"settings: {name} would end the restore's own statements, those of the way back too: leave it out."
    if now.context == "postmaster" and name not in RESTARTABLE:
        return (
            f"settings: {name} takes a restart, and a server that does not start with it could not be brought back: "
            "leave it out, or set it for good in the server's own configuration."
        )
    if now.source == "command line" and not same_value(value, now):
        return (
            f"{name} is fixed to {now.value}{now.unit or ''} on the server's command line, which beats ALTER SYSTEM; "
            f"expected {value}: take it off the command line (the command of the container), or give it as null in "
            "settings to leave it alone."
        )
    return None


def revert_order(names: Iterable[str]) -> list[str]:
    """The order of the way back: what endangers the cluster first."""
    given = list(names)
    first = [name for name in ENDANGERS_CLUSTER if name in given]
    return first + [name for name in given if name not in first]


def same_value(wish: str, now: Running) -> bool:
    """Whether a value as one writes it (16GB, off) is the one that runs, as pg_settings has it (16384 and unit MB)."""
    if wish == now.value:
        return True
    if now.kind == "bool":
        return (wish.lower() in _TRUE) == (now.value == "on") and wish.lower() in _TRUE | _FALSE
    if now.kind not in {"integer", "real"}:
        return wish.lower() == now.value.lower()
    wished, runs = _quantity(wish, now.unit), _quantity(now.value, now.unit)
    return wished is not None and wished == runs


def is_false(value: str) -> bool:
    """Whether a value as one writes it turns a setting off."""
    return value.lower() in _FALSE


def _quantity(text: str, unit: str | None) -> Decimal | None:
    """A number in bytes or µs where it has a unit; None where it is none."""
    match = _NUMBER.fullmatch(text)
    if not match:
        return None
    try:
        number = Decimal(match[1])
    except InvalidOperation:
        return None
    if match[2]:
        scale = _MEMORY_B.get(match[2], _TIME_US.get(match[2]))
        return None if scale is None else number * scale
    if not unit:
        return number
    own = _NUMBER.fullmatch(unit)  # 8kB counts pages
    count, word = (Decimal(own[1]), own[2]) if own else (Decimal(1), unit)
    return number * count * _MEMORY_B.get(word, _TIME_US.get(word, 1))
