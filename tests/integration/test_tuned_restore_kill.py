"""A restore that is killed at any of its phases leaves nothing that the next run does not mend."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.integration.harness.process import until
from tests.integration.tuned_restore_harness import PREPARED, VICTIMS, RestoreServer, Site, docker, fill

pytestmark = [pytest.mark.database, pytest.mark.timeout(900)]
CHUNKS, ROWS = 8, 8_000
PHASES = (
    *("inspect", "prepared", "tuning", "creating", "pre-data", "catalog", "data", "post-data", "plain"),
    *("finishing", "validating", "reverting", "flushed", "swapping"),
)
"""All of the journal's, but for suspect, and the one before there is a journal, when the dump is read."""
WITH_TOOL = ("inspect", "pre-data", "catalog", "data", "post-data", "plain")
"""The phases that run pg_restore, or psql, in a container of its own."""

MATRIX = [(phase, victim) for phase in PHASES for victim in VICTIMS if victim != "tool" or phase in WITH_TOOL]
USUAL = {
    *(("inspect", "module"), ("prepared", "module"), ("plain", "module")),
    *(("tuning", "module"), ("creating", "postgres"), ("pre-data", "module"), ("catalog", "tool"), ("data", "module")),
    *(("data", "container"), ("post-data", "tool"), ("finishing", "postgres"), ("validating", "container")),
    *(("reverting", "module"), ("flushed", "container"), ("swapping", "module")),
}
"""One or two a phase; the rest runs by --long."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server that archives WAL, with a database to dump."""
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
        path = site.dump("origin", "origin.dump", "--format=custom")
        (folder / "origin.gz").write_bytes(gzip.compress(site.dump("origin", "origin.sql").read_bytes(), 1))
        site.defaults = {"source": str(path), "accept_cluster_risk": True, "profile": "fast"}
        yield site
    finally:
        docker("rm", "--force", f"{server.container}-restore", check=False)
        server.remove()


def answers(site: Site) -> bool:
    try:
        site.query("SELECT 1")
    except Exception:  # noqa: BLE001 - any error: it does not answer yet
        return False
    return True


@pytest.fixture
def site(server: Site) -> Iterator[Site]:
    """The server, seen afterwards to run with what it ran with before, whatever was killed in between."""
    server.drop(*(server.databases() - {"postgres", "origin"}))
    before = server.auto_conf(), server.settings()
    truth = server.fingerprint("origin")
    yield server
    assert server.journal() is None
    assert (server.auto_conf(), server.settings()) == before
    assert server.fingerprint("origin") == truth
    assert not docker("ps", "--all", "--quiet", "--filter", f"name={server.container}-restore")
    assert [path.name for path in server.work.iterdir()] == ["lock"]


@pytest.mark.parametrize(
    ("phase", "victim"),
    [pytest.param(*each, marks=() if each in USUAL else pytest.mark.long, id="-".join(each)) for each in MATRIX],
)
def test_the_run_after_a_kill_restores_the_database_and_every_setting(site: Site, phase: str, victim: str) -> None:
    options: dict[str, Any] = {"source": str(site.folder / "origin.gz")} if phase in {"plain", "inspect"} else {}
    process = site.start(kill=(phase, victim), **options)
    out, err = process.communicate(timeout=300)
    assert f"killing {victim} in phase {phase}" in err, (out, err)
    if phase == "inspect":
        if victim == "container":  # before there is a journal nobody but the operator starts it
            docker("start", site.container)
        until(lambda: answers(site), "the server", 120, pause=0.3)
    if victim == "module":
        assert (process.returncode, out) == (-9, "")
        left = site.journal()
        assert (left or {"phase": "inspect"})["phase"] == phase
    elif json.loads(out).get("failed"):  # it outlived its victim, and took everything back itself
        assert site.journal() is None, out
        assert site.databases() <= {"postgres", "origin", "lake"}
        assert ("Nothing was changed" if phase == "inspect" else "Everything was taken back") in out
    site.ok(**options)
    assert site.databases() == {"postgres", "origin", "lake"}
    assert site.fingerprint("lake") == site.fingerprint("origin")
    assert site.catalog("lake") == site.catalog("origin")
    site.query("INSERT INTO ticks (time, id) VALUES ('2027-01-01', 1)", "lake")
    assert not site.ok(**options)["changed"]


def test_what_a_run_left_that_was_killed_before_its_journal_is_removed(site: Site) -> None:
    gz: dict[str, Any] = {"source": str(site.folder / "origin.gz")}
    assert "killing module" in site.start(kill=("inspect", "module"), **gz).communicate(timeout=300)[1]
    container = ("ps", "--all", "--quiet", "--filter", f"name={site.container}-restore")
    unpacked = site.work / "dump.unpacked"
    reverted: dict[str, Any] = {"state": "reverted", "source": None}
    assert docker(*container)
    assert unpacked.exists()
    assert site.ok(**reverted, check=True)["changed"]
    assert unpacked.exists()
    assert "had left container" in site.ok(**reverted)["mended"]
    assert not docker(*container)
    assert not unpacked.exists()
    assert not site.ok(**reverted)["changed"]


@pytest.mark.parametrize("phase", ["tuning", "data", "reverting", "flushed", "swapping"])
def test_state_reverted_takes_back_what_a_killed_run_left(site: Site, phase: str) -> None:
    site.query("CREATE DATABASE lake")
    site.query("CREATE TABLE mine (a int)", "lake")
    process = site.start(kill=(phase, "module"), existing="keep")
    assert "killing module" in process.communicate(timeout=300)[1]
    if phase in {"data", "reverting"}:
        assert site.auto_conf()["fsync"] == "'off'"
    told = site.ok(state="reverted", source=None, check=True)
    assert told["changed"]
    assert site.journal() is not None
    answer = site.ok(state="reverted", source=None)
    assert answer["changed"]
    assert answer["base_backup_required"]
    assert site.databases() == {"postgres", "origin", "lake"}
    assert site.query("SELECT count(*) FROM mine", "lake") == [(0,)]
    assert not site.ok(state="reverted", source=None)["changed"]


def test_the_whole_container_killed_with_the_module_is_started_and_mended(site: Site) -> None:
    assert "killing module" in site.start(kill=("data", "module")).communicate(timeout=300)[1]
    docker("kill", site.container)
    assert "start it and run again" in site.fails(restart=False)
    answer = site.ok()
    assert "interrupted in phase data" in answer["mended"]
    assert site.fingerprint("lake") == site.fingerprint("origin")


def test_a_killed_run_between_the_names_gives_the_database_back_to_its_clients(site: Site) -> None:
    site.query("CREATE DATABASE lake")
    assert "killing module" in site.start(kill=("swapping", "module"), existing="keep").communicate(timeout=300)[1]
    site.query("ALTER DATABASE lake WITH ALLOW_CONNECTIONS false")  # the step after which it may be killed as well
    site.ok(state="reverted", source=None)
    assert site.query("SELECT datallowconn FROM pg_database WHERE datname = 'lake'") == [(True,)]


@pytest.mark.parametrize("existing", ["keep", "drop"])
def test_a_run_killed_right_after_the_names_is_finished(site: Site, existing: str) -> None:
    site.query("CREATE DATABASE lake")
    assert "killing module" in site.start(kill=("swapping", "module"), existing=existing).communicate(timeout=300)[1]
    journal = site.journal()
    assert journal is not None
    site.query("SELECT _timescaledb_functions.stop_background_workers()", "lake_restoring")
    site.query("ALTER DATABASE lake WITH ALLOW_CONNECTIONS false")
    site.query(f"ALTER DATABASE lake RENAME TO {journal['replaced']}")
    site.query("ALTER DATABASE lake_restoring RENAME TO lake")
    answer = site.ok(existing=existing)
    assert "its last step was finished" in answer["mended"]
    assert site.fingerprint("lake") == site.fingerprint("origin")
    kept = {journal["replaced"]} if existing == "keep" else set()
    assert site.databases() == {"postgres", "origin", "lake"} | kept
    for name in kept:
        assert site.query("SELECT 1", name) == [(1,)]


def test_a_host_that_went_down_without_fsync_is_suspect_until_somebody_decides(site: Site) -> None:
    assert "killing module" in site.start(kill=("data", "module")).communicate(timeout=300)[1]
    path = site.work / "journal.json"
    journal = json.loads(path.read_text())
    path.write_text(json.dumps({**journal, "boot_id": "of the boot before"}))
    for _ in range(2):
        for options in ({}, {"state": "reverted", "source": None}):
            assert "do not trust the data" in site.fails(**options)
    assert "fsync" not in site.auto_conf()
    assert site.query("SHOW fsync") == [("on",)]
    assert "lake" not in site.databases()
    # The operator's decision, here to go on all the same: the archive_mode that waits for a restart comes with it.
    path.unlink()
    site.drop("lake_restoring")
    docker("restart", site.container)
    until(lambda: answers(site), "the server", 120, pause=0.3)
    site.ok()


def test_another_clusters_journal_is_left_alone(site: Site) -> None:
    assert "killing module" in site.start(kill=("tuning", "module")).communicate(timeout=300)[1]
    path = site.work / "journal.json"
    text = path.read_text()
    path.write_text(json.dumps({**json.loads(text), "system_identifier": "1"}))
    assert "is of cluster 1" in site.fails()
    path.write_text("torn")
    assert "is no restore journal" in site.fails()
    path.write_text(text)
    site.ok(state="reverted", source=None)


def test_two_runs_at_once_do_not_meet(site: Site, tmp_path: Path) -> None:
    first = site.start()
    until(lambda: site.journal() is not None, "the first run's journal", 60, pause=0.02)
    refused = site.run()
    assert "another restore is at work" in refused["msg"]
    assert refused["at_work"] is True  # so that the playbook lets nothing go on
    out, _ = first.communicate(timeout=300)
    assert not json.loads(out).get("failed"), out


def test_a_statement_that_outlives_the_run_that_asked_for_it_is_ended_first(site: Site) -> None:
    """As CREATE DATABASE does, where its client is killed: it would make the database after it was looked for."""
    run = site.start(kill=("creating", "module"), profile="safe")  # whose way back restarts nothing
    assert "killing module" in run.communicate(timeout=300)[1]
    dsn = make_conninfo(site.dsn, dbname="postgres", application_name="cryptopip tuned_restore")
    with psycopg.connect(dsn, autocommit=True) as left:
        waiting = threading.Thread(target=_sleep_and_create, args=[left])
        waiting.start()
        until(lambda: len(site.query(_SLEEPING)) == 1, "the statement", 30, pause=0.02)
        site.ok(state="reverted", source=None)
        assert site.query(_SLEEPING) == []
        waiting.join()
    assert site.databases() == {"postgres", "origin"}


_SLEEPING = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep(%'"


def _sleep_and_create(connection: psycopg.Connection[Any]) -> None:
    with contextlib.suppress(psycopg.OperationalError):
        connection.execute("SELECT pg_sleep(20)")
        connection.execute("CREATE DATABASE lake_restoring")


@pytest.mark.parametrize("turn", range(3))
def test_a_run_told_to_end_takes_everything_back(site: Site, turn: int) -> None:
    process = site.start()
    phases = ({"creating"}, {"pre-data", "catalog"}, {"post-data", "finishing"})[turn]
    until(
        lambda: (site.journal() or {}).get("phase") in phases,
        "phase",
        60,
        pause=0.01,
    )
    process.terminate()
    out, _ = process.communicate(timeout=300)
    assert "ended by signal SIGTERM" in json.loads(out)["msg"]
    assert "Everything was taken back" in json.loads(out)["msg"]
    assert site.databases() == {"postgres", "origin"}
