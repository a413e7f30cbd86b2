"""WAL-E's store in a bucket: the same promises over the wire of S3, signatures and policies checked by the service."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.integration.harness.process import ROOT, until
from tests.integration.s3_harness import S3Service
from tests.integration.wale_harness import PGDATA, PYTHON, SECRETS, Pair, killing, run

pytestmark = pytest.mark.database


@pytest.fixture(scope="module")
def service() -> Iterator[S3Service]:
    """An S3 service."""
    service = S3Service()
    try:
        yield service
    finally:
        service.stop()


@pytest.fixture(scope="module")
def pair(service: S3Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A server and its sidecar, for all tests here; the sidecar's credentials cannot delete."""
    run(str(ROOT / "roles/wale/files/build_image.sh"))
    service.user = "keeper"
    pair = Pair(tmp_path_factory.mktemp("wale"), s3=service)
    try:
        pair.up()
        yield pair
    finally:
        pair.down()


@pytest.fixture
def owner(pair: Pair, service: S3Service) -> Iterator[None]:
    """For one test, credentials that may do everything."""
    service.user = "owner"
    run("docker", "cp", f"{pair.secrets()}/.", f"{pair.wale}:{SECRETS}")
    yield
    service.user = "keeper"
    run("docker", "cp", f"{pair.secrets()}/.", f"{pair.wale}:{SECRETS}")


def prefix(pair: Pair) -> str:
    """What the names of all this cluster's objects begin with."""
    return f"fleet/{pair.root.rsplit('/', 1)[1]}"


def test_a_segment_is_taken_again_if_identical_and_refused_if_not(pair: Pair, service: S3Service) -> None:
    name = pair.archived_segment()
    archived, copy = f"{prefix(pair)}/wal_005/{name}.lzo", f"{PGDATA}/pg_wal/{name}"
    stored = service.read(archived)
    assert pair.helper("fetch", name, "/tmp/there").returncode == 0
    run("docker", "exec", pair.db, "cp", "/tmp/there", copy)
    assert pair.helper("push", name).returncode == 0
    pair.shell(f"printf harm | dd of={copy} bs=1 seek=5000 conv=notrunc")
    refused = pair.helper("push", name)
    # A store that is asked whether the name is free answers late or never: the bucket itself refuses to write over it.
    blind = (
        "from cryptopip_wale import archive, config, s3, store\n"
        "s3.S3Store.size = lambda *_: None\n"
        f"settings = config.read_config()\narchive.push(settings, store.open_store(settings), '{name}')"
    )
    raced = pair.sidecar(PYTHON, "-c", blind, check=False)
    run("docker", "exec", pair.db, "mv", "/tmp/there", copy)
    assert (refused.returncode, "holds other bytes" in refused.stderr) == (1, True)
    assert (raced.returncode, "holds other bytes" in raced.stderr) == (1, True)
    assert service.read(archived) == stored


def test_only_a_file_that_the_bucket_lacks_ends_recovery(pair: Pair, service: S3Service) -> None:
    name = pair.archived_segment()
    archived = f"{prefix(pair)}/wal_005/{name}.lzo"
    assert pair.helper("fetch", "0" * 24, "/tmp/none").returncode == 1
    stored = service.read(archived)
    service.write(archived, stored[:1000])
    torn = pair.helper("fetch", name, "/tmp/torn")
    service.write(archived, stored)
    assert (torn.returncode, "does not unpack" in torn.stderr) == (200, True)
    other = ("--env", "CRYPTOPIP_WALE_STORE_URL=s3://no-such-bucket/fleet")
    code = (
        "from cryptopip_wale import archive, config, store\n"
        f"archive.fetch(store.open_store(config.read_config()), '{name}')"
    )
    missing = run("docker", "exec", *other, pair.wale, PYTHON, "-c", code, check=False)
    assert (missing.returncode, "NoSuchBucket" in missing.stderr) == (1, True)
    empty = ("--env", f"CRYPTOPIP_WALE_STORE_URL=s3://{service.bucket}/elsewhere")
    lost = run("docker", "exec", *empty, pair.wale, PYTHON, "-c", code, check=False)
    assert (lost.returncode, "holds no archive" in lost.stderr) == (1, True)


def test_a_service_that_does_not_answer_costs_nothing_but_time(pair: Pair, service: S3Service) -> None:
    name = pair.archived_segment()
    service.hang()
    try:
        fetched = pair.helper("fetch", name, "/tmp/hanging")
        waiting = pair.switch_wal()
        failed = "select failed_count > 0 and last_failed_wal >= " + f"'{waiting}' from pg_stat_archiver"
        until(lambda: pair.sql(failed) == "t", "the server to be told", 60, pause=0.3)
    finally:
        service.go_on()
    assert fetched.returncode == 200
    pair.await_archived(waiting)
    assert pair.helper("fetch", waiting, "/dev/null").returncode > 125  # a device cannot be replaced


def test_a_backup_by_credentials_that_cannot_delete(pair: Pair, service: S3Service) -> None:
    first = pair.push()
    left = f"{prefix(pair)}/basebackups_005/base_000000010000000000000000_00000028/tar_partitions/part_00000000.tar.lzo"
    service.write(left, b"of a push that died")
    second = pair.push()
    assert pair.names() == [first, second]
    listed = pair.sidecar("wal-e", "backup-list").stdout.splitlines()[1:]
    assert [line.split("\t")[0] for line in listed] == [first, second]
    assert pair.answer("verify", second)["backup"]["verified"] is True
    before = service.names()
    refused = pair.sidecar("wal-e", "delete", "--confirm", "retain", "1", check=False)
    assert (refused.returncode, "refused to these credentials" in refused.stderr) == (1, True)
    assert pair.answer("retain", "1")["error"] == "forbidden"
    assert service.names() == before
    assert left in before


def test_a_machine_without_the_cluster_finds_its_backups(pair: Pair) -> None:
    """So another machine, whose credentials may delete, removes what this one cannot."""
    names = pair.names() or [pair.push()]
    done = run("docker", "exec", "--env", "PGDATA=/none", pair.wale, "cryptopip-wale", "list")
    assert [row["name"] for row in json.loads(done.stdout)["backups"]] == names


@pytest.mark.usefixtures("owner")
def test_what_no_backup_needs_goes_and_nothing_else(pair: Pair, service: S3Service) -> None:
    old, new = pair.push(), pair.push()
    wal = set(pair.stored("wal_005"))
    pair.sidecar("wal-e", "delete", "--confirm", "retain", "1")
    assert pair.names() == [new]
    assert set(pair.stored("wal_005")) == {name for name in wal if name[:24] >= new.split("_")[1]} < wal
    assert not [name for name in service.names() if old in name or "of a push" in name]
    assert pair.answer("verify", new)["backup"]["verified"] is True


# The third thing stored is the label, after the version and one data partition.
KILLED = {
    "during the upload": killing("s3.S3Store.put", 2, after=False),
    "between upload and label": killing("s3.S3Store.put", 3, after=False),
    "between label and manifest": killing("s3.S3Store.put", 4, after=False),
    "between manifest and sentinel": killing("s3.S3Store.put", 5, after=False),
}


@pytest.mark.usefixtures("owner")
@pytest.mark.parametrize("code", KILLED.values(), ids=KILLED)
def test_a_killed_push_is_not_listed_and_the_next_one_is(pair: Pair, service: S3Service, code: str) -> None:
    before, objects = pair.names(), set(service.names())
    pair.killed_push(code)
    assert set(service.names()) - objects, "it left nothing: this run proved nothing"
    assert pair.names() == before
    name = pair.push()
    assert pair.names() == [*before, name]
    kept = {
        entry.split("/")[3].removesuffix("_backup_stop_sentinel.json") for entry in service.names(f"{prefix(pair)}/b")
    }
    assert kept == {*before, name}
    pair.sidecar("wal-e", "delete", "--confirm", "retain", "1")


@pytest.mark.usefixtures("owner")
def test_a_killed_removal_leaves_nothing_half_listed(pair: Pair) -> None:
    pair.push()
    new = pair.push()
    call = (
        "from cryptopip_wale import config, retention, store\n"
        "retention.retain(store.open_store(config.read_config()), 1, dry_run=False)"
    )
    done = pair.sidecar(PYTHON, "-c", killing("s3.S3Store.remove_folder", 1, after=False) + call, check=False)
    assert done.returncode == 137, f"not killed: this run proved nothing: {done.stderr}"
    assert pair.names() == [new]
    pair.sidecar("wal-e", "delete", "--confirm", "retain", "1")
    assert pair.names() == [new]


@pytest.mark.parametrize("part", ["data", "label", "WAL"])
@pytest.mark.parametrize("harm", ["missing", "truncated", "corrupt"])
def test_a_harmed_object_is_named_and_neither_fetched_nor_relied_on(
    pair: Pair, service: S3Service, part: str, harm: str
) -> None:
    names = pair.names()
    backup = names[-1] if names else pair.push()
    parts = service.names(f"{prefix(pair)}/basebackups_005/{backup}/tar_partitions/")
    wal = f"{prefix(pair)}/wal_005/{backup.split('_')[1]}.lzo"
    victim = {"data": parts[0], "label": parts[-1], "WAL": wal}[part]
    content = service.read(victim)
    if harm == "missing":
        service.remove(victim)
    else:
        service.write(victim, content[:-9] if harm == "truncated" else content[:60] + b"harm" + content[64:])
    try:
        found = pair.answer("verify", backup)
        retained = pair.sidecar("wal-e", "delete", "--confirm", "retain", "1", check=False)
        fetched = pair.sidecar("wal-e", "backup-fetch", "/var/lib/postgresql/data/never", backup, check=part == "WAL")
        if part == "WAL":
            pair.sidecar("rm", "-r", "/var/lib/postgresql/data/never")
    finally:
        service.write(victim, content)
    assert [problem["object"] for problem in found["problems"]] == [victim.removeprefix(f"{prefix(pair)}/")]
    assert retained.returncode == 1
    assert part == "WAL" or (fetched.returncode == 1 and victim.rsplit("/", 1)[1] in fetched.stderr)
    assert not pair.exists("/var/lib/postgresql/data/never")
    assert pair.answer("verify", backup)["backup"]["verified"] is True


def test_an_operation_that_hangs_is_given_up(pair: Pair, service: S3Service) -> None:
    deadline = ("--env", "CRYPTOPIP_WALE_DEADLINE_S=2", "--env", "CRYPTOPIP_WALE_S3_TIMEOUT_S=60")
    service.hang()
    begun = time.monotonic()
    try:
        done = run("docker", "exec", *deadline, pair.wale, "cryptopip-wale", "list", check=False)
    finally:
        service.go_on()
    assert (done.returncode, "given up" in done.stderr) == (124, True), f"after {time.monotonic() - begun:.0f} s"


def test_credentials_that_the_service_does_not_know_are_refused(pair: Pair, service: S3Service) -> None:
    archived = pair.archived_segment()
    keys, service.keys["keeper"] = service.keys["keeper"], (service.keys["keeper"][0], "another")
    run("docker", "cp", f"{pair.secrets()}/.", f"{pair.wale}:{SECRETS}")
    try:
        listed = pair.answer("list")
    finally:
        service.keys["keeper"] = keys
        run("docker", "cp", f"{pair.secrets()}/.", f"{pair.wale}:{SECRETS}")
    assert (listed["error"], "SignatureDoesNotMatch" in listed["msg"]) == ("forbidden", True)
    assert archived in [name.removesuffix(".lzo") for name in pair.stored("wal_005")]
    environment = run("docker", "inspect", pair.wale).stdout + pair.shell("cat /proc/1/environ /proc/[0-9]*/cmdline")
    assert keys[1] not in environment
