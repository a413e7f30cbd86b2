"""Backups in a store: which count as complete, what is found wrong with one, and what retention may remove."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from cryptopip_wale import catalog, durable, retention, verification
from cryptopip_wale.errors import WaleError
from cryptopip_wale.store import FileStore
from hypothesis import given
from hypothesis import strategies as st

NAME = "base_000000010000000000000003_00000040"
NEWER = "base_000000010000000000000008_00000040"


def add(root: Path, name: str, finished_at: str) -> None:
    """A backup of one partition, as a push leaves it."""
    part = root / "basebackups_005" / name / "tar_partitions" / "part_00000000.tar.lzo"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"whole")
    parts = [{"path": str(part.relative_to(root)), "size_bytes": 5, "sha256": durable.hash_file(part)}]
    facts: dict[str, Any] = dict.fromkeys(catalog.FIELDS, "x")
    facts |= {"name": name, "finished_at": finished_at, "parts": parts, "tablespaces": {}}
    catalog.write_json(FileStore(root), catalog.manifest_path(name), facts)
    (root / catalog.sentinel_path(name)).write_text("{}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The store's folder of a cluster, with one backup."""
    root = tmp_path / "42"
    add(root, NAME, "2026-11-20T00:00:00.000000Z")
    return root


def part_of(root: Path) -> Path:
    return next((root / "basebackups_005" / NAME).rglob("part_*"))


def test_a_whole_backup_has_no_problems(root: Path) -> None:
    assert verification.part_problems(FileStore(root), catalog.read_manifest(FileStore(root), NAME)) == []


@pytest.mark.parametrize(
    ("harm", "said"), [(None, "missing"), (b"who", "holds 3 bytes, expected 5"), (b"whoLe", "SHA-256")]
)
def test_a_harmed_partition_is_named(root: Path, harm: bytes | None, said: str) -> None:
    path = part_of(root)
    if harm is None:
        path.unlink()
    else:
        path.write_bytes(harm)
    (problem,) = verification.part_problems(FileStore(root), catalog.read_manifest(FileStore(root), NAME))
    assert problem["object"] == str(path.relative_to(root))
    assert said in problem["problem"]


def test_a_partition_it_never_had_is_named(root: Path) -> None:
    stranger = part_of(root).with_name("part_00000001.tar.lzo")
    stranger.write_bytes(b"another backup's")
    problems = verification.part_problems(FileStore(root), catalog.read_manifest(FileStore(root), NAME))
    assert problems == [{"object": str(stranger.relative_to(root)), "problem": "not in the manifest"}]


def test_a_backup_without_sentinel_is_not_listed_and_swept(root: Path) -> None:
    (root / catalog.sentinel_path(NAME)).unlink()
    assert catalog.list_backups(FileStore(root)) == ([], [])
    retention.sweep(FileStore(root))
    assert not list((root / "basebackups_005").iterdir())
    assert not (root / catalog.manifest_path(NAME)).exists()


@pytest.mark.parametrize(
    "under_way", ["base_000000010000000000000008_00000041", "base_000000020000000000000001_00000040"]
)
def test_a_removal_leaves_a_push_alone_that_another_host_is_at(root: Path, under_way: str) -> None:
    add(root, NEWER, "2026-11-21T00:00:00.000000Z")
    dead = "base_000000010000000000000004_00000040"
    for name in (under_way, dead):
        add(root, name, "")
        (root / catalog.sentinel_path(name)).unlink()
    catalog.write_json(FileStore(root), catalog.verdict_path(NEWER), {"verified": True, "verified_at": "x"})
    retention.delete(FileStore(root), NAME)
    assert {path.name for path in (root / "basebackups_005").iterdir() if path.is_dir()} == {NEWER, under_way}
    assert {path.stem for path in (root / "manifests").iterdir()} == {NEWER, under_way}
    retention.sweep(FileStore(root))
    assert {path.name for path in (root / "basebackups_005").iterdir() if path.is_dir()} == {NEWER}


@pytest.mark.parametrize("left", [None, b"", b"[]", b'{"name": "another"}'])
def test_a_backup_whose_manifest_is_lost_is_told_apart_and_kept(root: Path, left: bytes | None) -> None:
    path = root / catalog.manifest_path(NAME)
    path.unlink()
    if left is not None:
        path.write_bytes(left)
    assert catalog.list_backups(FileStore(root)) == ([], [NAME])
    with pytest.raises(WaleError) as found:
        catalog.read_manifest(FileStore(root), NAME)
    assert (found.value.code, found.value.problems[0]["object"]) == ("corrupt", f"manifests/{NAME}.json")
    retention.sweep(FileStore(root))
    assert part_of(root).exists()


def test_the_backup_that_ended_last_is_the_newest_whatever_its_timeline(root: Path) -> None:
    second_timeline = "base_000000020000000000000002_00000040"
    add(root, second_timeline, "2026-11-21T00:00:00.000000Z")
    assert [row["name"] for row in catalog.list_backups(FileStore(root))[0]] == [NAME, second_timeline]


def test_the_only_verified_backup_stays(root: Path) -> None:
    catalog.write_json(FileStore(root), catalog.verdict_path(NAME), {"verified": True})
    add(root, NEWER, "2026-11-21T00:00:00.000000Z")  # never verified
    with pytest.raises(WaleError, match="no other backup") as refused:
        retention.delete(FileStore(root), NAME)
    assert refused.value.code == "last_verified"
    assert json.loads((root / catalog.manifest_path(NAME)).read_text())["name"] == NAME


def test_the_wal_of_a_removed_backup_goes_and_no_other(root: Path) -> None:
    add(root, NEWER, "2026-11-21T00:00:00.000000Z")
    catalog.write_json(FileStore(root), catalog.verdict_path(NEWER), {"verified": True})
    (root / "wal_005").mkdir()
    for number in range(2, 11):
        (root / "wal_005" / f"0000000100000000{number:08X}.lzo").write_bytes(b"")
    answer = retention.delete(FileStore(root), NAME)
    assert answer["removed_wal"] == [f"0000000100000000{number:08X}" for number in range(2, 8)]
    assert len(list((root / "wal_005").iterdir())) == 3
    assert catalog.complete_names(FileStore(root)) == [NEWER]


@pytest.mark.parametrize("keep", [0, -1])
def test_retention_never_leaves_nothing(root: Path, keep: int) -> None:
    with pytest.raises(WaleError, match="expected at least 1"):
        retention.retain(FileStore(root), keep, dry_run=False)


segment_names = st.builds("{:08X}{:08X}{:08X}".format, st.integers(1, 3), st.integers(0, 2), st.integers(0, 255))


@given(st.lists(segment_names), st.lists(segment_names))
def test_all_wal_from_the_oldest_backup_on_stays(archived: list[str], starts: list[str]) -> None:
    removed = retention.unneeded_wal(archived, [f"base_{start}_00000028" for start in starts])
    for name in archived:
        assert (name in removed) == (bool(starts) and all(name[8:] < start[8:] for start in starts))


def test_history_files_stay() -> None:
    assert retention.unneeded_wal(["00000002.history"], [f"base_{'F' * 24}_00000028"]) == []


def test_a_second_one_at_a_time_is_busy(root: Path) -> None:
    with catalog.exclusive(FileStore(root)), pytest.raises(WaleError) as refused, catalog.exclusive(FileStore(root)):
        pytest.fail("two held the lock")
    assert refused.value.code == "busy"


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    class Torn(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if hasattr(self, "had"):
                raise OSError("the source is gone")
            self.had = True
            return b"half"

    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="gone"):
        durable.write_durably(path, Torn(), tmp_path / "tmp")
    assert path.read_bytes() == b"old"
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_removal_can_be_told_without_being_made(tmp_path: Path) -> None:
    for name, at in ((NAME, "2026-01-01"), (NEWER, "2026-01-02")):
        add(tmp_path, name, at)
    with pytest.raises(WaleError, match="no other backup"):
        retention.delete(FileStore(tmp_path), NAME, dry_run=True)
    catalog.write_json(FileStore(tmp_path), catalog.verdict_path(NEWER), {"verified": True, "verified_at": "x"})
    (tmp_path / "wal_005").mkdir()
    for segment in ("000000010000000000000003", "000000010000000000000008"):
        (tmp_path / "wal_005" / f"{segment}.lzo").touch()
    told = retention.delete(FileStore(tmp_path), NAME, dry_run=True)
    assert told == {"removed": [NAME], "removed_wal": ["000000010000000000000003"]}
    assert catalog.complete_names(FileStore(tmp_path)) == [NAME, NEWER]
    assert retention.delete(FileStore(tmp_path), NAME) == told
    assert catalog.complete_names(FileStore(tmp_path)) == [NEWER]
