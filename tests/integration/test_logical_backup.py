"""The module logical_backup against a real server, called as Ansible calls it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.integration.logical_backup_harness import DumpSite, ansible, at_other_folder, serving, small_disk
from tests.integration.tuned_restore_harness import docker, fill

pytestmark = [pytest.mark.database, pytest.mark.timeout(900)]
CHUNKS, ROWS = 6, 12_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DumpSite]:
    """A server with a database to dump."""
    if not os.environ.get("CRYPTOPIP_TEST_IMAGE"):
        pytest.skip("CRYPTOPIP_TEST_IMAGE names no image: bin/test sets it")
    with serving(tmp_path_factory.mktemp("dump")) as site:
        fill(site, "origin", chunks=CHUNKS, rows=ROWS)
        yield site


@pytest.fixture(scope="module")
def truth(server: DumpSite) -> dict[str, tuple[int, int]]:
    return server.fingerprint("origin")


@pytest.fixture
def site(server: DumpSite) -> Iterator[DumpSite]:
    """The server with nothing but ``origin``, and no dumps; nothing of a run is left behind."""
    server.drop(*(server.databases() - {"postgres", "origin"}))
    shutil.rmtree(server.dumps, ignore_errors=True)
    server.defaults = {"databases": ["origin"]}
    before = server.auto_conf(), server.settings()
    yield server
    assert (server.auto_conf(), server.settings()) == before
    assert sorted(path.name for path in server.work.glob("*")) in ([], ["dump.lock"], ["dump.lock", "lock"])
    assert not server.dumps.exists() or not [name for name in server.names() if name.startswith(".")]
    for tool in ("dump", "restore"):
        assert not docker("ps", "--all", "--quiet", "--filter", f"name={server.container}-{tool}")


@pytest.fixture(scope="module")
def kept(server: DumpSite) -> Path:
    """A dump of ``origin`` to be copied, so that not every test makes one."""
    name = server.one(databases=["origin"], path=str(server.folder / "kept"))
    return server.folder / "kept" / name


@pytest.fixture
def name(site: DumpSite, kept: Path) -> str:
    """The name of a dump that lies in the site's folder."""
    shutil.copytree(kept, site.dumps / kept.name)
    return kept.name


@pytest.mark.parametrize(("format_", "dump"), [("directory", "dump"), ("custom", "dump.gz")])
def test_a_dump_restores_to_what_was_dumped_and_a_second_run_makes_none(
    site: DumpSite, truth: dict[str, tuple[int, int]], format_: str, dump: str
) -> None:
    told = site.ok(format=format_, max_age="1h", check=True)
    assert (told["changed"], told["made"]) == (True, ["origin_<time>"])
    assert not site.dumps.exists()
    name = site.one(format=format_, max_age="1h")
    assert site.names() == [name]
    assert sorted(path.name for path in (site.dumps / name).iterdir()) == sorted(
        [dump, "globals.sql", "manifest.json", "verified.json"]
    )
    assert "CREATE ROLE keeper" in (site.dumps / name / "globals.sql").read_text()
    manifest = site.manifest(name)
    assert {table: n for table, n in manifest["rows"].items() if table in truth} == {
        t: n for t, (n, _) in truth.items()
    }
    assert manifest["hypertables"]["public.ticks"]["rows"] == ROWS
    assert manifest["hypertables"]["public.ticks"]["chunks"] == CHUNKS
    for file in manifest["files"]:
        data = (site.dumps / name / file["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["size"], file["sha256"])
    for again in (site.ok(format=format_, max_age="1h"), site.ok(format=format_, max_age="1h", check=True)):
        assert (again["changed"], again["made"]) == (False, [])
    (listed,) = site.ok(state="listed")["dumps"]
    assert (listed["name"], listed["verified"], listed["verified_by"]) == (name, True, "contents")
    for path in (site.dumps / name, site.dumps / name / dump):
        site.drop("lake")
        answer = site.restore().ok(source=str(path), checksum=listed["sha256"])
        assert answer["rows_checked_against"] == "manifest"
        assert site.fingerprint("lake") == truth


def test_what_is_counted_is_what_is_dumped_while_others_write(site: DumpSite) -> None:
    site.query("CREATE DATABASE busy")
    site.query("CREATE EXTENSION timescaledb", "busy")
    site.query("CREATE TABLE a (time timestamptz NOT NULL, n bigint)", "busy")
    site.query("SELECT create_hypertable('a', 'time', chunk_time_interval => interval '1 day')", "busy")
    site.query("CREATE TABLE b (n bigint)", "busy")
    ended = threading.Event()
    written: list[int] = []

    def write() -> None:
        with psycopg.connect(make_conninfo(site.dsn, dbname="busy")) as connection:
            while not ended.is_set():
                n = len(written)
                connection.execute(
                    "INSERT INTO a SELECT '2026-01-01'::timestamptz + i * interval '1 hour', %s "
                    "FROM generate_series(1, 100) AS i",
                    [n],
                )
                connection.execute("INSERT INTO b VALUES (%s)", [n])
                connection.commit()
                written.append(n)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while len(written) < 20:
            assert writer.is_alive()
        begun = len(written)
        name = site.one(databases=["busy"])
        made = len(written)
    finally:
        ended.set()
        writer.join()
    manifest = site.manifest(name)
    in_b = manifest["rows"]["public.b"]
    assert begun <= in_b < made, "nobody wrote during the dump: this proved nothing"
    assert manifest["hypertables"]["public.a"]["rows"] == in_b * 100
    site.restore().ok(source=str(site.dumps / name))
    assert site.query("SELECT count(*), max(n) FROM b", "lake") == [(in_b, in_b - 1)]
    assert site.query("SELECT count(*) FROM a", "lake") == [(in_b * 100,)]


def test_all_databases_are_dumped_and_the_newest_verified_are_kept(site: DumpSite) -> None:
    site.query('CREATE DATABASE "a/b c"')
    site.query("CREATE TABLE t (n int)", "a/b c")
    site.defaults = {}
    first = site.ok()["made"]
    assert [name.split("_")[0] for name in first] == ["a%2Fb%20c", "origin"]
    assert site.manifest(first[0])["timescaledb"] is None
    second = [name for _ in range(2) for name in site.ok(databases=["a/b c"])["made"]]
    # The newest one is damaged: it is not counted, so the one before stays.
    damaged = site.dumps / second[1] / "dump" / "toc.dat"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert "toc.dat has" in site.fails(state="verified", name=second[1])
    told = site.ok(databases=["a/b c"], max_age="1d", keep=1, check=True)
    assert told["removed"] == [first[0]]
    assert sorted([*first, *second]) == site.names()
    answer = site.ok(databases=["a/b c"], max_age="1d", keep=1)
    assert (answer["removed"], answer["made"]) == ([first[0]], [])
    assert site.names() == sorted([second[0], second[1], first[1]])
    assert "expected 1 or more" in site.fails(keep=0)
    third = site.ok(databases=["a/b c"], keep=1)
    assert third["removed"] == [second[0]]
    assert "the last verified dump" in site.fails(state="absent", name=third["made"][0])
    assert site.ok(state="absent", name=second[1])["removed"] == [second[1]]
    assert not site.ok(state="absent", name=second[1])["changed"]
    assert site.ok(state="absent", name=third["made"][0], force=True)["changed"]
    assert site.names() == [first[1]]


def spoil(folder: Path, how: str) -> None:
    """What a disk or a person may do to a dump."""
    data = max((folder / "dump").iterdir(), key=lambda path: path.stat().st_size)
    match how:
        case "flipped":
            content = bytearray(data.read_bytes())
            content[len(content) // 2] ^= 1
            data.write_bytes(content)
        case "cut":
            data.write_bytes(data.read_bytes()[:-10])
        case "missing":
            data.unlink()
        case "manifest":
            path = folder / "manifest.json"
            manifest = json.loads(path.read_text())
            manifest["rows"]["other.plain"] += 1
            path.write_text(json.dumps(manifest))
        case "no manifest":
            (folder / "manifest.json").unlink()
        case _:
            (folder / "manifest.json").write_text("torn")


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("flipped", "has the SHA-256"),
        ("cut", "bytes, expected"),
        ("missing", "is not there"),
        ("manifest", "other.plain has 500 rows in the dump, expected 501"),
        ("no manifest", "has no manifest"),
        ("torn manifest", "is no manifest of a dump"),
    ],
)
def test_a_spoiled_dump_is_found_counts_no_longer_and_is_not_restored(
    site: DumpSite, name: str, how: str, says: str
) -> None:
    spoil(site.dumps / name, how)
    for check in (True, False):
        assert says in site.fails(state="verified", name=name, check=check)
    (listed,) = site.ok(state="listed", databases=[])["dumps"]
    assert listed["verified"] is False
    assert listed["problem"]
    if how != "no manifest":
        assert "Nothing was changed" in site.restore().fails(source=str(site.dumps / name))
        assert "lake" not in site.databases()
    told = site.ok(max_age="1h", check=True)
    assert told["made"] == ["origin_<time>"]


def test_a_dump_that_is_whole_is_found_whole(site: DumpSite, name: str) -> None:
    before = site.ok(state="listed")["dumps"]
    answer = site.ok(state="verified")
    assert (answer["changed"], [dump["name"] for dump in answer["dumps"]]) == (False, [name])
    assert answer["dumps"][0]["verified_at"] >= before[0]["verified_at"]
    (site.dumps / name / "verified.json").unlink()
    assert site.ok(state="verified", check=True)["changed"]
    assert site.ok(state="verified")["changed"]
    assert "has no dump of lake" in site.fails(state="verified", databases=["lake"])
    assert "has no dump nothing" in site.fails(state="verified", name="nothing")


def test_a_dump_is_restored_to_be_verified_and_nothing_of_it_stays(site: DumpSite) -> None:
    answer = site.ok(verify="restore")
    assert [dump["verified_by"] for dump in answer["dumps"]] == ["restore"]
    assert answer["seconds"]["restoring"] > 0
    assert site.databases() == {"postgres", "origin"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"databases": ["nowhere"]}, "no database nowhere, expected one of origin"),
        ({"login_user": "keyed", "login_password": "wrong"}, "refused the connection"),
        ({"login_user": "reader"}, "refused the connection"),
        ({"login_port": 1}, "no connection"),
        ({"container": "no-such-container"}, "no-such-container"),
        ({"jobs": 0}, "jobs is 0"),
        ({"max_age": "1 week"}, "max_age is '1 week'"),
        ({"state": "absent"}, "name"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_made(site: DumpSite, options: dict[str, Any], says: str) -> None:
    assert says in site.fails(**options)
    assert not site.dumps.exists() or site.names() == []


def test_a_password_never_shows(site: DumpSite) -> None:
    process = site.start(login_user="keyed", login_password="sesame")
    seen = []
    while process.poll() is None:
        seen.append(subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout)
    out, _ = process.communicate()
    assert json.loads(out)["made"]
    assert any("pg_dump" in each for each in seen)
    assert not any("sesame" in each for each in seen)
    folder = site.dumps / json.loads(out)["made"][0]
    assert "sesame" not in (folder / "manifest.json").read_text()
    restore, keyed = site.restore(), {"source": str(folder), "login_user": "keyed"}
    assert "refused the connection" in restore.fails(**keyed, login_password="wrong")
    assert restore.ok(**keyed, login_password="sesame")["changed"]


def test_dumps_are_never_put_where_the_server_keeps_its_data(site: DumpSite) -> None:
    mount = docker("inspect", "--format", "{{(index .Mounts 0).Source}}", site.container).strip()
    assert "lost together with the database" in site.fails(path=f"{mount}/dumps")
    assert not Path(mount, "dumps").exists()


def test_a_full_disk_leaves_no_dump_and_says_so(site: DumpSite) -> None:
    site.query("CREATE DATABASE noise")
    site.query("CREATE TABLE t AS SELECT sha512(i::text::bytea) AS a FROM generate_series(1, 100000) AS i", "noise")
    with small_disk(3, os.environ["CRYPTOPIP_TEST_IMAGE"]) as path:
        there = at_other_folder(site, path / "dumps")
        message = there.fails(databases=["noise"])  # which does not compress to the tenth that was expected
        assert "No space left on device" in message, message
        assert [each.name for each in (path / "dumps").iterdir()] == [".lock"]
        (path / "ballast").write_bytes(b"x" * (2 << 20))
        for check in (True, False):
            assert "MB free, the dump takes about" in there.fails(databases=["noise"], check=check)
        (path / "ballast").unlink()
        site.query("TRUNCATE t", "noise")
        assert there.ok(databases=["noise"])["made"]


def test_ansible_shows_how_far_it_is_and_says_the_same_in_check_mode(site: DumpSite) -> None:
    told = ansible(site, "--check", "--diff")
    assert "localhost | CHANGED" in told, told
    assert "+origin_<time>: verified" in told
    assert not site.dumps.exists()
    said = ansible(site)
    assert "localhost | CHANGED" in said, said
    assert "  origin: " in said or "  origin_" in said
    assert "localhost | SUCCESS" in ansible(site, max_age="1h")
    assert site.ok(state="listed")["dumps"][0]["name"] in ansible(site, state="listed")
    assert "localhost | FAILED" in ansible(site, databases=["nowhere"])
