"""A dump that is killed at any step leaves none that is half, nor anything that the next run does not take away."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.harness.process import until
from tests.integration.logical_backup_harness import ROOT, STEPS, WITH_TOOL, DumpSite, serving
from tests.integration.tuned_restore_harness import VICTIMS, docker, fill

pytestmark = [pytest.mark.database, pytest.mark.timeout(900)]

MATRIX = [(step, victim) for step in STEPS for victim in VICTIMS if victim != "tool" or step in WITH_TOOL]
USUAL = {
    *(("snapshot", "postgres"), ("globals", "tool"), ("dumping", "module"), ("dumping", "container")),
    *(("hashing", "module"), ("verifying", "tool"), ("naming", "module"), ("protecting", "module")),
    ("removing", "module"),
}
"""One or two a step; the rest runs by --long."""

INCARNATION = "00000000-0000-4000-8000-000000000001"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DumpSite]:
    """A server with a datalake that has merged something."""
    if not os.environ.get("CRYPTOPIP_TEST_IMAGE"):
        pytest.skip("CRYPTOPIP_TEST_IMAGE names no image: bin/test sets it")
    with serving(tmp_path_factory.mktemp("dump")) as site:
        site.query("CREATE DATABASE lake")
        site.query("CREATE EXTENSION timescaledb", "lake")
        for migration in sorted((ROOT / "files" / "sql" / "datalake").glob("*.up.sql")):
            if "edition: community" not in migration.read_text():
                site.query(migration.read_text(), "lake")
        for stream, until_ in (("ing1/binance", "2026-11-20 12:00+00"), ("ing2/okx", "2026-11-20 11:00:00.5+00")):
            merge(site, stream, until_)
        fill(site, "other_lake", chunks=3, rows=6_000)
        site.defaults = {"databases": ["lake"], "keep": 1}
        yield site


def merge(site: DumpSite, stream: str, alive_until: str, *, merged: str = "now()") -> None:
    """As sync notes it: a source, how far it has merged, and its connection."""
    ingestor, exchange = stream.split("/")
    for statement in (
        f"INSERT INTO sources VALUES ('{INCARNATION}', '{ingestor}') ON CONFLICT DO NOTHING",
        f"INSERT INTO watermarks VALUES ('{INCARNATION}', '{stream}', 1, {merged})",
        "INSERT INTO connections (incarnation, stream, ingestor, exchange, epoch, opened_at, alive_until, batch) "
        f"VALUES ('{INCARNATION}', '{stream}', '{ingestor}', '{exchange}', 1, '2026-11-01', '{alive_until}', 1)",
    ):
        site.query(statement, "lake")


def protections(site: DumpSite) -> list[tuple[str, str]]:
    """Which dumps protect, and until when."""
    rows = site.query(
        "SELECT name, (protected_until AT TIME ZONE 'UTC')::text FROM protections WHERE source = 'logical_backup' "
        "ORDER BY name",
        "lake",
    )
    return [(Path(name).name, until_) for name, until_ in rows]


@pytest.fixture
def site(server: DumpSite) -> Iterator[DumpSite]:
    """The server with one dump to replace; afterwards there is exactly one, whole, and it protects."""
    shutil.rmtree(server.dumps, ignore_errors=True)
    server.query("DELETE FROM protections", "lake")
    server.one()
    before = server.auto_conf(), server.settings()
    yield server
    assert (server.auto_conf(), server.settings()) == before
    assert sorted(path.name for path in server.work.iterdir()) == ["dump.lock", "lock"]
    assert server.databases() == {"postgres", "lake", "other_lake"}
    for tool in ("dump", "restore"):
        assert not docker("ps", "--all", "--quiet", "--filter", f"name={server.container}-{tool}")
    (name,) = server.names()
    assert protections(server) == [(name, "2026-11-20 11:00:00.5")]
    assert not server.ok(state="verified")["changed"]


@pytest.mark.parametrize(
    ("step", "victim"),
    [pytest.param(*each, marks=() if each in USUAL else pytest.mark.long, id="-".join(each)) for each in MATRIX],
)
def test_the_run_after_a_kill_leaves_one_whole_dump(site: DumpSite, step: str, victim: str) -> None:
    old = site.names()
    process = site.start(kill=(step, victim))
    out, err = process.communicate(timeout=300)
    assert f"killing {victim} in step {step}" in err, (out, err)
    if victim == "module":
        assert (process.returncode, out) == (-9, "")
    elif json.loads(out).get("failed") and step in WITH_TOOL:  # it outlived its victim, and cleaned up itself
        assert site.names() == old
    if victim == "container":
        docker("start", site.container)
    if victim in {"container", "postgres"}:
        until(lambda: answers(site), "the server", 120, pause=0.3)
    for name in site.names():
        if not name.startswith("."):
            assert json.loads((site.dumps / name / "verified.json").read_text())["problem"] is None
            assert (site.dumps / name / "manifest.json").is_file()
    site.ok()
    assert len(site.names()) == 1
    assert site.names() != old


def answers(site: DumpSite) -> bool:
    try:
        site.query("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def test_a_run_told_to_end_leaves_no_dump(site: DumpSite) -> None:
    old = site.names()
    process = site.start()
    until(lambda: any(name.startswith(".") for name in site.names()), "a dump in the making", 60, pause=0.005)
    process.terminate()
    out, _ = process.communicate(timeout=300)
    assert "ended by signal SIGTERM" in json.loads(out)["msg"]
    assert site.names() == old


def test_a_killed_restore_of_a_dump_is_taken_back_by_the_next_run(site: DumpSite) -> None:
    old = site.names()
    process = site.start(verify="restore", keep=None)
    until(lambda: (site.restore().journal() or {}).get("phase") == "data", "the restore", 120, pause=0.005)
    process.kill()
    process.communicate()
    assert "was interrupted" in site.restore().run(state="reverted", source=None, database="x", check=True)["mended"]
    answer = site.ok(max_age="1h")
    assert any("lake_dump_check_restoring was dropped" in line for line in answer["mended"])
    assert not set(old) & set(site.names())


def test_an_interrupted_restore_of_another_is_left_to_its_own_module(site: DumpSite) -> None:
    restore = site.restore()
    source = str(site.dumps / site.names()[0])
    killed = restore.start(kill=("data", "module"), source=source, database="restored")
    assert "killing module" in killed.communicate(timeout=300)[1]
    assert "with state=reverted" in site.fails()
    restore.ok(state="reverted", source=None, database="restored")


def test_a_dump_and_a_restore_never_meet(site: DumpSite) -> None:
    old = site.names()
    first = site.start()
    until(lambda: any(name.startswith(".") for name in site.names()), "a dump in the making", 60, pause=0.005)
    for message in (
        site.fails(),
        site.fails(work_path=str(site.folder / "another")),
        site.fails(path=str(site.folder / "another")),
        site.restore().fails(source=str(site.dumps / old[0]), database="restored"),
    ):
        assert "at work" in message
    assert not json.loads(first.communicate(timeout=300)[0]).get("failed")
    restoring = site.restore().start(source=str(site.dumps / site.names()[0]), database="restored")
    until(lambda: site.restore().journal() is not None, "the restore's journal", 60, pause=0.005)
    assert "a restore is at work" in site.fails()
    assert not json.loads(restoring.communicate(timeout=300)[0]).get("failed")
    site.drop("restored")


def test_what_is_protected_follows_the_dumps(site: DumpSite) -> None:
    first = site.names()[0]
    merge(site, "ing3/gone", "2026-01-01+00", merged="now() - interval '31 days'")  # holds nothing back
    second = site.one(keep=2)
    expected = "2026-11-20 11:00:00.5"
    assert protections(site) == [(first, expected), (second, expected)]
    assert site.manifest(second)["merged_until"] == "2026-11-20T11:00:00.500000+00"
    toc = site.dumps / first / "dump" / "toc.dat"
    toc.write_bytes(toc.read_bytes() + b"x")
    told: dict[str, Any] = site.run(state="verified", name=first, check=True)
    assert "toc.dat has" in told["msg"]
    assert len(protections(site)) == 2
    assert "toc.dat has" in site.fails(state="verified", name=first)
    assert protections(site) == [(second, expected)]
    site.query("INSERT INTO protections VALUES ('archive', '2026-10', '2026-11-01')", "lake")
    site.query("INSERT INTO protections VALUES ('logical_backup', '/elsewhere/lake_x', '2026-11-01')", "lake")
    assert site.ok(state="absent", name=first)["removed"] == [first]
    site.query("DELETE FROM protections WHERE name = %s" % f"'{site.dumps / second}'", "lake")  # noqa: UP031
    assert site.ok(max_age="1h", check=True)["protections"]
    answer = site.ok(max_age="1h")
    assert (answer["changed"], answer["made"]) == (True, [])
    rows = site.query("SELECT name FROM protections ORDER BY name", "lake")
    assert {name for (name,) in rows} == {str(site.dumps / second), "/elsewhere/lake_x", "2026-10"}
    assert not site.ok(max_age="1h")["changed"]
    site.query("DELETE FROM protections WHERE name IN ('2026-10', '/elsewhere/lake_x')", "lake")


def test_the_manifest_has_the_datalakes_digests_and_its_migrations(site: DumpSite) -> None:
    site.query("INSERT INTO digests VALUES (1, 'trades', '2026-11-01 00:00+00', 0, 7)", "lake")
    name = site.one(verify="restore")
    manifest = site.manifest(name)
    assert (
        manifest["hypertables"]["public.trades"]["digest_rows"],
        manifest["hypertables"]["public.trades"]["digest_hash"],
    ) == (0, "7")
    assert manifest["migrations"] == []  # made without the module schema_migration, so there is no ledger
    site.query("DELETE FROM digests", "lake")
