"""The module tuned_restore against a real server, called as Ansible calls it."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.tuned_restore_harness import PREPARED, ROOT, RestoreServer, Site, docker, fill

pytestmark = [pytest.mark.database, pytest.mark.timeout(900)]
CHUNKS, ROWS = 30, 30_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server that archives WAL, with a database to dump; it may be killed."""
    image = os.environ.get("CRYPTOPIP_TEST_IMAGE")
    if not image:
        pytest.skip("CRYPTOPIP_TEST_IMAGE names no image: bin/test sets it")
    folder = tmp_path_factory.mktemp("restore")
    server = RestoreServer(image, folder)
    try:
        site = Site(server.container, server.dsn, folder)
        for name, value in PREPARED.items():
            site.query(f"ALTER SYSTEM SET {name} = '{value}'")
        server.restart()
        site.query("CREATE ROLE keeper")
        site.query("CREATE ROLE reader")
        fill(site, "origin", chunks=CHUNKS, rows=ROWS)
        yield site
    finally:
        docker("rm", "--force", f"{server.container}-restore", check=False)
        server.remove()


@pytest.fixture
def remote(dump: Path, tmp_path: Path) -> dict[str, str]:
    """The dump on an rclone remote, and the file that knows the remote."""
    config = tmp_path / "rclone.conf"
    config.write_text(f"[drive]\ntype = alias\nremote = {dump.parent}\n")
    return {"source": f"drive:{dump.name}", "rclone_config": str(config)}


@pytest.fixture(scope="module")
def truth(server: Site) -> dict[str, tuple[int, int]]:
    return server.fingerprint("origin")


@pytest.fixture(scope="module")
def dump(server: Site, truth: dict[str, tuple[int, int]]) -> Path:
    assert truth["public.ticks"] == (0, 0)
    assert len(truth) == CHUNKS + 3
    return server.dump("origin", "origin.dump", "--format=custom")


@pytest.fixture
def site(server: Site, dump: Path) -> Iterator[Site]:
    """The server as before any restore, seen to be so again afterwards."""
    server.drop(*(server.databases() - {"postgres", "origin"}))
    server.defaults = {"source": str(dump), "accept_cluster_risk": True}
    before = server.auto_conf(), server.settings()
    yield server
    assert (server.auto_conf(), server.settings()) == before
    assert server.journal() is None
    assert [path.name for path in server.work.glob("*")] in ([], ["lock"])
    assert not docker("ps", "--all", "--quiet", "--filter", f"name={server.container}-restore")
    log = server.log()
    assert "database system is ready" in log
    assert "catalog_get" not in log


@pytest.mark.parametrize("profile", ["safe", "fast"])
def test_a_restored_database_equals_the_dumped_one_and_a_second_run_changes_nothing(
    site: Site, truth: dict[str, tuple[int, int]], profile: str
) -> None:
    said = site.ok(profile=profile, check=True)
    assert said["changed"]
    assert site.databases() == {"postgres", "origin"}
    answer = site.ok(profile=profile)
    only_real = {"seconds", "validated", "background_workers", "invocation", "warnings"}
    assert {k: v for k, v in answer.items() if k not in only_real} == {
        k: v for k, v in said.items() if k not in only_real
    }
    assert site.fingerprint("lake") == truth
    assert answer["validated"]["chunks"] == CHUNKS
    assert answer["validated"]["test_inserts"] == 1
    assert answer["source"]["rows"] == ROWS + 1000
    assert answer["source"]["size"] == Path(answer["source"]["path"]).stat().st_size
    assert answer["rows_checked_against"] == "copy"
    assert answer["estimated_s"] >= 1
    during = {setting["name"]: (setting["before"], setting["during"]) for setting in answer["settings"]}
    assert during["max_wal_size"] == ("2GB", "16GB")
    assert during.get("fsync") == ((None, "off") if profile == "fast" else None)
    assert site.definitions("lake") == site.definitions("origin")
    assert site.catalog("lake") == site.catalog("origin")
    sides = "SELECT * FROM other.sides ORDER BY side"
    assert site.query(sides, "lake") == site.query(sides, "origin")
    assert len(site.query(sides, "lake")) == 3
    found = site.query(
        "SELECT tablename, inherited FROM pg_stats WHERE attname = 'price' AND tablename ~ '^(ticks$|_hyper_)'", "lake"
    )
    assert ("ticks", True) in found
    assert len(found) == CHUNKS + 1
    assert answer["background_workers"] is True
    assert answer["base_backup_required"] is (profile == "fast")
    assert site.query("SELECT tableowner FROM pg_tables WHERE tablename = 'ticks'", "lake") == [("keeper",)]
    assert site.query("SELECT has_table_privilege('reader', 'ticks', 'SELECT')", "lake") == [(True,)]
    assert site.query("SELECT public.twice(2), time FROM public.latest", "lake")
    site.query("INSERT INTO ticks (time, id) VALUES ('2027-01-01', 1)", "lake")
    for again in (site.ok(profile=profile), site.ok(profile=profile, check=True)):
        assert not again["changed"]
    assert not site.ok(state="reverted", source=None)["changed"]


def make(site: Site, tmp_path: Path, kind: str) -> Path:
    match kind:
        case "directory":
            return site.dump("origin", "origin.dir", "--format=directory", "--jobs=2")
        case "plain":
            return site.dump("origin", "origin.sql", "--format=plain")
        case "gzip":
            path = site.dump("origin", "origin.z0", "--format=custom", "--compress=0")
            (tmp_path / "origin.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
            return tmp_path / "origin.gz"
        case _:
            path = site.dump("origin", "origin.sql2", "--format=plain")
            subprocess.run(["zstd", "-q", str(path), "-o", str(tmp_path / "origin.zst")], check=True)
            return tmp_path / "origin.zst"


@pytest.mark.parametrize("kind", ["directory", "plain", "gzip", "zstd"])
def test_every_kind_of_dump_is_restored(
    site: Site, truth: dict[str, tuple[int, int]], tmp_path: Path, kind: str
) -> None:
    path = make(site, tmp_path, kind)
    try:
        answer = site.ok(source=str(path))
        assert answer["source"]["timescaledb"]
        assert site.fingerprint("lake") == truth
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_a_database_without_timescaledb_is_restored_beside_it(site: Site, tmp_path: Path) -> None:
    site.query("CREATE DATABASE app")
    site.query("CREATE TABLE t (a int PRIMARY KEY, b text)", "app")
    site.query("INSERT INTO t SELECT i, 'x' FROM generate_series(1, 1000) AS i", "app")
    before = site.fingerprint("app")
    path = site.dump("app", "app.dump", "--format=custom")
    answer = site.ok(source=str(path), database="app2")
    assert (answer["source"]["timescaledb"], answer["background_workers"]) == (None, None)
    assert site.fingerprint("app2") == before


def test_a_database_in_the_way_is_refused_kept_or_dropped_with_its_clients(
    site: Site, truth: dict[str, tuple[int, int]]
) -> None:
    site.query("CREATE DATABASE lake")
    site.query("CREATE TABLE mine (a int)", "lake")
    assert "database lake exists" in site.fails()
    assert site.query("SELECT count(*) FROM mine", "lake") == [(0,)]
    with psycopg.connect(site.dsn, dbname="lake", autocommit=True) as client:
        client.execute("SELECT 1")
        kept = site.ok(existing="keep")["replaced"]
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")
    assert site.fingerprint("lake") == truth
    assert site.query("SELECT count(*) FROM mine", kept) == [(0,)]
    site.drop("lake")
    site.query("CREATE DATABASE lake")
    site.ok(existing="drop", profile="fast")
    assert site.databases() == {"postgres", "origin", "lake", kept}
    assert site.fingerprint("lake") == truth


def test_a_database_gets_the_rights_and_settings_of_the_one_it_replaces(site: Site) -> None:
    for statement in (
        "CREATE DATABASE lake OWNER keeper",
        "REVOKE ALL ON DATABASE lake FROM PUBLIC",
        "GRANT CONNECT ON DATABASE lake TO reader WITH GRANT OPTION",
        "ALTER DATABASE lake SET work_mem = '9MB'",
        'ALTER DATABASE lake SET search_path = other, "$user"',
        "ALTER DATABASE lake SET default_transaction_read_only = on",
        "ALTER DATABASE lake SET cryptopip.restored_from = 'another dump'",
        "ALTER ROLE reader IN DATABASE lake SET statement_timeout = '90s'",
    ):
        site.query(statement)
    has = (
        "SELECT datacl::text, pg_get_userbyid(datdba), ARRAY(SELECT pg_get_userbyid(setrole) || each "
        "FROM pg_db_role_setting, unnest(setconfig) AS each WHERE setdatabase = d.oid "
        "AND each NOT LIKE 'cryptopip.%' ORDER BY 1) FROM pg_database AS d WHERE datname = 'lake'"
    )
    before = site.query(has)
    site.ok(existing="drop")
    assert site.query(has) == before
    assert len(before[0][2]) == 4
    assert not site.ok()["changed"]  # it bears the checksum of its own dump


def spoiled(dump: Path, tmp_path: Path, how: str) -> Path:
    data = dump.read_bytes()
    middle = len(data) * 2 // 3
    path = tmp_path / "spoiled.dump"
    match how:
        case "truncated":
            path.write_bytes(data[:middle])
        case "corrupt":
            path.write_bytes(data[:middle] + b"\0" * 64 + data[middle + 64 :])
        case _:
            path.write_bytes(b"<!DOCTYPE html><title>Sign in</title>")
    return path


@pytest.mark.parametrize(
    ("how", "says"), [("truncated", "to its end"), ("corrupt", "to its end"), ("html", "HTML page")]
)
def test_a_spoiled_dump_is_found_before_anything_changes(
    site: Site, dump: Path, tmp_path: Path, how: str, says: str
) -> None:
    for check in (True, False):
        message = site.fails(source=str(spoiled(dump, tmp_path, how)), check=check)
        assert says in message
    assert site.databases() == {"postgres", "origin"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"accept_cluster_risk": False, "profile": "fast"}, "which also holds origin"),
        ({"restart": False, "profile": "fast"}, "takes a restart"),
        ({"settings": {"shared_buffers": "1GB"}}, "shared_buffers takes a restart"),
        ({"settings": {"no_such": "1"}}, "no setting no_such"),
        ({"checksum": "0" * 64}, "expected 0000"),
        ({"source": "/no/where"}, "is not there"),
        ({"owner": "nobody_here"}, "owner is nobody_here"),
        ({"login_user": "reader"}, "refused the connection"),
        ({"login_port": 1}, "no connection"),
        ({"container": "no-such-container"}, "no-such-container"),
        ({"database": "postgres"}, "the server itself needs"),
        ({"database": "x" * 60}, "expected a name of"),
        ({"jobs": 0}, "jobs is 0"),
        ({"settings": {"statement_timeout": "1ms"}}, "end the restore's own statements"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_changes(site: Site, options: dict[str, Any], says: str) -> None:
    message = site.fails(**options)
    assert re.search(says, message), message
    assert "Nothing was changed" in message
    assert site.databases() == {"postgres", "origin"}


def test_missing_roles_are_named_before_anything_changes(site: Site) -> None:
    site.query("ALTER ROLE reader RENAME TO somebody")
    try:
        assert "does not have: reader" in site.fails()
    finally:
        site.query("ALTER ROLE somebody RENAME TO reader")


def test_a_database_of_the_working_name_is_nobodys_to_drop(site: Site) -> None:
    site.query("CREATE DATABASE lake_restoring")
    assert "lake_restoring exists and no restore journal" in site.fails()
    assert "lake_restoring" in site.databases()


def test_a_journal_is_never_put_where_the_server_keeps_its_data(site: Site) -> None:
    mount = docker("inspect", "--format", "{{(index .Mounts 0).Source}}", site.container).strip()
    assert "mounts: name another folder" in site.fails(work_path=f"{mount}/restore")
    assert not Path(mount, "restore").exists()


@pytest.mark.parametrize("profile", ["safe", "fast"])
def test_a_phase_that_fails_takes_everything_back(site: Site, tmp_path: Path, profile: str) -> None:
    lines = site.dump("origin", "bad.sql", "--format=plain").read_text().splitlines(keepends=True)
    lines.insert(len(lines) - 8, "SELECT 1 / 0;\n")
    (tmp_path / "bad.sql").write_text("".join(lines))
    message = site.fails(profile=profile, source=str(tmp_path / "bad.sql"))
    assert "division by zero" in message
    assert "Everything was taken back" in message
    assert site.databases() == {"postgres", "origin"}


def test_a_dump_of_another_version_is_refused_with_the_way_out(site: Site, tmp_path: Path) -> None:
    text = site.dump("origin", "old.sql", "--format=plain").read_text()
    version = site.query("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'", "origin")[0][0]
    assert f"timescaledb_version\t{version}" in text
    old = tmp_path / "old.sql"
    old.write_text(text.replace(f"timescaledb_version\t{version}", "timescaledb_version\t2.10.0"))
    message = site.fails(source=str(old))
    assert f"under TimescaleDB 2.10.0, the server has {version}" in message
    assert "ALTER EXTENSION timescaledb UPDATE" in message


@pytest.fixture
def url(dump: Path) -> Iterator[str]:
    """The dump over HTTP, from a server that tells sizes and times."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(dump.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}/{dump.name}"
        http.shutdown()


def test_a_dump_behind_a_url_is_fetched_restored_and_not_fetched_again(
    site: Site, dump: Path, url: str, truth: dict[str, tuple[int, int]]
) -> None:
    checksum = hashlib.sha256(dump.read_bytes()).hexdigest()
    assert "has no checksum" in site.fails(source=url)
    assert f"expected {'0' * 64}" in site.fails(source=url, checksum="0" * 64)
    told = site.ok(source=url, checksum=checksum, check=True)
    assert (told["changed"], told["source"]["size"]) == (True, dump.stat().st_size)
    answer = site.ok(source=url, checksum=checksum)
    assert answer["source"]["path"] == url
    assert site.fingerprint("lake") == truth
    assert not site.ok(source="http://127.0.0.1:1/gone", checksum=checksum)["changed"]


def test_a_dump_on_a_remote_of_rclone_is_fetched_and_restored(
    site: Site, dump: Path, remote: dict[str, str], truth: dict[str, tuple[int, int]]
) -> None:
    assert "has no checksum" in site.fails(**remote)
    checksum = hashlib.sha256(dump.read_bytes()).hexdigest()
    told = site.ok(**remote, checksum=checksum, check=True)
    assert told["source"]["size"] == dump.stat().st_size
    site.ok(**remote, checksum=checksum)
    assert site.fingerprint("lake") == truth


def ansible(site: Site, *options: str, **arguments: Any) -> str:
    """What ``ansible -m`` prints of the module on this machine."""
    command = ["ansible", "localhost", "-i", "localhost,", "-c", "local", *options]
    command += ["-e", f"ansible_python_interpreter={sys.executable}", "-m", "cryptopip.marketdata.tuned_restore"]
    done = subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *command[1:], "-a", json.dumps(site.arguments(**arguments))],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCAL_TEMP": str(site.folder / "ansible")},
    )
    return done.stdout + done.stderr


def test_ansible_shows_how_far_it_is_and_says_the_same_in_check_mode(
    site: Site, truth: dict[str, tuple[int, int]]
) -> None:
    told = ansible(site, "--check", "--diff")
    assert "localhost | CHANGED" in told, told
    assert f"+database lake: {ROWS + 1000} rows" in told
    assert site.databases() == {"postgres", "origin"}
    said = ansible(site)
    assert "localhost | CHANGED" in said, said
    assert "lake_restoring: " in said
    assert " MB of about " in said
    counted = re.search(r" MB of about \d+ MB, \d+ of (\d+) tables", said)
    assert counted, said
    assert re.search(r" MB/s, about \d+ s left", said), said
    assert int(counted[1]) >= CHUNKS + 2  # chunks, the plain table, and TimescaleDB's catalog
    assert site.fingerprint("lake") == truth
    assert "localhost | SUCCESS" in ansible(site)
    failed = ansible(site, source="/no/where")
    assert "localhost | FAILED" in failed
    assert "/no/where is not there" in failed


@pytest.mark.long
def test_twenty_restores_in_a_row_are_whole(site: Site, truth: dict[str, tuple[int, int]]) -> None:
    catalog = site.catalog("origin")
    assert len(catalog["chunk"]) == len(catalog["dimension_slice"]) == CHUNKS
    for turn in range(20):
        answer = site.ok(profile="fast", existing="drop", checksum=None, database=f"lake{turn}")
        assert answer["validated"]["chunks"] == CHUNKS
        assert site.fingerprint(f"lake{turn}") == truth
        assert site.catalog(f"lake{turn}") == catalog
        site.drop(f"lake{turn}")


@pytest.mark.parametrize("chunks", [1, pytest.param(1000, marks=pytest.mark.long)])
def test_few_and_many_chunks_are_restored(site: Site, chunks: int) -> None:
    fill(site, f"of{chunks}", chunks=chunks, rows=20_000)
    before = site.fingerprint(f"of{chunks}"), site.catalog(f"of{chunks}"), site.definitions(f"of{chunks}")
    assert len(before[1]["chunk"]) == chunks
    path = site.dump(f"of{chunks}", f"of{chunks}.dump", "--format=custom")
    answer = site.ok(source=str(path), profile="fast")
    assert answer["validated"]["chunks"] == chunks
    assert (site.fingerprint("lake"), site.catalog("lake"), site.definitions("lake")) == before
