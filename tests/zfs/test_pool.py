"""The module zfs_pool on a real pool. The tests build on each other: each takes the pool as the one before left it."""

from __future__ import annotations

import pytest

from tests.zfs.machine import Machine, by_id, until

# A boot and a resilver under emulation, on a machine that has other work, take their time.
pytestmark = pytest.mark.timeout(3600)

ONE = [[by_id(1), by_id(2)]]
PROPERTIES = {"ashift": 12, "autotrim": True, "comment": "ticks"}


def test_a_pool_is_foretold_and_made(machine: Machine) -> None:
    foretold = machine.pool(check=True, mirrors=ONE, properties=PROPERTIES, mountpoint="/tank")
    assert foretold["changed"] is True
    assert machine.shell("zpool list -H").strip() in {"", "no pools available"}
    made = machine.pool(mirrors=ONE, properties=PROPERTIES, mountpoint="/tank")
    assert (made["changed"], made["commands"], made["diff"]) == (True, foretold["commands"], foretold["diff"])
    tree = f"tank\n  mirror\n    {by_id(1)}\n    {by_id(2)}\n  ashift=12\n  autotrim=on\n  comment=ticks\n"
    assert (made["diff"]["before"], made["diff"]["after"]) == ("", tree)
    assert machine.shell("zpool get -H -o value ashift,autotrim,comment tank").split() == ["12", "on", "ticks"]
    assert [(row["disk"], row["state"]) for row in made["pools"][0]["disks"]] == [
        (by_id(1), "ONLINE"),
        (by_id(2), "ONLINE"),
    ]


def test_a_second_run_under_other_names_changes_nothing(machine: Machine) -> None:
    kernel = machine.shell(f"basename $(readlink -f {by_id(2)})").strip()
    before = machine.status()
    again = machine.pool(mirrors=[[kernel, "virtio-TANK1"]], properties=PROPERTIES)
    assert (again["changed"], again["commands"]) == (False, [])
    assert again["disks"] == {kernel: by_id(2), "virtio-TANK1": by_id(1)}
    assert again["diff"]["before"] == again["diff"]["after"]
    assert machine.status() == before


def test_a_disk_in_use_is_refused_and_the_pool_stays_as_it_is(machine: Machine) -> None:
    machine.shell(f"mkfs.ext4 -q {by_id(4)}")
    before = machine.status()
    refused = machine.pool(mirrors=[*ONE, [by_id(3), by_id(4)]])
    assert (refused["failed"], refused["changed"]) == (True, False)
    assert f"disk {by_id(4)} holds a file system (ext4), expected an empty one" in refused["msg"]
    assert machine.status() == before
    assert machine.shell(f"blkid -p -o value -s TYPE {by_id(4)}") == "ext4\n"
    assert machine.shell(f"blkid -p {by_id(3)} || echo empty") == "empty\n"
    machine.shell(f"wipefs -q -a {by_id(4)}")


def test_a_disk_pulled_under_load_is_replaced_and_no_byte_is_lost(machine: Machine) -> None:
    machine.shell("head -c 40M /dev/urandom >/tank/before; cd /tank; sha256sum before >/root/sums; sync")
    # Each file's sum is of what was meant to be written, and is told once the file is durable.
    load = machine.spawn("""
        rm -f /root/enough
        i=0
        while [ ! -e /root/enough ]; do
            i=$((i + 1))
            head -c 100k /dev/urandom >/root/block && cp /root/block /tank/$i && sync /tank/$i || exit
            echo "$(sha256sum </root/block | cut -c 1-64)  $i"
        done
    """)
    assert load.stdout is not None
    try:
        written = [load.stdout.readline()]
        machine.vm("unplug", "--disk", "tank2")
        until(lambda: "DEGRADED" in machine.status(), "the pool to notice that its disk is gone")
        replaced = machine.pool(mirrors=[[by_id(1), by_id(5)]], replace={by_id(2): by_id(5)}, wait=True)
        assert replaced["changed"] is True, replaced
    finally:
        machine.shell("touch /root/enough")
        written += load.communicate()[0].splitlines(keepends=True)
    assert load.returncode == 0
    assert len(written) > 2, "hardly any load: this run proved nothing"
    machine.shell(f"cat >>/root/sums <<'SUMS'\n{''.join(written)}SUMS\nzpool export tank")
    taken = machine.pool(mirrors=[[by_id(1), by_id(5)]])
    assert "zpool import" in taken["commands"][0]
    machine.shell(
        "cd /tank; sha256sum --quiet -c /root/sums; zpool scrub -w tank"
    )  # read from the disks, not from memory
    report = machine.report()
    assert (report["healthy"], report["data_errors"], report["scan"]["errors"]) == (True, 0, 0)
    assert {row["disk"] for row in report["disks"]} == {by_id(1), by_id(5)}
