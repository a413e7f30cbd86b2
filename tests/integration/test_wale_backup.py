"""Base backups by WAL-E on PostgreSQL 17: listed only when whole, harm is named, the last good one is never removed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.harness.process import ROOT, until
from tests.integration.wale_harness import PGDATA, PYTHON, STORE, Pair, killing, run

pytestmark = pytest.mark.database


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A server and its sidecar, for all tests here."""
    run(str(ROOT / "roles/wale/files/build_image.sh"))
    pair = Pair(tmp_path_factory.mktemp("wale"))
    try:
        pair.up()
        yield pair
    finally:
        pair.down()


@pytest.fixture
def backup(pair: Pair) -> str:
    """Name of a whole backup."""
    names = pair.names()
    return names[-1] if names else pair.push()


def backup_sessions(pair: Pair) -> str:
    return pair.sql("select count(*) from pg_stat_activity where application_name = 'cryptopip-wale'")


def test_the_commands_of_the_seed_system_work_as_they_are(pair: Pair) -> None:
    first = pair.push()
    second = pair.push()
    listed = pair.sidecar("wal-e", "backup-list").stdout.splitlines()
    assert {first, second} <= {line.split("\t")[0] for line in listed}
    pair.sidecar("wal-e", "delete", "retain", "1")  # without --confirm it only tells
    assert {first, second} <= set(pair.names())
    wal = set(pair.shell(f"ls {pair.root}/wal_005").split())
    pair.sidecar("wal-e", "delete", "--confirm", "retain", "1")
    assert pair.names() == [second]
    left = set(pair.shell(f"ls {pair.root}/wal_005").split())
    start = second.split("_")[1]
    assert left == {name for name in wal if name[:24] >= start}
    assert left < wal, "there was no older WAL: this run proved nothing"
    assert pair.answer("verify", second)["backup"]["verified"] is True


def test_the_manifest_tells_every_partition_and_the_label_is_the_last(pair: Pair, backup: str) -> None:
    (row,) = [row for row in pair.answer("list")["backups"] if row["name"] == backup]
    assert row["timeline"] == 1
    assert row["system_identifier"] == pair.sql("select system_identifier from pg_control_system()")
    assert row["started_at"] < row["finished_at"]
    folder = f"{pair.root}/basebackups_005/{backup}"
    sizes = pair.shell(f"find {folder} -type f -printf '%s\\n'").split()
    assert row["size_bytes"] == sum(map(int, sizes))
    last = pair.shell(f"ls {folder}/tar_partitions").split()[-1]
    label = pair.shell(f"lzop -dc {folder}/tar_partitions/{last} | tar -xO backup_label")
    assert f"START WAL LOCATION: {row['start_lsn']} (file {backup.split('_')[1]})" in label


KILLED = {
    "during an upload": killing("store.adopt_durably", 1, after=False),
    "between upload and label": killing("store.write_durably", 2, after=False),
    "between label and manifest": killing("store.write_durably", 2, after=True),
    "between manifest and sentinel": killing("store.write_durably", 4, after=False),
}


@pytest.mark.parametrize("code", KILLED.values(), ids=KILLED)
def test_a_killed_push_is_not_listed_and_the_next_one_is(pair: Pair, code: str) -> None:
    before = pair.names()
    pair.killed_push(code)
    folders = pair.shell(f"ls -d {pair.root}/basebackups_005/base_*/").split()
    assert len(folders) == len(before) + 1, "it left nothing: this run proved nothing"
    assert pair.names() == before
    listed = pair.sidecar("wal-e", "backup-list").stdout.splitlines()[1:]
    assert [line.split("\t")[0] for line in listed] == before
    until(lambda: backup_sessions(pair) == "0", "the server to forget the killed backup", 30, pause=0.2)
    name = pair.push()
    assert pair.names() == [*before, name]
    assert len(pair.shell(f"ls -d {pair.root}/basebackups_005/base_*/").split()) == len(before) + 1
    assert pair.answer("verify", name)["backup"]["verified"] is True
    pair.sidecar("wal-e", "delete", "--confirm", "retain", "1")


def test_a_push_killed_after_its_sentinel_is_whole(pair: Pair) -> None:
    before = pair.names()
    pair.killed_push(killing("store.write_durably", 4, after=True))
    (name,) = set(pair.names()) - set(before)
    assert pair.answer("verify", name)["backup"]["verified"] is True


REMOVING = {
    "before the sentinel": killing("store.remove_durably", 1, after=False),
    "after the sentinel": killing("store.remove_durably", 1, after=True),
    "between partitions and manifest": killing("store.remove_durably", 2, after=False),
    "before the WAL": killing("retention.trim_wal", 1, after=False),
}


@pytest.mark.parametrize("code", REMOVING.values(), ids=REMOVING)
def test_a_killed_removal_leaves_nothing_half_listed(pair: Pair, code: str) -> None:
    old, new = pair.push(), pair.push()
    call = (
        "from cryptopip_wale import config, retention, store\n"
        "retention.retain(store.open_store(config.read_config()), 1, dry_run=False)"
    )
    done = pair.sidecar(PYTHON, "-c", code + call, check=False)
    assert done.returncode == 137, f"not killed: this run proved nothing: {done.stderr}"
    assert new in pair.names()
    for name in pair.names():
        assert pair.answer("verify", name)["backup"]["verified"] is True, "a listed backup is not whole"
    pair.sidecar("wal-e", "delete", "--confirm", "retain", "1")
    assert pair.names() == [new]
    assert old not in pair.shell(f"find {pair.root}")


@pytest.mark.parametrize("harm", ["rm {}", "truncate -s -9 {}", "printf harm | dd of={} bs=1 seek=60 conv=notrunc"])
@pytest.mark.parametrize("part", ["data", "label"])
def test_a_harmed_partition_is_named_and_neither_fetched_nor_relied_on(
    pair: Pair, backup: str, harm: str, part: str
) -> None:
    older = backup
    backup = pair.push()
    parts = pair.shell(f"ls {pair.root}/basebackups_005/{backup}/tar_partitions/*").split()
    victim = parts[0] if part == "data" else parts[-1]
    pair.shell(f"cp {victim} {STORE}/kept; {harm.format(victim)}")
    try:
        verified = pair.sidecar("cryptopip-wale", "verify", backup, check=False)
        found = pair.answer("verify", backup)
        fetched = pair.sidecar("wal-e", "backup-fetch", "/var/lib/postgresql/data/never", backup, check=False)
        retained = pair.sidecar("wal-e", "delete", "--confirm", "retain", "1", check=False)
        assert older in pair.names()
        (row,) = [row for row in pair.answer("list")["backups"] if row["name"] == backup]
        assert row["verified"] is False
    finally:
        pair.sidecar("mv", f"{STORE}/kept", victim)
    assert verified.returncode == 1
    assert found["error"] == "corrupt"
    assert [problem["object"] for problem in found["problems"]] == [victim.removeprefix(f"{pair.root}/")]
    assert (fetched.returncode, retained.returncode) == (1, 1)
    assert victim.rsplit("/", 1)[1] in fetched.stderr
    assert not pair.exists("/var/lib/postgresql/data/never")
    assert pair.answer("verify", backup)["backup"]["verified"] is True
    pair.sidecar("wal-e", "delete", "--confirm", "retain", "1")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("rm {}", "missing"),
        ("truncate -s 2000 {}", "does not unpack"),
        ("printf harm | dd of={} bs=1 seek=900 conv=notrunc", "does not unpack"),
        ("cp {other} {}", "another than its name says"),
    ],
)
@pytest.mark.parametrize("when", ["within the backup", "after the backup"])
def test_harmed_wal_is_named(pair: Pair, backup: str, harm: str, said: str, when: str) -> None:
    inside, later, newest = backup.split("_")[1], pair.archived_segment(), pair.archived_segment()
    segment = inside if when == "within the backup" else later
    path = f"{pair.root}/wal_005/{segment}.lzo"
    pair.shell(f"cp {path} {STORE}/kept; " + harm.format(path, other=f"{pair.root}/wal_005/{newest}.lzo"))
    try:
        found = pair.answer("verify", backup)
    finally:
        pair.sidecar("mv", f"{STORE}/kept", path)
    assert [problem["object"] for problem in found["problems"]] == [f"wal_005/{segment}.lzo"]
    assert said in found["problems"][0]["problem"]
    assert pair.answer("verify", backup)["backup"]["verified"] is True


def test_only_one_push_at_a_time(pair: Pair) -> None:
    done = pair.sidecar(
        "sh",
        "-c",
        f"flock {pair.root}/lock sleep 30 & until ! flock -n {pair.root}/lock true; do :; done; "
        f"wal-e backup-push {PGDATA}; echo $?; kill $!",
    )
    assert done.stdout.split() == ["75"]


def test_what_cannot_be_backed_up_is_refused_before_anything_is_written(pair: Pair) -> None:
    before = pair.shell(f"find {pair.root}/basebackups_005")
    foreign = f"{PGDATA}/foreign.iso"
    pair.sidecar("truncate", "-s", "2G", foreign)
    refused = pair.sidecar("wal-e", "backup-push", PGDATA, check=False)
    pair.sidecar("rm", foreign)
    assert (refused.returncode, foreign in refused.stderr) == (1, True)
    elsewhere = pair.sidecar("wal-e", "backup-push", "/tmp", check=False)
    assert (elsewhere.returncode, f"expected the server's {PGDATA}" in elsewhere.stderr) == (1, True)
    assert pair.shell(f"find {pair.root}/basebackups_005") == before


@pytest.mark.parametrize("command", [["everything"], ["before", "base_000000010000000000000009_00000040"]])
def test_a_removal_that_might_leave_nothing_is_refused(pair: Pair, backup: str, command: list[str]) -> None:
    refused = pair.sidecar("wal-e", "delete", "--confirm", *command, check=False)
    assert (refused.returncode, "might leave nothing" in refused.stderr) == (1, True)
    assert backup in pair.names()


def test_an_operation_that_hangs_is_given_up(pair: Pair, backup: str) -> None:
    """A manifest that is a pipe nobody writes to stands for a store that does not answer."""
    path = f"{pair.root}/manifests/{backup}.json"
    pair.shell(f"mv {path} {STORE}/kept; mkfifo {path}")
    deadline = ("--env", "CRYPTOPIP_WALE_DEADLINE_S=3")
    try:
        done = run("docker", "exec", *deadline, pair.wale, "cryptopip-wale", "verify", backup, check=False)
    finally:
        pair.sidecar("mv", f"{STORE}/kept", path)
    assert (done.returncode, "given up" in done.stderr) == (124, True)
