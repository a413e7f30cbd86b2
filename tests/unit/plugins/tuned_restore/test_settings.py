"""Which settings a restore changes, and what it refuses to change: pure."""

from __future__ import annotations

import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.settings import (
    ENDANGERS_CLUSTER,
    SEED,
    Running,
    SettingsError,
    memory_settings,
    plan_settings,
    refuse_fast,
    revert_order,
    same_value,
    wished_settings,
)
from hypothesis import given
from hypothesis import strategies as st

GB = 1 << 30
RUNNING = {
    "max_wal_size": Running("1024", "MB", kind="integer"),
    "autovacuum": Running("on", kind="bool"),
    "archive_mode": Running("on", context="postmaster", kind="enum"),
    "fsync": Running("on", kind="bool"),
    "full_page_writes": Running("on", kind="bool"),
    "checkpoint_timeout": Running("300", "s", kind="integer"),
    "checkpoint_completion_target": Running("0.9", kind="real"),
    "track_counts": Running("on", context="superuser", kind="bool"),
    "synchronous_commit": Running("on", context="user", kind="enum"),
    "bgwriter_delay": Running("200", "ms", kind="integer"),
    "maintenance_work_mem": Running("65536", "kB", context="user", kind="integer"),
    "max_parallel_maintenance_workers": Running("2", context="user", kind="integer"),
    "shared_buffers": Running("16384", "8kB", context="postmaster", kind="integer"),
    "statement_timeout": Running("0", "ms", context="user", kind="integer"),
    "search_path": Running('"$user", public', context="user"),
}


def wishes(profile: str, **overrides: str | None) -> dict[str, str]:
    return wished_settings(profile, memory_bytes=16 * GB, cpus=4, jobs=2, overrides=overrides)


def test_fast_changes_the_seeds_ten_and_memory_on_the_server() -> None:
    plan = plan_settings("fast", wishes("fast"), RUNNING, {"archive_mode": "always", "max_wal_size": "2GB"})
    assert {change.name: change.value for change in plan.server} == {
        **SEED,
        "maintenance_work_mem": "2048MB",
        "max_parallel_maintenance_workers": "2",
    }
    assert plan.sessions == {}
    prior = {change.name: change.prior for change in plan.server if change.prior is not None}
    assert prior == {"archive_mode": "always", "max_wal_size": "2GB"}
    assert [change.name for change in plan.server if change.needs_restart] == ["archive_mode"]


def test_safe_keeps_what_protects_the_cluster_and_leaves_other_sessions_alone() -> None:
    plan = plan_settings("safe", wishes("safe"), RUNNING, {})
    names = {change.name for change in plan.server}
    assert names == {
        *("max_wal_size", "autovacuum", "checkpoint_timeout", "checkpoint_completion_target", "bgwriter_delay")
    }
    assert set(plan.sessions) == {
        *("track_counts", "synchronous_commit", "maintenance_work_mem", "max_parallel_maintenance_workers")
    }
    assert not plan.needs_restart


@pytest.mark.parametrize("name", ENDANGERS_CLUSTER)
def test_safe_cannot_be_talked_out_of_it(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        wishes("safe", **{name: "off"})


def test_no_restart_where_archiving_is_off_already() -> None:
    off = {**RUNNING, "archive_mode": Running("off", context="postmaster", kind="enum")}
    assert not plan_settings("fast", wishes("fast"), off, {}).needs_restart


def test_an_operators_settings_win_and_null_leaves_one_alone() -> None:
    wished = wishes("fast", max_wal_size="64GB", archive_mode=None)
    assert wished["max_wal_size"] == "64GB"
    assert "archive_mode" not in wished


def test_a_setting_on_the_command_line_is_named_with_its_value() -> None:
    fixed = {**RUNNING, "fsync": Running("on", source="command line", kind="bool")}
    with pytest.raises(SettingsError, match=r"fsync is fixed to on on the server's command line.*expected off"):
        plan_settings("fast", wishes("fast"), fixed, {})
    same = {**RUNNING, "fsync": Running("off", source="command line", kind="bool")}
    assert "fsync" not in {change.name for change in plan_settings("fast", wishes("fast"), same, {}).server}


def test_every_impossible_setting_is_named_at_once() -> None:
    wished = wishes("fast", shared_buffers="8GB", search_path="x", no_such="1", statement_timeout="1s")
    with pytest.raises(SettingsError) as caught:
        plan_settings("fast", wished, RUNNING, {})
    for name in (
        "statement_timeout would end",
        "shared_buffers takes a restart",
        "search_path cannot be changed",
        "no setting no_such",
    ):
        assert name in str(caught.value)


def test_fast_is_refused_beside_other_databases_unless_accepted() -> None:
    refuse_fast([], accepted=False)
    refuse_fast(["app"], accepted=True)
    with pytest.raises(SettingsError, match="app, lake"):
        refuse_fast(["lake", "app"], accepted=False)


@pytest.mark.parametrize(
    ("wish", "running", "same"),
    [
        ("16GB", Running("16384", "MB", kind="integer"), True),
        ("16GB", Running("16383", "MB", kind="integer"), False),
        ("128MB", Running("16384", "8kB", kind="integer"), True),
        ("15min", Running("900", "s", kind="integer"), True),
        ("1000ms", Running("1000", "ms", kind="integer"), True),
        ("1s", Running("1000", "ms", kind="integer"), True),
        ("0.90", Running("0.9", kind="real"), True),
        ("false", Running("off", kind="bool"), True),
        ("off", Running("on", kind="bool"), False),
        ("maybe", Running("off", kind="bool"), False),
        ("OFF", Running("off", kind="enum"), True),
        ("..", Running("1", kind="integer"), False),
        ("7parsecs", Running("7", kind="integer"), False),
    ],
)
def test_values_are_compared_in_their_units(wish: str, running: Running, same: bool) -> None:
    assert same_value(wish, running) is same


@given(st.integers(1, 1 << 50), st.integers(1, 512), st.integers(1, 512))
def test_memory_stays_within_the_hosts_and_within_what_a_build_can_use(memory: int, cpus: int, jobs: int) -> None:
    settings = memory_settings(memory, cpus, jobs)
    each = int(settings["maintenance_work_mem"].removesuffix("MB"))
    assert 64 <= each <= 2048
    assert each == 64 or each * jobs * (1 << 20) <= memory * 3 // 8
    assert 1 <= int(settings["max_parallel_maintenance_workers"]) <= 4


def test_the_way_back_begins_with_what_endangers_the_cluster() -> None:
    order = revert_order(SEED)
    assert order[:3] == ["full_page_writes", "fsync", "archive_mode"]
    assert sorted(order) == sorted(SEED)
    assert revert_order(["autovacuum"]) == ["autovacuum"]
