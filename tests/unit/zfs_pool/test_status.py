"""What zpool says, read from recordings of a machine of ours (OpenZFS's version is in each file's name)."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.zfs_pool_disks import Device, Disks
from ansible_collections.cryptopip.marketdata.plugins.module_utils.zfs_pool_report import report
from ansible_collections.cryptopip.marketdata.plugins.module_utils.zfs_pool_run import pool_of
from ansible_collections.cryptopip.marketdata.plugins.module_utils.zfs_pool_status import (
    PoolStatus,
    Scan,
    StatusError,
    Vdev,
    parse_importable,
    parse_list_json,
    parse_list_text,
    parse_status_json,
    parse_status_text,
    parse_version,
)

RECORDED = Path(__file__).parent / "recorded"
STATES = sorted(path.name.removesuffix("-2.3.9.guids.txt") for path in RECORDED.glob("*.guids.txt"))
BY_ID = "/dev/disk/by-id/virtio-TANK"


def recorded(name: str) -> str:
    return (RECORDED / name).read_text()


def status(name: str) -> PoolStatus:
    """The one pool of a recording."""
    [pool] = parse_status_json(recorded(f"{name}-2.3.9.json"))
    return pool


def leaf(name: str, disk: int) -> Vdev:
    """The disk TANKn of a recording."""
    [found] = [one for one in status(name).leaves() if one.path == f"{BY_ID}{disk}-part1"]
    return found


def shape(pool: PoolStatus) -> list[list[str]]:
    """Which disks stand together."""
    return [[one.path.removeprefix(BY_ID).removesuffix("-part1") for one in vdev.leaves()] for vdev in pool.vdevs]


@pytest.mark.parametrize("name", STATES)
def test_text_says_what_json_says(name: str) -> None:
    """OpenZFS before 2.3 has no JSON, and its text is the same."""
    assert parse_status_text(recorded(f"{name}-2.3.9.txt"), recorded(f"{name}-2.3.9.guids.txt")) == [status(name)]


def test_there_are_recordings() -> None:
    assert {"healthy", "faulted", "resilvering", "removed", "missing", "scrubbed", "data_errors"} <= set(STATES)


def test_a_healthy_pool() -> None:
    pool = status("healthy")
    assert (pool.name, pool.state, pool.scan, pool.data_errors, pool.message) == ("tank", "ONLINE", None, 0, "")
    assert [(vdev.name, vdev.kind) for vdev in pool.vdevs] == [("mirror-0", "mirror"), ("mirror-1", "mirror")]
    assert shape(pool) == [["1", "2"], ["3", "4"]]
    assert leaf("healthy", 1).guid == "3933627393150213204"
    assert {one.state for one in pool.leaves()} == {"ONLINE"}


@pytest.mark.parametrize(
    ("name", "disk", "state"),
    [("faulted", 3, "FAULTED"), ("offline", 4, "OFFLINE"), ("removed", 2, "REMOVED"), ("missing", 4, "UNAVAIL")],
)
def test_a_degraded_pool(name: str, disk: int, state: str) -> None:
    assert status(name).state == "DEGRADED"
    assert leaf(name, disk).state == state
    assert status(name).message.startswith("One or more devices")
    assert pool_of("tank", status(name).vdevs, Disks()).ailing == {f"{BY_ID}{disk}"}


def test_a_replacement_that_runs_counts_as_its_new_disk_and_is_not_copied_from() -> None:
    pool = status("resilvering")
    assert pool.scan == Scan("resilver", "scanning", None, 0)
    assert shape(pool) == [["1", "2", "5"], ["3", "4"]]
    planned = pool_of("tank", pool.vdevs, Disks())
    assert planned.mirrors == ((f"{BY_ID}1", f"{BY_ID}5"), (f"{BY_ID}3", f"{BY_ID}4"))
    assert planned.ailing == {f"{BY_ID}5"}
    assert shape(status("replaced")) == [["1", "5"], ["3", "4"]]
    assert pool_of("tank", status("replaced").vdevs, Disks()).ailing == frozenset()


def test_scrubs_and_errors() -> None:
    assert status("scrubbed").scan == Scan("scrub", "finished", 1795797074, 0)
    assert status("scrubbing").scan == Scan("scrub", "scanning", None, 0)
    assert leaf("repaired", 1).errors == (0, 0, 86)
    assert status("repaired").data_errors == 0
    assert status("data_errors").data_errors == 4
    assert leaf("data_errors", 4).errors == (0, 0, 14)


def test_logs_and_spares_are_no_mirrors_of_the_data() -> None:
    pool = status("groups")
    assert [(vdev.group, vdev.kind) for vdev in pool.vdevs if vdev.group != "data"] == [
        ("log", "file"),
        ("spare", "disk"),
    ]
    assert len(pool_of("tank", pool.vdevs, Disks()).mirrors) == 2


def test_pools_that_could_be_imported() -> None:
    [whole] = parse_importable(recorded("importable-2.3.9.txt"), "/dev/disk/by-id")
    assert (whole.name, whole.guid, whole.state, whole.message) == ("tank", "10601961970160564844", "ONLINE", "")
    assert [[one.path for one in vdev.leaves()] for vdev in whole.vdevs] == [
        [f"{BY_ID}1", f"{BY_ID}5"],
        [f"{BY_ID}3", f"{BY_ID}4"],
    ]
    [missing] = parse_importable(recorded("importable_missing-2.3.9.txt"), "/dev/disk/by-id")
    assert missing.state == "DEGRADED"
    assert missing.message == "One or more devices contains corrupted data."
    assert [one.state for vdev in missing.vdevs for one in vdev.leaves()] == ["ONLINE"] * 3 + ["UNAVAIL"]
    assert parse_importable("", "/dev/disk/by-id") == []


def test_capacity_in_both_forms() -> None:
    columns = ("size", "allocated", "free", "capacity", "fragmentation", "health")
    found = parse_list_json(recorded("list-2.3.9.json"))
    assert found == parse_list_text(recorded("list-2.3.9.txt"), columns)
    assert found["tank"]["size"] == "4026531840"


def test_the_report() -> None:
    capacity = parse_list_json(recorded("list-2.3.9.json"))["tank"]
    whole = report(status("scrubbed"), capacity, Disks(), now=1795797074 + 2 * 86400)
    assert (whole["healthy"], whole["scrub_age_days"], whole["size"], whole["data_errors"]) == (True, 2, 4026531840, 0)
    assert whole["scan"] == {"function": "scrub", "state": "finished", "ended": "2026-11-27T16:31:14Z", "errors": 0}
    assert whole["disks"][0] == {
        "disk": f"{BY_ID}1",
        "vdev": "mirror-0",
        "group": "data",
        "state": "ONLINE",
        "read_errors": 0,
        "write_errors": 0,
        "checksum_errors": 0,
        "replacing": False,
    }
    after_resilver = report(status("replaced"), capacity, Disks(), now=0)
    assert (after_resilver["healthy"], after_resilver["scrub_age_days"]) == (True, None)
    for name in ("faulted", "offline", "removed", "missing", "resilvering", "repaired", "data_errors"):
        assert report(status(name), capacity, Disks(), now=0)["healthy"] is False, name
    assert report(status("groups"), capacity, Disks(), now=0)["healthy"] is True
    running = report(status("resilvering"), capacity, Disks(), now=0)["disks"]
    assert [row["disk"][-1] for row in running if row["replacing"]] == ["2", "5"]


def test_versions() -> None:
    assert parse_version("zfs-2.3.9-0+deb13u1\nzfs-kmod-2.3.9-0+deb13u1\n") == (2, 3)
    assert parse_version("zfs-2.1.11-1\nzfs-kmod-2.1.11-1\n") == (2, 1)
    with pytest.raises(StatusError, match="is this OpenZFS 2"):
        parse_version("zfs version v0.7\n")


@pytest.mark.parametrize("text", ["", "[]", '{"output_version": {"command": "zpool list"}, "pools": {}}'])
def test_other_output_is_an_error(text: str) -> None:
    with pytest.raises(StatusError):
        parse_status_json(text)


def test_what_would_be_lost_in_reading_is_an_error() -> None:
    text = recorded("groups-2.3.9.txt").replace("spares", "novelty")
    with pytest.raises(StatusError, match="novelty"):
        parse_status_text(text)
    with pytest.raises(StatusError, match="changed while it was asked"):
        parse_status_text(recorded("healthy-2.3.9.txt"), recorded("groups-2.3.9.guids.txt"))


def test_a_pool_is_known_by_the_labels_on_its_disks_not_by_paths() -> None:
    """After a reboot the kernel may call the disks otherwise than the pool remembers."""
    guids = {number: leaf("healthy", number).guid for number in range(1, 5)}
    swapped = Disks(
        {
            f"/dev/vd{letter}": Device(
                f"/dev/vd{letter}", links=(f"{BY_ID}{number}",), vdev_guids=frozenset({guids[number]})
            )
            for number, letter in zip(range(1, 5), "edcb", strict=True)
        }
    )
    by_kernel_name = [
        Vdev(
            name="mirror-0",
            kind="mirror",
            state="ONLINE",
            children=tuple(
                Vdev(
                    name=f"/dev/vd{letter}1", kind="disk", state="ONLINE", guid=guids[number], path=f"/dev/vd{letter}1"
                )
                for number, letter in ((1, "b"), (2, "c"))
            ),
        )
    ]
    assert pool_of("tank", by_kernel_name, swapped).mirrors == ((f"{BY_ID}1", f"{BY_ID}2"),)
