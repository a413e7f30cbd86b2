"""pgBackRest behind base_backup on a real server: what is promised, and what pgBackRest alone would not tell."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup.model import BackupError
from ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup.pgbackrest import PgBackRest

from tests.integration.harness.process import until
from tests.integration.pgbackrest_harness import REPOSITORY, STANZA, Server
from tests.integration.wale_harness import PGDATA, run

pytestmark = pytest.mark.database
DATA = "/var/lib/postgresql/data"
# Every transaction writes the same number into both tables, one of them in a tablespace, so that half of one is seen.
LOAD = """
do $$ begin
    for number in 1..1000000 loop
        insert into one values (number, repeat('x', 1000));
        insert into other values (number, repeat('y', 1000));
        commit;
        perform pg_sleep(0.002);
    end loop;
end $$
"""


def silent(_: str) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with its repository, for all tests here."""
    server = Server(tmp_path_factory.mktemp("pgbackrest"))
    try:
        server.up()
        server.inside(f"mkdir {DATA}/space")
        server.sql(f"create tablespace space location '{DATA}/space'")
        yield server
    finally:
        server.down()


@pytest.fixture(scope="module")
def engine(server: Server) -> PgBackRest:
    """The engine, as the module has it."""
    return PgBackRest.on(server.db)


@contextmanager
def load(server: Server) -> Iterator[None]:
    """A writer, committing all the while."""
    server.sql(
        "drop table if exists one, other; create table one (n int, filler text);"
        "create table other (n int, filler text) tablespace space"
    )
    command = ("docker", "exec", "--env", "PGAPPNAME=load", server.db, "psql", "-U", "postgres", "-c", LOAD)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as writer:
        try:
            until(lambda: server.sql("select count(*) > 0 from other") == "t", "the load")
            yield
            assert writer.poll() is None, "the load ended early: this run proved nothing"
        finally:
            server.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'load'")


def written(server: Server, container: str | None = None) -> int:
    """How far the writer has come; raises AssertionError where a transaction is there by half."""
    query = "select count(*), coalesce(max(n), 0), coalesce(sum(n), 0) from {}"
    one = server.sql(query.format("one"), container)
    if container is not None:
        assert one == server.sql(query.format("other"), container)
        assert one.split("|")[0] == one.split("|")[1]
    return int(one.split("|")[0])


def beat(server: Server, first: int, last: int) -> None:
    """Commit each of these numbers in a transaction of its own."""
    server.sql(f"do $$ begin for n in {first}..{last} loop insert into beats values (n); commit; end loop; end $$")


def test_recovery_is_exact_to_a_transaction_from_an_incremental_backup(server: Server, engine: PgBackRest) -> None:
    server.sql("create table beats (n int primary key)")
    with load(server):
        full = engine.take(silent)
        beat(server, 1, 100)
        incremental = engine.take(silent)
        before = written(server)
        beat(server, 101, 200)
        target = server.sql("select pg_current_wal_insert_lsn()")
        beat(server, 201, 250)
        after = written(server)
        server.sql("drop table beats")
    server.archived_segment()
    assert (full.requires, incremental.requires) == ((), (full.name,))
    assert [backup.name for backup in engine.listing().backups] == [full.name, incremental.name]
    assert incremental.system_identifier == server.sql("select system_identifier from pg_control_system()")
    assert engine.verify(incremental.name, silent).verified is True

    engine.fetch(incremental.name, f"{DATA}/restored", silent)
    with pytest.raises(BackupError, match="because it contains files"):
        engine.fetch(incremental.name, f"{DATA}/restored", silent)
    restored = server.recover("restored", recovery_target_lsn=target)
    server.await_server(restored)
    assert server.sql("select count(*), sum(n), max(n) from beats", restored) == f"200|{200 * 201 // 2}|200"
    assert before <= written(server, restored) <= after
    space = server.sql("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'space'", restored)
    assert space.startswith(f"{DATA}/restored.tablespaces/")
    run("docker", "exec", restored, "psql", "-U", "postgres", "-c", "create extension amcheck")
    run("docker", "exec", restored, "pg_amcheck", "-U", "postgres", "--heapallindexed", "postgres")
    assert server.sql("select sum(failed_count + archived_count) from pg_stat_archiver", restored) == "0"
    run("docker", "rm", "--force", restored)


def test_a_delta_restore_writes_only_what_differs(server: Server, engine: PgBackRest) -> None:
    backup, folder = engine.listing().backups[-1].name, f"{DATA}/delta"
    engine.fetch(backup, folder, silent)
    sums = "find . -type f ! -name postgresql.auto.conf | sort | xargs sha256sum"
    # Of the big files, what a rewrite changes; pgBackRest writes another file and renames it.
    inodes = "find base -type f -size +100k ! -name 1259 | sort | xargs stat -c '%i %n'"
    whole, kept = server.inside(f"cd {folder}; {sums}"), server.inside(f"cd {folder}; {inodes}")
    server.inside(
        f"cd {folder}; printf harm | dd of=base/1/1259 bs=1 seek=8000 conv=notrunc; rm base/1/1249; touch base/1/new"
    )
    place = (f"--pg1-path={folder}", f"--tablespace-map-all={folder}.tablespaces", "--type=none")
    server.tool("restore", "--delta", f"--set={backup}", *place)
    assert server.inside(f"cd {folder}; {sums}") == whole
    left = set(server.inside(f"cd {folder}; {inodes}").splitlines())
    assert {line for line in kept.splitlines() if not line.endswith("/1/1249")} <= left
    server.inside(f"rm -r {folder} {folder}.tablespaces")


def test_harm_is_named_and_a_harmed_backup_neither_fetched_nor_relied_on(server: Server, engine: PgBackRest) -> None:
    full, incremental = engine.listing().backups[:2]
    bundle = f"{REPOSITORY}/backup/{STANZA}/{full.name}/bundle/1"
    server.inside(f"cp {bundle} {REPOSITORY}/kept; printf harm | dd of={bundle} bs=1 seek=50000 conv=notrunc")
    try:
        assert server.tool("verify").returncode == 0, "pgBackRest's exit code tells by now: judge by it"
        with pytest.raises(BackupError) as found:
            engine.verify(incremental.name, silent)  # of which it is a part
        assert engine.listing().named(incremental.name).verified is False
        with pytest.raises(BackupError, match="not whole"):
            engine.fetch(incremental.name, f"{DATA}/never", silent)
        with pytest.raises(BackupError, match="problems"):
            engine.retain(1, silent)
    finally:
        server.inside(f"mv {REPOSITORY}/kept {bundle}")
    assert found.value.code == "corrupt"
    assert [problem.object for problem in found.value.problems] == [f"{full.name}/bundle/1"]
    assert run("docker", "exec", server.db, "test", "-e", f"{DATA}/never", check=False).returncode == 1
    assert engine.verify(incremental.name, silent).verified is True


@pytest.mark.parametrize("when", ["within the backup", "after the backup"])
@pytest.mark.parametrize("harm", ["mv {0} {1}", "cp {0} {1}; truncate -s 500 {0}"], ids=["missing", "torn"])
def test_harmed_wal_is_named(server: Server, engine: PgBackRest, when: str, harm: str) -> None:
    backup = engine.listing().backups[-1]
    later = server.archived_segment()
    server.archived_segment()
    inside = server.sql(f"select pg_walfile_name('{backup.start_lsn}')")
    segment = inside if when == "within the backup" else later
    path = server.archived_path(segment)
    server.inside(harm.format(path, f"{REPOSITORY}/kept"))
    try:
        told = server.tool("verify", "--output=text", "--verbose")
        with pytest.raises(BackupError) as found:
            engine.verify(backup.name, silent)
    finally:
        server.inside(f"mv {REPOSITORY}/kept {path}")
    if harm.startswith("mv"):
        assert (told.returncode, "status: ok" in told.stdout) == (0, True), "pgBackRest finds gaps by now"
    (problem,) = found.value.problems
    assert segment in problem.object
    assert engine.verify(backup.name, silent).verified is True


def test_an_archive_that_is_away_or_torn_is_no_end_of_wal(server: Server) -> None:
    """PostgreSQL takes exit codes 1 to 125 of restore_command as the end of WAL, and pgBackRest alone gives those."""
    name = server.archived_segment()
    path = server.archived_path(name)

    def get(command: str, segment: str) -> int:
        return run("docker", "exec", server.db, *command.split(), segment, "/tmp/there", check=False).returncode

    assert get("cryptopip-archive-get", "0" * 24) == 1
    server.inside(f"mv {REPOSITORY}/archive {REPOSITORY}/away")
    alone, away = get("pgbackrest archive-get", name), get("cryptopip-archive-get", name)
    server.inside(f"mv {REPOSITORY}/away {REPOSITORY}/archive; cp {path} {REPOSITORY}/kept; truncate -s 500 {path}")
    torn = get("cryptopip-archive-get", name)
    server.inside(f"mv {REPOSITORY}/kept {path}")
    assert 1 <= alone <= 125, "this would have ended a recovery"
    assert (away, torn, get("cryptopip-archive-get", name)) == (200, 200, 0)


def test_an_identical_segment_is_taken_again_and_another_is_refused(server: Server) -> None:
    name = server.archived_segment()
    copy = f"{PGDATA}/pg_wal/{name}"
    server.inside(f"cryptopip-archive-get {name} {copy}")
    before = server.inside(f"sha256sum {server.archived_path(name)}")
    assert server.tool("archive-push", copy, check=False).returncode == 0
    server.inside(f"printf harm | dd of={copy} bs=1 seek=5000 conv=notrunc")
    refused = server.tool("archive-push", copy, check=False)
    server.inside(f"cryptopip-archive-get {name} {copy}")
    assert (refused.returncode, "different checksum" in refused.stdout + refused.stderr) == (45, True)
    assert server.inside(f"sha256sum {server.archived_path(name)}") == before


def test_only_one_backup_at_a_time(server: Server, engine: PgBackRest) -> None:
    first = subprocess.Popen(["docker", "exec", server.db, "pgbackrest", "backup", "--type=full", "--process-max=1"])
    try:
        until(lambda: "true" in server.tool("info", "--output=json").stdout.split('"held":')[1][:5], "the lock")
        with pytest.raises(BackupError) as refused:
            engine.take(silent)
    finally:
        first.wait(120)
    assert refused.value.code == "busy"
    assert first.returncode == 0


def test_what_no_backup_needs_goes_and_nothing_else(server: Server, engine: PgBackRest) -> None:
    newest = engine.listing().backups[-1]  # the full one of the test before
    assert newest.requires == ()
    engine.verify(newest.name, silent)
    told = engine.plan_retain(1)
    assert [backup.name for backup in engine.listing().backups] == [*told.removed, newest.name]
    done = engine.retain(1, silent)
    assert done == told
    assert min(len(done.removed), len(done.removed_wal)) > 0, "there was nothing to remove: this run proved nothing"
    assert [backup.name for backup in engine.listing().backups] == [newest.name]
    first = server.sql(f"select pg_walfile_name('{newest.start_lsn}')")
    left = server.inside(f"ls {REPOSITORY}/archive/{STANZA}/17-1/0000000100000000").split()
    assert min(left)[:24] == first
    assert engine.verify(newest.name, silent).verified is True
    with pytest.raises(BackupError) as refused:
        engine.delete(newest.name, silent)
    assert refused.value.code == "last_verified"
    assert engine.listing().named(newest.name).verified is True
