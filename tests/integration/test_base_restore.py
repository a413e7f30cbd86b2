"""Module base_restore with a real server and WAL-E's sidecar, and a datalake that went back and catches up by sync."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.conftest import fresh_database
from tests.integration.base_backup_harness import Site
from tests.integration.harness.process import ROOT
from tests.integration.test_sync import EVENTS, Lab
from tests.integration.wale_harness import PGDATA, Pair, run

pytestmark = pytest.mark.database
CHANNELS = ("trades", "quotes", "book_events")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A server with an empty datalake, and its sidecar."""
    image = run(str(ROOT / "roles/wale/files/build_image.sh")).stdout.split()[1]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pair = Pair(tmp_path, port=port)
    pair.image = image
    try:
        pair.up()
        site = Site(pair, tmp_path)
        site.make_database("datalake")
        site.make_database("app")
        yield site
    finally:
        pair.down()


@pytest.fixture
def lab(site: Site, server_dsn: str) -> Iterator[Lab]:
    """Two ingestors on a server of their own, whose datalake is the site's."""
    with ExitStack() as stack:
        ingestors = {
            name: stack.enter_context(contextmanager(fresh_database)(server_dsn, "ingestor"))
            for name in ("ing1", "ing2")
        }
        lab = Lab(ingestors, make_conninfo(site.dsn, dbname="datalake"))
        lab.clear()
        yield lab


def digests(dsn: str) -> list[tuple[Any, ...]]:
    """What the datalake's own digests say of all there is."""
    with psycopg.connect(dsn) as connection:
        return connection.execute("SELECT * FROM digests ORDER BY 1, 2, 3").fetchall()


def everything(lab: Lab) -> dict[str, Counter[tuple[Any, ...]]]:
    """Every row of every channel."""
    return {channel: lab.rows(channel) for channel in CHANNELS}


def promote(site: Site, timeline: int) -> None:
    """End the recovery: foretold, done, and a second time unchanged; the archive knows the timeline it began."""
    options: dict[str, Any] = {"module": "base_restore", "state": "promoted", "server": site.pair.db}
    assert site.ok(**options, check=True)["changed"] is True
    assert site.pair.sql("select pg_is_in_recovery()") == "t"
    done = site.ok(**options)
    assert (done["archive_mode"], done["timeline"]) == ("on", timeline)
    again = site.ok(**options)
    assert (again["changed"], again["timeline"]) == (False, timeline)
    of_restore = f"select name from pg_file_settings where sourcefile = '{PGDATA}/postgresql.auto.conf'"
    assert site.pair.sql(of_restore) == ""
    assert site.pair.shell(f"readlink {PGDATA}/pg_wal").strip() == "/var/lib/postgresql/wal/pg_wal"


def test_a_datalake_that_went_back_is_made_whole_again_by_sync(site: Site, lab: Lab, server_dsn: str) -> None:
    """Ingestors hold everything newer, and the watermarks went back with the rows."""
    pair = site.pair
    lab.load("ing1", 1, list(range(20)))
    lab.load("ing2", 1, list(range(5, 25)))
    lab.sync()
    backup = site.ok(state="present", max_age="0s")["backup"]["name"]
    lab.load("ing1", 2, list(range(20, 30)))
    lab.sync()  # in the WAL after the backup, before the target
    with psycopg.connect(lab.datalake, autocommit=True) as connection:
        (target,) = connection.execute("SELECT clock_timestamp()::text").fetchone() or ("",)
        then = everything(lab)
        with psycopg.connect(lab.ingestors["ing2"], autocommit=True) as ingestor:  # one that the universe has no more
            ingestor.execute(
                "INSERT INTO instruments (id, exchange, symbol, native_id, kind, base, quote, listed_at) VALUES"
                " (9, 'binance', 'SOL/USDT', 'SOLUSDT', 'spot', 'SOL', 'USDT', '2020-01-01')"
            )
    lab.load("ing2", 2, list(range(25, 40)))
    lab.load("ing1", 3, list(range(30, EVENTS)))
    lab.sync()
    truth, true_digests = everything(lab), digests(lab.datalake)
    assert truth != then, "nothing is newer than the target: this run proved nothing"
    pair.archived_segment()

    wish: dict[str, Any] = {"module": "base_restore", "target": target, "server": pair.db, "timeout": 120}
    assert "is running" in site.fails(**wish)["msg"]
    assert "is not empty" in site.fails(**wish, stop=True)["msg"]
    told = site.ok(**wish, stop=True, existing="keep", check=True)
    assert (told["backup"]["name"], told["target"]["kind"]) == (backup, "time")
    assert everything(lab) == truth  # foretold, not done
    done = site.ok(**wish, stop=True, existing="keep")
    assert (done["changed"], done["is_paused"]) == (True, True)
    assert everything(lab) == then
    with psycopg.connect(lab.datalake) as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute("DELETE FROM trades")
    archived = pair.shell(f"ls {pair.root}/wal_005").split()
    assert pair.exists(f"{PGDATA}.{done['kept_as']}/PG_VERSION")

    assert pair.shell(f"ls {pair.root}/wal_005").split() == archived
    promote(site, 2)
    assert pair.archived_segment().startswith("00000002")
    assert pair.exists(f"{pair.root}/wal_005/00000002.history.lzo")

    report = lab.sync()
    assert not report.failed
    assert everything(lab) == truth
    assert digests(lab.datalake) == true_digests
    assert pair.sql("select count(*) from instruments where id = 9", database="datalake") == "1"
    assert lab.sync().inserted == 0
    with contextmanager(fresh_database)(server_dsn, "datalake") as fresh:
        other = Lab(lab.ingestors, fresh)
        other.sync()
        assert digests(fresh) == true_digests
    assert site.ok(state="present", max_age="0s")["backup"]["timeline"] == 2

    site.ok(**wish | {"target": backup}, stop=True, existing="remove")  # of timeline 1, which 2 has left
    promote(site, 3)


def test_a_promotion_killed_before_the_restart_is_ended_by_the_next(site: Site) -> None:
    """The settings are taken back by then, but archive_mode waits for a restart."""
    pair = site.pair
    pair.sql("alter system set archive_mode = off")
    run("docker", "restart", pair.db)
    pair.await_server(pair.db)
    pair.sql("alter system reset archive_mode")
    assert pair.sql("show archive_mode") == "off"
    options: dict[str, Any] = {"module": "base_restore", "state": "promoted", "server": pair.db}
    assert site.ok(**options, check=True)["changed"] is True
    done = site.ok(**options)
    assert (done["changed"], done["archive_mode"], done["timeline"]) == (True, "on", 1)
    assert site.ok(**options)["changed"] is False


def test_what_cannot_be_reached_or_fetched_leaves_no_earlier_state(site: Site) -> None:
    pair = site.pair
    backup = site.ok(state="present", max_age="0s", database="")["backup"]
    pair.archived_segment()
    wish: dict[str, Any] = {
        "module": "base_restore",
        "server": pair.db,
        "stop": True,
        "existing": "keep",
        "timeout": 60,
    }
    assert "no backup that is not corrupt ends before" in site.fails(**wish, target="2020-01-01")["msg"]
    part = pair.shell(f"ls {pair.root}/basebackups_005/{backup['name']}/tar_partitions/*").split()[0]
    pair.shell(f"cp {part} /var/lib/cryptopip-wale/kept; truncate -s -9 {part}")
    torn = site.fails(**wish, target="latest")
    assert "The cluster is where it was, stopped" in torn["msg"]
    pair.sidecar("mv", "/var/lib/cryptopip-wale/kept", part)
    assert not pair.shell(
        "ls -d /var/lib/postgresql/data/pg_data.* /var/lib/postgresql/wal/pg_wal.* 2>/dev/null || true"
    )
    run("docker", "start", pair.db)
    pair.await_server(pair.db)
    never = site.fails(**wish, target="never_made")
    assert "recovery ended before configured recovery target was reached" in never["msg"]
    assert run("docker", "inspect", "--format", "{{.State.Running}}", pair.db).stdout.strip() == "false"
    done = site.ok(**wish | {"existing": "remove"}, target=backup["name"])
    assert done["is_paused"] is True
    assert len(pair.shell("ls -d /var/lib/postgresql/data/pg_data.*").split()) == 1  # that of the try before


def beat(pair: Pair, *numbers: int) -> None:
    """Commit each of these numbers, and have the WAL of them archived."""
    pair.sql("create table if not exists beats (n int)")
    for number in numbers:
        pair.sql(f"insert into beats values ({number})")
    pair.archived_segment()


def beats(pair: Pair) -> list[int]:
    """The numbers that the cluster has."""
    return [int(number) for number in pair.sql("select n from beats order by n").split()]


def test_what_a_cluster_did_before_it_went_back_is_reached_by_the_number_of_its_timeline(site: Site) -> None:
    pair = site.pair
    first = site.ok(state="present", max_age="0s", database="")["backup"]["name"]
    beat(pair, 1)
    back = pair.sql("select clock_timestamp()")
    beat(pair, 2, 3)  # timeline 1 goes on
    left = pair.sql("select clock_timestamp()")
    beat(pair, 4)
    wish: dict[str, Any] = {"module": "base_restore", "server": pair.db, "timeout": 120, "stop": True}
    wish |= {"existing": "remove"}
    site.ok(**wish, target=back)
    assert beats(pair) == [1]
    promote(site, 2)
    beat(pair, 20)
    second = site.ok(state="present", max_age="0s", database="")["backup"]["name"]
    beat(pair, 21)

    refused = site.fails(**wish, target="latest", timeline="1", backup=second)
    assert f"{second} is of timeline 2, expected 1" in refused["msg"]
    assert "expected latest, current or a number" in site.fails(**wish, target="latest", timeline="first")["msg"]
    done = site.ok(**wish, target=left, timeline="1")
    assert (done["backup"]["name"], beats(pair)) == (first, [1, 2, 3])
    done = site.ok(**wish, target="latest", backup=first)  # from the old timeline across to the new
    assert (done["is_paused"], beats(pair)) == (False, [1, 20, 21])
    done = site.ok(**wish, target="latest", timeline="2")
    assert (done["backup"]["name"], beats(pair)) == (second, [1, 20, 21])


def new_cluster(pair: Pair) -> str:
    """The cluster is lost, its server starts with a new one, as on a machine provisioned anew; its identifier."""
    run("docker", "kill", pair.db)
    pair.shell(f"rm -rf {PGDATA} /var/lib/postgresql/wal/pg_wal")
    run("docker", "start", pair.db)
    pair.await_server(pair.db)
    return pair.root.rsplit("/", 1)[1]


def test_a_new_cluster_in_the_place_is_told_which_one_is_to_come_back(site: Site) -> None:
    pair = site.pair
    lost = pair.root.rsplit("/", 1)[1]
    backup = site.ok(state="present", max_age="0s", database="")["backup"]["name"]
    beat(pair, 1, 2)
    found = new_cluster(pair)
    assert found != lost
    pair.archived_segment()  # the store holds something of both
    wish: dict[str, Any] = {"module": "base_restore", "server": pair.db, "timeout": 120, "target": "latest"}
    wish |= {"existing": "keep", "stop": True}
    said = site.fails(**wish)["msg"]
    assert f"but of {lost} (1 backups, the newest of 20" in said
    assert "set system_identifier" in said
    assert "holds nothing of the cluster 4" in site.fails(**wish, system_identifier="4")["msg"]
    assert pair.root.endswith(found)  # nothing was touched

    # Now both have backups, so none is the only one. The new cluster has no databases yet.
    site.ok(state="present", max_age="0s", database="", app_database="")
    told = site.ok(**wish, system_identifier=lost, check=True)
    assert (told["backup"]["name"], told["backup"]["system_identifier"]) == (backup, lost)
    done = site.ok(**wish, system_identifier=lost)
    assert (done["is_paused"], beats(pair)) == (False, [1, 2])
    assert pair.root.endswith(lost)
    promoted = site.ok(module="base_restore", state="promoted", server=pair.db)
    assert (promoted["archive_mode"], promoted["timeline"]) == ("on", 2)
    assert pair.archived_segment().startswith("00000002")
    assert pair.exists(f"{pair.root}/wal_005/00000002.history.lzo")
    assert pair.exists(f"{PGDATA}.{done['kept_as']}/PG_VERSION")

    run("docker", "stop", pair.db)
    pair.shell(f"rm -rf {PGDATA} /var/lib/postgresql/wal/pg_wal")
    ambiguous = site.fails(**wish)["msg"]
    assert f"backups of {', '.join(sorted((found, lost)))}, expected exactly one" in ambiguous
    assert site.ok(**wish, system_identifier=lost)["kept_as"] is None
    assert beats(pair) == [1, 2]
    unnamed = site.ok(**wish)  # which it is is told by the place, empty by the time of the fetch
    assert (unnamed["backup"]["system_identifier"], beats(pair)) == (lost, [1, 2])


def test_where_nothing_is_in_the_place_the_only_cluster_with_backups_comes_back(site: Site) -> None:
    pair = site.pair
    lost = pair.root.rsplit("/", 1)[1]
    site.ok(state="present", max_age="0s", database="")
    beat(pair, 1, 2)
    new_cluster(pair)
    pair.archived_segment()  # of which no backup was ever made
    run("docker", "stop", pair.db)
    pair.shell(f"rm -rf {PGDATA} /var/lib/postgresql/wal/pg_wal")
    done = site.ok(module="base_restore", server=pair.db, timeout=120, target="latest")
    assert (done["backup"]["system_identifier"], beats(pair)) == (lost, [1, 2])


def drills(site: Site) -> list[tuple[Any, ...]]:
    """What the drills came to, the oldest first."""
    with psycopg.connect(site.dsn, dbname="app") as connection:
        what = "scope, result, cardinality(problems), compared_hours > 0, duration > '0'"
        return connection.execute(f"SELECT {what} FROM restore_drills ORDER BY id".encode()).fetchall()


def test_a_drill_restores_beside_the_server_and_finds_what_differs(site: Site, lab: Lab) -> None:
    pair = site.pair
    lab.load("ing1", 1, list(range(EVENTS)))
    lab.sync()
    site.ok(state="present", max_age="0s")
    pair.archived_segment()
    name = f"cryptopip-test-drill-{pair.id}"
    wish: dict[str, Any] = {"module": "restore_drill", "server": pair.db, "drill_container": name, "timeout": 120}
    assert site.ok(**wish, check=True)["changed"] is True
    assert drills(site) == []
    good = site.ok(**wish)
    assert good["problems"] == []
    with psycopg.connect(lab.datalake) as connection:
        assert connection.execute("SELECT count(*) FROM digests").fetchone() == (good["compared_hours"],)
    assert list(good["seconds"]) == ["fetch", "recovery", "amcheck", "digests", "test inserts", "checksums"]
    assert json.loads(site.command("status", limit_backup_age="1d").stdout)["drill_age_s"] < 120
    with psycopg.connect(lab.datalake, autocommit=True) as connection:  # as a disk might: nobody's digest knows
        connection.execute("UPDATE trades SET price = price + 1 WHERE trade_id = '9007'")
    bad = site.fails(**wish, scope="sample")
    assert len(bad["problems"]) == 1
    assert bad["problems"][0].startswith("trades of 2026-11-20: restored ")
    part = pair.shell(f"ls {pair.root}/basebackups_005/*/tar_partitions/*").split()[0]
    pair.shell(f"truncate -s -9 {part}")
    torn = site.fails(**wish, scope="sample")
    assert "not whole" in torn["problems"][0]
    assert drills(site) == [
        ("full", "good", 0, True, True),
        ("sample", "bad", 1, True, True),
        ("sample", "bad", 1, False, True),
    ]
    assert not pair.exists("/var/lib/postgresql/data/restore_drill")
    assert not run("docker", "ps", "--all", "--quiet", "--filter", f"name={name}").stdout
