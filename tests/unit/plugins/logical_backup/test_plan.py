"""Which databases are dumped, and which dumps go: pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.dump_manifest import Manifest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.logical_backup.make import dump_command
from ansible_collections.cryptopip.marketdata.plugins.module_utils.logical_backup.plan import (
    check_removal,
    check_space,
    choose_databases,
    expected_size,
    is_due,
    surplus,
    verified_of,
)
from ansible_collections.cryptopip.marketdata.plugins.module_utils.logical_backup.protect import wanted
from ansible_collections.cryptopip.marketdata.plugins.module_utils.logical_backup.run import BackupError, duration
from ansible_collections.cryptopip.marketdata.plugins.module_utils.logical_backup.store import Dump, Verdict
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
GOOD, BAD = Verdict("2026-11-27T12:00:00+00:00", "contents"), Verdict("2026-11-27T12:00:00+00:00", "contents", "torn")


def manifest(database: str, hours_ago: int, *, cluster: str = "1", merged: str | None = "2026-11-01") -> Manifest:
    at = (NOW - timedelta(hours=hours_ago)).isoformat()
    return Manifest(
        *(database, at, at, cluster, "17.6", None, (), "directory", "zstd", "dump", "0" * 64, 1000, (), {}, {}),
        merged_until=merged,
    )


def dump(hours_ago: int, verdict: Verdict | None = GOOD, database: str = "lake", cluster: str = "1") -> Dump:
    name = f"{database}_{NOW - timedelta(hours=hours_ago):%Y%m%dT%H%M%SZ}"
    return Dump(Path("/d") / name, manifest(database, hours_ago, cluster=cluster), verdict)


def test_all_databases_are_dumped_or_those_asked_for_in_that_order() -> None:
    assert choose_databases([], {"b", "a"}) == ["a", "b"]
    assert choose_databases(["b", "a", "b"], {"b", "a"}) == ["b", "a"]
    with pytest.raises(BackupError, match="no database c, expected one of a"):
        choose_databases(["a", "c"], {"a"})
    with pytest.raises(BackupError, match="no database to dump"):
        choose_databases([], set())


def test_a_dump_is_due_where_no_verified_one_of_the_database_is_young_enough() -> None:
    dumps = [dump(30), dump(5, BAD), dump(4, None), dump(1, database="app")]
    assert is_due(dumps, "lake", None, NOW)
    assert is_due(dumps, "lake", timedelta(hours=30), NOW)
    assert not is_due(dumps, "lake", timedelta(hours=31), NOW)
    assert is_due([], "lake", timedelta(days=1000), NOW)


def test_the_newest_verified_are_kept_and_damaged_ones_are_left_alone() -> None:
    dumps = [dump(40), dump(1, BAD), dump(20), dump(30), dump(10, database="app")]
    assert surplus(dumps, "lake", 1) == [dump(40), dump(30)]
    assert surplus(dumps, "lake", 1, coming=1) == [dump(40), dump(30), dump(20)]
    assert surplus(dumps, "lake", 3) == []
    assert surplus(dumps, "lake", None) == []


@given(
    st.lists(st.tuples(st.integers(0, 500), st.sampled_from([GOOD, BAD, None])), unique_by=lambda x: x[0]),
    st.integers(1, 9),
)
def test_a_verified_dump_always_stays(given_: list[tuple[int, Verdict | None]], keep: int) -> None:
    dumps = [dump(*each) for each in given_]
    good = verified_of(dumps, "lake")
    gone = surplus(dumps, "lake", keep)
    left = [each for each in good if each not in gone]
    assert len(left) == min(keep, len(good))
    assert all(old.taken_at < new.taken_at for old in gone for new in left)


def test_the_last_verified_dump_goes_only_by_force() -> None:
    dumps = [dump(2, BAD), dump(1), dump(1, database="app")]
    check_removal(dumps, dumps[0], force=False)
    check_removal(dumps, dumps[1], force=True)
    with pytest.raises(BackupError, match="the last verified dump of lake"):
        check_removal(dumps, dumps[1], force=False)
    check_removal([*dumps, dump(9)], dumps[1], force=False)


def test_room_is_asked_for_as_the_last_dump_took_it() -> None:
    assert expected_size([], "lake", 5000) == 500
    assert expected_size([dump(1)], "lake", 5000) == 0  # the one there is took no byte
    check_space(10, 10, "/d")
    with pytest.raises(BackupError, match=r"/d has 1 MB free, the dump takes about 2 MB"):
        check_space(2 << 20, 1 << 20, "/d")


def test_only_verified_dumps_of_this_very_database_protect() -> None:
    dumps = [
        dump(1),
        dump(2, BAD),
        dump(3, database="app"),
        dump(4, cluster="2"),
        Dump(Path("/d/x"), None, None, "torn"),
    ]
    assert wanted(dumps, "lake", "1") == {str(dumps[0].path): ("2026-11-01", GOOD.at)}


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("90min", 5400), ("24h", 86400), ("7 d", 604800)])
def test_a_duration_carries_its_unit(text: str, seconds: int) -> None:
    assert duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "3", "1.5h", "-1h", "1 week", "h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(BackupError, match="expected a number and a unit"):
        duration(text)


def test_pg_dump_sees_the_snapshot_in_both_formats() -> None:
    for format_ in ("directory", "custom"):
        assert "--snapshot=00-1" in dump_command(format_, 3, "00-1")
    assert {"--jobs=3", "--compress=zstd:3"} <= set(dump_command("directory", 3, "00-1"))
    assert {"--format=custom", "--compress=0"} <= set(dump_command("custom", 3, "00-1"))
