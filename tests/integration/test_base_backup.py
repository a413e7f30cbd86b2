"""Module base_backup with a real server and WAL-E's sidecar: what it takes, reads, removes, refuses, and foretells."""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.integration.base_backup_harness import Site
from tests.integration.harness.process import ROOT, until
from tests.integration.wale_harness import STORE, Pair, run

pytestmark = pytest.mark.database


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with a datalake, and its sidecar."""
    image = run(str(ROOT / "roles/wale/files/build_image.sh")).stdout.split()[1]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("base_backup")
    pair = Pair(folder, port=port)
    pair.image = image  # of this checkout, whatever else is built on this machine meanwhile
    try:
        pair.up()
        site = Site(pair, folder)
        site.make_database("datalake")
        site.make_database("app")
        yield site
    finally:
        pair.down()


@pytest.fixture
def site(server: Site) -> Site:
    """The same, with one verified backup alone, and nothing that an earlier test left in the restore's folder."""
    (server.restore_work / "journal.json").unlink(missing_ok=True)
    server.ok(state="present", max_age="1h")
    server.ok(state="retained", keep=1)
    return server


def test_a_backup_is_taken_verified_and_protects_and_a_second_run_changes_nothing(site: Site) -> None:
    (old,) = site.pair.names()
    told = site.ok(state="present", max_age="0s", check=True)
    assert told["changed"] is True
    assert "a new backup would be taken" in told["diff"]["after"]
    assert site.pair.names() == [old]
    taken = site.ok(state="present", max_age="0s")
    backup = taken["backup"]
    assert site.pair.names() == [old, backup["name"]]
    (row,) = [row for row in site.pair.answer("list")["backups"] if row["name"] == backup["name"]]
    assert {key: backup[key] for key in row} == row
    assert (backup["verified"], backup["engine"]) == (True, "wal_e")
    assert taken["diff"]["after"].startswith(taken["diff"]["before"])
    assert site.protections() == [f"wal_e:{old}", f"wal_e:{backup['name']}"]
    with psycopg.connect(site.dsn, dbname="datalake") as connection:
        (until_when,) = connection.execute("SELECT protected_until() = %s", [backup["started_at"]]).fetchone() or ()
    assert until_when is True
    assert site.results()[-2:] == [("take", backup["name"], "good", []), ("verify", backup["name"], "good", [])]
    told_before = len(site.results())
    for check in (True, False):
        again = site.ok(state="present", max_age="1h", check=check)
        assert (again["changed"], again["backup"]) == (False, backup)
    assert len(site.results()) == told_before
    assert [each["name"] for each in site.ok(state="listed")["backups"]] == [old, backup["name"]]
    assert site.ok(state="verified", max_age="1h", check=True)["changed"] is False
    assert site.ok(state="verified")["changed"] is False  # read again, found the same
    assert not list(site.work.glob("progress*"))


def test_a_young_backup_that_nobody_verified_is_verified_instead_of_taking_another(site: Site) -> None:
    name = site.pair.push()
    site.pair.shell(f"rm {site.pair.root}/verified/*")  # nor is the older one
    told = site.ok(state="present", max_age="1h", check=True)
    assert f"{name}  would be verified" in told["diff"]["after"]
    done = site.ok(state="present", max_age="1h")
    assert (done["changed"], done["backup"]["name"]) == (True, name)
    assert site.protections() == [f"wal_e:{name}"]  # the older one protects no longer: nobody knows of it


def test_retention_is_foretold_and_made(site: Site) -> None:
    (oldest,) = site.pair.names()
    site.pair.archived_segment()
    newest = site.ok(state="present", max_age="0s")["backup"]["name"]
    told = site.ok(state="retained", keep=1, check=True)
    assert (told["changed"], told["removed"]) == (True, [oldest])
    assert told["removed_wal"]
    assert site.pair.names() == [oldest, newest]
    done = site.ok(state="retained", keep=1)
    assert {key: done[key] for key in ("changed", "removed", "removed_wal", "diff")} == {
        key: told[key] for key in ("changed", "removed", "removed_wal", "diff")
    }
    assert site.pair.names() == [newest]
    assert site.protections() == [f"wal_e:{newest}"]
    for check in (True, False):
        assert site.ok(state="retained", keep=1, check=check)["changed"] is False


def test_what_is_not_whole_is_named_protects_nothing_and_saves_the_older_one(site: Site) -> None:
    (older,) = site.pair.names()
    newest = site.ok(state="present", max_age="0s")["backup"]["name"]
    part = site.pair.shell(f"ls {site.pair.root}/basebackups_005/{newest}/tar_partitions/*").split()[0]
    site.pair.shell(f"cp {part} {STORE}/kept; truncate -s -9 {part}")
    try:
        found = site.fails(state="verified")
        refused = [site.fails(state="retained", keep=1, check=check) for check in (True, False)]
        listed = site.ok(state="listed")
        taken = site.ok(state="present", max_age="1h")
    finally:
        site.pair.sidecar("mv", f"{STORE}/kept", part)
    ((operation, name, result, problems),) = site.results()[-1:]
    assert (operation, name, result) == ("verify", newest, "bad")
    assert problems[1].startswith(part.removeprefix(f"{site.pair.root}/"))
    assert (found["error"], [each["object"] for each in found["problems"]]) == (
        "corrupt",
        [part.removeprefix(f"{site.pair.root}/")],
    )
    assert [answer["error"] for answer in refused] == ["corrupt", "corrupt"]
    assert [each["verified"] for each in listed["backups"]] == [True, False]
    assert taken["changed"] is False  # the older one is young enough still
    assert site.protections() == [f"wal_e:{older}"]


def test_one_is_removed_but_never_the_only_verified_one(site: Site) -> None:
    (oldest,) = site.pair.names()
    for check in (True, False):
        assert site.fails(state="absent", name=oldest, check=check)["error"] == "last_verified"
    newest = site.ok(state="present", max_age="0s")["backup"]["name"]
    assert site.ok(state="absent", name=oldest, check=True)["removed"] == [oldest]
    with psycopg.connect(site.dsn, dbname="datalake") as held:
        held.execute("LOCK TABLE protections")
        process = site.start(state="absent", name=oldest)
        waiting = "select count(*) > 0 from pg_stat_activity where datname = 'datalake' and wait_event_type = 'Lock'"
        until(lambda: site.pair.sql(waiting) == "t", "the removal to wait for the table")
        assert site.pair.names() == [oldest, newest], "it was removed before it ceased to protect"
    assert json.loads(process.communicate(timeout=240)[0])["removed"] == [oldest]
    for check in (True, False):
        assert site.ok(state="absent", name=oldest, check=check)["changed"] is False
    assert site.pair.names() == [newest]
    assert site.protections() == [f"wal_e:{newest}"]


def test_no_backup_is_taken_during_a_restore_nor_beside_another_operation(site: Site) -> None:
    before = site.pair.names()
    (site.restore_work / "journal.json").write_text("{}")
    for check in (True, False):
        assert site.fails(state="present", max_age="0s", check=check)["error"] == "busy"
    (site.restore_work / "journal.json").unlink()
    for path in (site.restore_work / "lock", site.work / "lock"):
        with path.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert site.fails(state="present", max_age="0s")["error"] == "busy"
    assert site.pair.names() == before


def test_a_killed_run_leaves_its_push_locked_until_it_has_ended(site: Site) -> None:
    before = site.pair.names()
    site.pair.sql(
        "create table if not exists bulk as select repeat(md5(n::text), 9) t from generate_series(1, 400000) n"
    )
    process = site.start(state="present", max_age="0s")
    until(lambda: "backup-push" in run("docker", "top", site.pair.wale).stdout, "the push")
    process.kill()
    process.wait()
    with (site.restore_work / "lock").open("a") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert site.fails(state="present", max_age="0s")["error"] == "busy"
    until(lambda: len(site.pair.names()) > len(before), "the push to end", 60, pause=0.2)
    with (site.restore_work / "lock").open("a") as lock:
        until(lambda: _is_free(lock.fileno()), "the lock", 20)
    done = site.ok(state="present", max_age="1m")
    assert done["backup"]["verified"] is True


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def test_what_is_wrong_is_said_before_anything_is_done(site: Site) -> None:
    before = site.pair.names()
    assert "expected a number and its unit" in site.fails(state="present", max_age="1")["msg"]
    assert "expected 1 or more" in site.fails(state="retained", keep=0)["msg"]
    assert site.fails(state="verified", name="base_none")["error"] == "not_found"
    assert "has no table protections" in site.fails(state="present", max_age="0s", database="postgres")["msg"]
    assert "has no table base_backups" in site.fails(state="present", max_age="0s", app_database="postgres")["msg"]
    assert "Start it" in site.fails(state="listed", container="cryptopip-none")["msg"]
    assert site.pair.names() == before


def test_by_ansible_it_tells_how_far_it_is_and_lists_ad_hoc(site: Site, tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text(
        json.dumps(
            {"all": {"hosts": {"db": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}}}
        )
    )
    options = site.arguments()
    words = " ".join(f"{key}={value}" for key, value in options.items())
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_STDOUT_CALLBACK": "json"}
    ansible = [str(Path(sys.executable).with_name("ansible")), "-i", str(tmp_path / "hosts.yml"), "db"]
    ansible += ["-m", "cryptopip.marketdata.base_backup", "-a"]

    def ask(more: str) -> str:
        done = subprocess.run(
            [*ansible, f"{words} {more}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
            env=environment,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert site.pair.names()[0] in ask("state=listed")
    taken = ask("state=present max_age=0s")
    assert " MB stored in " in taken or " segments of WAL read" in taken or " MB of partitions read" in taken


def test_the_command_on_the_host_takes_removes_and_raises_alarms(site: Site) -> None:
    (before,) = site.pair.names()
    took = site.command("run", max_age="0s", keep=1)
    assert took.returncode == 0, took.stderr
    assert site.pair.names() != [before]
    assert len(site.pair.names()) == 1
    fine = site.command("status")
    found = json.loads(fine.stdout)
    assert (fine.returncode, found["alarms"], found["archive_lag_segments"]) == (0, [], 0), fine.stderr
    assert found["wal_bytes_per_s"] is None
    assert json.loads(site.command("status").stdout)["wal_bytes_per_s"] >= 0
    assert 'cryptopip_backup_alarm{alarm="archive"} 0' in (site.folder / "metrics" / "x.prom").read_text()
    site.pair.kill_sidecar()
    try:
        site.pair.switch_wal()
        raised = site.command("status", limit_archive_segments=0)
        failed = site.command("run")
    finally:
        site.pair.start_sidecar()
    assert raised.returncode == 1
    assert {alarm["name"] for alarm in json.loads(raised.stdout)["alarms"]} == {"archive", "backup", "unknown"}
    assert re.search(r"ALARM archive: [1-9][0-9]* WAL segments wait", raised.stderr), raised.stderr
    assert 'cryptopip_backup_alarm{alarm="archive"} 1' in (site.folder / "metrics" / "x.prom").read_text()
    assert (failed.returncode, "present failed" in failed.stderr, "retained failed" in failed.stderr) == (1, True, True)
    until(lambda: site.command("status", limit_archive_segments=0).returncode == 0, "the archive", 90, pause=1)
    too_old = site.command("status", limit_backup_age="0s", limit_wal_free_mb=1 << 40)
    assert {alarm["name"] for alarm in json.loads(too_old.stdout)["alarms"]} == {"backup", "wal_space"}
    assert site.command("status", limit_backup_age="old").returncode == 2
