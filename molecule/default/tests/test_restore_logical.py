"""Logical dumps of a fleet that records: made, and restored while sync and loaders rest and nothing is lost."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from tests.fleet import INVENTORY, ROOT, datalake, host, unit, wait_until

pytestmark = pytest.mark.timeout(1800)  # two playbooks each
DUMPS = "/var/lib/cryptopip/dumps"
JOURNAL = "/var/lib/cryptopip/restore/journal.json"
TRADES = (
    "SELECT bool_and(last - first + 1 = rows) FROM (SELECT instrument_id, min(trade_id::bigint) AS first, "
    "max(trade_id::bigint) AS last, count(*) AS rows FROM trades GROUP BY instrument_id) AS each"
)
"""Trade ids of this exchange are consecutive, so the count alone shows whether one is missing or there twice."""


def ansible(program: str, *arguments: str) -> str:
    """What Ansible printed, in one line; it must succeed."""
    done = subprocess.run([program, "-i", INVENTORY, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join(done.stdout.split())


def newest_dump(name: str, database: str) -> str:
    """The folder of the newest dump on a host."""
    return f"{DUMPS}/{max(each for each in host(name).file(DUMPS).listdir() if each.startswith(database))}"


def restored(name: str, database: str, watched: str, **options: str) -> tuple[str, set[str]]:
    """What the playbook printed, in one line, and what state a unit was seen in while the restore was at work."""
    given = {"restore_database": database, "restore_source": newest_dump(name, database), **options}
    command = ["ansible-playbook", "-i", INVENTORY, "playbooks/restore_logical.yml", "--limit", name]
    playing = subprocess.Popen(
        [*command, "-e", json.dumps(given)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    seen = set()
    while playing.poll() is None:
        # The unit first: where there is still a journal afterwards, there was one then.
        answer = host(name).run(f"state=$(systemctl is-active {watched}); test -e {JOURNAL} && echo $state")
        seen |= set(answer.stdout.split())
        time.sleep(0.2)
    out, _ = playing.communicate()
    assert playing.returncode == 0, out
    return " ".join(out.split()), seen


def grows(table: str) -> None:
    """Rows keep coming into the datalake."""
    before = int(datalake(f"SELECT count(*) FROM {table}"))
    wait_until(lambda: int(datalake(f"SELECT count(*) FROM {table}")) > before, f"more {table}")


def test_a_datalake_is_dumped_and_restored_while_sync_rests() -> None:
    said = ansible("ansible-playbook", "playbooks/dump.yml", "-e", '{"dump_databases": ["datalake"]}')
    assert "verified by contents" in said
    said, seen = restored("db1", "datalake", "cryptopip-sync.timer", restore_existing="keep")
    assert seen == {"inactive"}
    assert "are as counted in the manifest of the dump" in said
    assert host("db1").service("cryptopip-sync.timer").is_running
    kept = datalake("SELECT datname FROM pg_database WHERE datname LIKE 'datalake_replaced_%'")
    assert kept in said
    grows("trades")
    wait_until(lambda: datalake(TRADES) == "t", "trades without a hole")
    datalake(f"DROP DATABASE {kept} WITH (FORCE)")


def test_an_ingestor_is_dumped_and_restored_while_its_loader_rests_and_its_recorder_does_not() -> None:
    options = {"login_host": "/run/cryptopip/postgresql", "databases": ["ingestor"]}
    ansible("ansible", "ing1", "-b", "-m", "cryptopip.marketdata.logical_backup", "-a", json.dumps(options))
    # What comes meanwhile is in no dump: the loader takes it from the journal once more, and sync takes it again.
    grows("trades")
    recorder = unit("ing1", "cryptopip-recorder@binance", "MainPID")
    sources = "SELECT count(*) FROM sources WHERE ingestor = 'ing1'"
    lives = int(datalake(sources))
    _, seen = restored("ing1", "ingestor", "cryptopip-loader@binance", restore_existing="drop")
    assert seen == {"inactive"}
    assert host("ing1").service("cryptopip-loader@binance").is_running
    assert unit("ing1", "cryptopip-recorder@binance", "MainPID") == recorder
    wait_until(lambda: int(datalake(sources)) == lives + 1, "the new life of ing1 in the datalake")
    grows("trades")
    wait_until(lambda: datalake(TRADES) == "t", "trades without a hole")
