"""Point-in-time recovery from WAL-E's backups: exact to a transaction under load, across outages and timelines."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.harness.process import ROOT, until
from tests.integration.s3_harness import S3Service
from tests.integration.wale_harness import PGDATA, Pair, run

pytestmark = pytest.mark.database
# Every transaction writes the same number into both tables, so that half of one is seen.
LOAD = """
do $$ begin
    for number in 1..1000000 loop
        insert into one values ({writer}, number, repeat('x', 1000));
        insert into other values ({writer}, number, repeat('y', 1000));
        commit;
        perform pg_sleep(0.002);
    end loop;
end $$
"""
LOCATION = "select pg_tablespace_location(oid) from pg_tablespace where spcname = 'space'"
SPACE = "select oid from pg_tablespace where spcname = 'space'"
SMALL_PARTITIONS = "from wal_e import tar_partition\ntar_partition.PARTITION_MAX_SZ = 10 << 20"


@pytest.fixture(scope="module")
def service() -> Iterator[S3Service]:
    """An S3 service."""
    service = S3Service()
    try:
        yield service
    finally:
        service.stop()


@pytest.fixture
def pair(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A server and its sidecar, for one test; its parameter says where it stores and whether encrypted."""
    run(str(ROOT / "roles/wale/files/build_image.sh"))
    kind = getattr(request, "param", "file")
    s3 = request.getfixturevalue("service") if "s3" in kind else None
    pair = Pair(tmp_path, s3=s3, is_encrypted="encrypted" in kind)
    try:
        pair.up()
        pair.sql("create table beats (n int primary key)")
        pair.shell("mkdir /var/lib/postgresql/data/space")
        pair.sql("create tablespace space location '/var/lib/postgresql/data/space'")
        pair.sql("create table one (w int, n int, filler text)")
        pair.sql("create table other (w int, n int, filler text) tablespace space")
        yield pair
    finally:
        pair.down()


@contextmanager
def load(pair: Pair) -> Iterator[None]:
    """Two writers, committing all the while."""
    command = ("docker", "exec", "--env", "PGAPPNAME=load", pair.db, "psql", "-U", "postgres", "-c")
    writers = [subprocess.Popen([*command, LOAD.format(writer=writer)]) for writer in (1, 2)]
    try:
        yield
        assert all(writer.poll() is None for writer in writers), "the load ended early: this run proved nothing"
    finally:
        pair.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'load'")
        for writer in writers:
            writer.wait(30)


def beat(pair: Pair, first: int, last: int) -> None:
    """Commit each of these numbers in a transaction of its own."""
    pair.sql(f"do $$ begin for n in {first}..{last} loop insert into beats values (n); commit; end loop; end $$")


def written(pair: Pair, container: str | None = None) -> dict[str, int]:
    """How far each writer has come, seen in both tables; raises AssertionError where a transaction is there by half."""
    query = "select w, count(*), max(n), sum(n) from {} group by w order by w"
    one, other = (pair.sql(query.format(table), container) for table in ("one", "other"))
    if container is not None:
        assert one == other
        assert all(int(row.split("|")[1]) == int(row.split("|")[2]) for row in one.splitlines())
    return {row.split("|")[0]: int(row.split("|")[1]) for row in one.splitlines()}


def whole(pair: Pair, container: str, database: str) -> None:
    """Every index and heap page of the restored cluster agrees, and its checksums do."""
    run("docker", "exec", container, "psql", "-U", "postgres", "-c", "create extension amcheck")
    run("docker", "exec", container, "pg_amcheck", "-U", "postgres", "--heapallindexed", database)


@pytest.mark.parametrize(
    ("pair", "kind"),
    [("file", "name"), ("file, encrypted", "time"), ("s3, encrypted", "lsn")],
    indirect=["pair"],
    ids=["by name", "by time, encrypted", "by LSN, on S3, encrypted"],
)
def test_recovery_is_exact_to_a_transaction(pair: Pair, kind: str) -> None:
    with load(pair):
        until(lambda: written(pair).keys() == {"1", "2"}, "both writers")
        backup = pair.push(SMALL_PARTITIONS)  # under load
        beat(pair, 1, 100)
        pair.kill_sidecar()  # an archive outage in between
        beat(pair, 101, 150)
        pair.switch_wal()
        pair.start_sidecar()
        before = written(pair)
        beat(pair, 151, 200)
        target = pair.sql(
            {
                "name": "select 'here' from pg_create_restore_point('here')",
                "time": "select clock_timestamp()",
                "lsn": "select pg_current_wal_insert_lsn()",
            }[kind]
        )
        beat(pair, 201, 250)
        after = written(pair)
        pair.sql("drop table beats")
    pair.archived_segment()
    partitions = pair.stored(f"basebackups_005/{backup}/tar_partitions")
    assert len(partitions) > 3, "one data partition: this run proved little"
    pair.sidecar("wal-e", "delete", "--confirm", "retain", "1")

    restored = pair.restore("restored", "LATEST", **{f"recovery_target_{kind}": target})
    pair.await_server(restored)
    assert pair.sql("select count(*), sum(n), max(n) from beats", restored) == f"200|{200 * 201 // 2}|200"
    found = written(pair, restored)
    assert before.keys() == found.keys()
    assert all(before[writer] <= found[writer] <= after[writer] for writer in found)
    assert pair.sql(LOCATION, restored) == f"/var/lib/postgresql/data/restored.tablespaces/{pair.sql(SPACE)}"
    whole(pair, restored, "postgres")
    assert pair.sql("select sum(failed_count + archived_count) from pg_stat_archiver", restored) == "0"


def test_a_target_beyond_the_archive_fails_loudly(pair: Pair) -> None:
    pair.push()
    restored = pair.restore("restored", "LATEST", recovery_target_name="never made")
    assert run("docker", "wait", restored).stdout.strip() == "1"
    assert "recovery ended before configured recovery target was reached" in run("docker", "logs", restored).stderr


def test_an_archive_that_goes_away_stops_recovery_instead_of_ending_it(pair: Pair) -> None:
    pair.push()
    beat(pair, 1, 10)
    segments = [pair.archived_segment(), pair.archived_segment()]
    pair.shell(f"truncate -s 500 {pair.root}/wal_005/{segments[0]}.lzo")  # torn, so neither there nor missing
    restored = pair.restore("restored", "LATEST")
    assert run("docker", "wait", restored).stdout.strip() == "1"
    assert "does not unpack" in run("docker", "logs", restored).stderr
    assert pair.exists("/var/lib/postgresql/data/restored/recovery.signal"), "recovery ended"


def test_the_lost_cluster_comes_back_and_goes_on_archiving_on_its_new_timeline(pair: Pair) -> None:
    first = pair.push()
    beat(pair, 1, 100)
    pair.archived_segment()
    root = pair.root
    run("docker", "kill", pair.db)
    pair.shell(f"rm -rf {PGDATA} /var/lib/postgresql/wal/pg_wal")
    in_use = pair.sidecar("wal-e", "backup-fetch", PGDATA, "LATEST", check=False)
    assert (in_use.returncode, "expected an empty folder for a tablespace" in in_use.stderr) == (1, True)
    pair.shell("rm -rf /var/lib/postgresql/data/space/*")
    pair.sidecar("wal-e", "backup-fetch", PGDATA, "LATEST")  # the cluster is gone: the store tells which it was
    refused = pair.sidecar("wal-e", "backup-fetch", PGDATA, "LATEST", check=False)
    assert (refused.returncode, "is not empty" in refused.stderr) == (1, True)
    pair.sidecar("touch", f"{PGDATA}/recovery.signal")
    run("docker", "start", pair.db)
    pair.await_server(pair.db)
    assert pair.root == root
    assert pair.sql("select max(n) from beats") == "100"
    assert pair.sql(LOCATION) == "/var/lib/postgresql/data/space"
    beat(pair, 101, 200)
    assert pair.archived_segment().startswith("00000002")

    second = pair.push()
    assert pair.names() == [first, second]
    for name in (first, second):
        assert pair.answer("verify", name)["backup"]["verified"] is True
    beat(pair, 201, 300)
    pair.archived_segment()
    for number, name in enumerate((first, second)):  # from the old timeline across to the new, and on the new alone
        restored = pair.restore(f"restored{number}", name)
        pair.await_server(restored)
        assert pair.sql("select count(*), max(n) from beats", restored) == "300|300"
    pair.sidecar("wal-e", "delete", "--confirm", "retain", "1")
    assert pair.names() == [second]
    assert not [line for line in pair.shell(f"ls {root}/wal_005").split() if line.startswith("00000001")]
