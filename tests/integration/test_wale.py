"""The WAL archive beside a real server: what it acknowledged is there, and an archive that is away is no end of WAL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.harness.process import ROOT, until
from tests.integration.wale_harness import HELPER, PGDATA, PYTHON, SIDECAR, STORE, Pair, killing, run

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


def test_an_identical_file_is_taken_again_and_another_is_refused(pair: Pair) -> None:
    name = pair.archived_segment()
    archived, copy = f"{pair.root}/wal_005/{name}.lzo", f"{PGDATA}/pg_wal/{name}"
    pair.shell(f"lzop -dc {archived} > {copy}")
    before = pair.shell(f"sha256sum {archived}")
    assert pair.helper("push", name).returncode == 0
    pair.shell(f"printf harm | dd of={copy} bs=1 seek=5000 conv=notrunc")
    refused = pair.helper("push", name)
    pair.shell(f"lzop -dc {archived} > {copy}")  # as it was: the server may still recycle it
    assert (refused.returncode, "holds other bytes" in refused.stderr) == (1, True)
    assert pair.shell(f"sha256sum {archived}") == before


def test_another_clusters_wal_is_refused(pair: Pair) -> None:
    name, source = "00000009000000000000AAAA", pair.archived_segment()
    target = f"{PGDATA}/pg_wal/{name}"
    pair.shell(f"lzop -dc {pair.root}/wal_005/{source}.lzo > {target}")
    pair.shell(f"printf other | dd of={target} bs=1 seek=24 conv=notrunc")
    refused = pair.helper("push", name)
    pair.sidecar("rm", target)
    assert (refused.returncode, "it is another cluster's" in refused.stderr) == (1, True)
    assert not pair.exists(f"{pair.root}/wal_005/{name}.lzo")


def test_fetch_gives_the_very_bytes(pair: Pair) -> None:
    name = pair.archived_segment()
    assert pair.helper("fetch", name, "/tmp/there").returncode == 0
    there = run("docker", "exec", pair.db, "sha256sum", "/tmp/there").stdout.split()[0]
    run("docker", "exec", pair.db, "rm", "/tmp/there")
    assert there == pair.shell(f"lzop -dc {pair.root}/wal_005/{name}.lzo | sha256sum").split()[0]


def test_only_a_file_that_the_archive_lacks_ends_recovery(pair: Pair) -> None:
    """PostgreSQL takes exit codes 1 to 125 of restore_command as the end of WAL, and stops at higher ones."""
    name = pair.archived_segment()
    path = f"{pair.root}/wal_005/{name}.lzo"
    assert pair.helper("fetch", "0" * 24, "/tmp/none").returncode == 1
    pair.shell(f"cp {path} {STORE}/kept; truncate -s 1000 {path}")
    assert pair.helper("fetch", name, "/tmp/torn").returncode > 125
    pair.sidecar("mv", f"{STORE}/kept", path)
    assert pair.helper("fetch", name, "/tmp/x", env="CRYPTOPIP_WALE_TOKEN_FILE=/etc/hostname").returncode > 125
    pair.shell(f"mv {pair.root}/wal_005 {STORE}/unmounted")
    assert pair.helper("fetch", name, "/tmp/unmounted").returncode > 125
    pair.shell(f"mv {STORE}/unmounted {pair.root}/wal_005")
    pair.kill_sidecar()
    try:
        assert pair.helper("fetch", name, "/tmp/away").returncode > 125
        assert pair.helper("push", name).returncode == 1
    finally:
        pair.start_sidecar()
    assert run("docker", "exec", pair.db, "ls", "-A", "/tmp").stdout == ""


def test_a_push_with_another_token_is_refused(pair: Pair) -> None:
    refused = pair.helper("push", pair.archived_segment(), env="CRYPTOPIP_WALE_TOKEN_FILE=/etc/hostname")
    assert (refused.returncode, "status 401" in refused.stderr) == (1, True)


@pytest.mark.parametrize("after", [False, True], ids=["before the file has its name", "before the answer"])
def test_a_sidecar_killed_while_archiving_loses_nothing(pair: Pair, after: bool) -> None:
    pair.archived_segment()
    pair.kill_sidecar()
    killer = f"cryptopip-test-killer-{after}-{pair.id}".lower()
    code = killing("store.FileStore.put", 1, after=after) + "from cryptopip_wale.server import main\nmain()"
    pair.start(killer, SIDECAR, pair.config, "--entrypoint", PYTHON, command=("-c", code))
    name = pair.switch_wal()
    assert run("docker", "wait", killer).stdout.strip() == "137", "not killed: this run proved nothing"
    assert pair.sql("select last_archived_wal from pg_stat_archiver") < name  # nobody acknowledged it
    pair.start_sidecar()
    assert pair.exists(f"{pair.root}/wal_005/{name}.lzo") is after
    pair.await_archived(name)
    assert pair.shell(f"ls {pair.root}/wal_005/{name}*").split() == [f"{pair.root}/wal_005/{name}.lzo"]
    assert pair.helper("fetch", name, "/dev/null").returncode > 125  # a device cannot be replaced
    pair.shell(f"lzop -t {pair.root}/wal_005/{name}.lzo")


def test_a_full_store_takes_nothing_and_says_so(pair: Pair) -> None:
    """A sidecar beside the other, on a store of 32 MB with room for three quarters of the packed segment."""
    pair.sql("create table noise as select sha512(random()::text::bytea) from generate_series(1, 20000)")
    name = pair.archived_segment()
    archived = f"{pair.root}/wal_005/{name}.lzo"
    pair.shell(f"lzop -dc {archived} > {PGDATA}/pg_wal/{name}")
    room = int(pair.shell(f"stat -c %s {archived}")) * 3 // 4
    assert room > 1 << 20, "a segment that small shows nothing"
    small, socket = f"cryptopip-test-small-{pair.id}", "/run/cryptopip/postgresql/small.sock"
    place = ("--tmpfs", "/small:size=32m,uid=5432,mode=0700", "--env", "CRYPTOPIP_WALE_STORE=/small")
    pair.start(small, SIDECAR, pair.config, *place, "--env", f"CRYPTOPIP_WALE_SOCKET={socket}")
    until(lambda: "serving" in run("docker", "logs", small).stderr, "the second sidecar", 60, pause=0.1)
    run("docker", "exec", small, "dd", "if=/dev/zero", "of=/small/balloon", "bs=4k", check=False)
    for shrink in (0, room):
        run("docker", "exec", small, "truncate", "-s", f"-{shrink}", "/small/balloon")
        full = pair.helper("push", name, env=f"CRYPTOPIP_WALE_SOCKET={socket}")
        assert (full.returncode, "status 500" in full.stderr) == (1, True)
        left = run("docker", "exec", small, "find", "/small", "-type", "f", "-printf", "%f ").stdout.split()
        assert left == ["balloon"]
    run("docker", "exec", small, "rm", "/small/balloon")
    assert pair.helper("push", name, env=f"CRYPTOPIP_WALE_SOCKET={socket}").returncode == 0
    assert run("docker", "exec", small, "find", "/small", "-name", "*.lzo").stdout.endswith(f"{name}.lzo\n")


def test_the_helper_runs_where_the_server_runs(pair: Pair) -> None:
    said = run("docker", "exec", pair.db, HELPER, "fetch", check=False)
    assert (said.returncode, "usage" in said.stderr) == (200, True)
