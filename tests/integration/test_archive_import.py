"""An archive against its datalake, and back into another one: equal, table by table, or refused."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from collectors.archive.tables import TABLES
from collectors.sync.target import LOCK
from tests.conftest import fresh_database
from tests.integration.archive_harness import MONTHS, ROOT, archive, command, execute, export, fill, rows_of

pytestmark = pytest.mark.database
BOTH = [option for month in MONTHS for option in ("--month", month)]
# Nothing of October or November needs them, so the archive of these months has them not.
ELSEWHERE = {"sources": "ingestor = 'gone'", "instruments": "id = 3"}


@pytest.fixture
def other_lake_dsn(server_dsn: str) -> Iterator[str]:
    yield from fresh_database(server_dsn, "datalake")


@pytest.fixture
def archived(datalake_dsn: str, tmp_path: Path) -> Path:
    """An archive of the datalake that ``datalake_dsn`` names."""
    fill(datalake_dsn)
    export(datalake_dsn, tmp_path / "archive")
    return tmp_path / "archive"


def lines_of(dsn: str) -> dict[str, list[str]]:
    """Every row of every archived table, all columns, as the server writes them."""
    return {
        table.name: [
            row[0]
            for row in rows_of(
                dsn,
                f"SELECT t::text FROM {table.name} AS t WHERE NOT ({ELSEWHERE.get(table.name, 'false')}) ORDER BY 1",
            )
        ]
        for table in TABLES
    }


def differences(a: str, b: str) -> str:
    """EXCEPT both ways, row by row with every digit; empty where the two are equal."""
    ours, theirs = lines_of(a), lines_of(b)
    assert all(ours.values()), "an empty table would prove nothing"
    return "\n".join(
        f"{name}: {set(ours[name]) ^ set(theirs[name])}, {len(ours[name])} and {len(theirs[name])} rows"
        for name in ours
        if ours[name] != theirs[name]
    )


def test_months_brought_back_into_an_empty_datalake_are_equal(
    datalake_dsn: str, other_lake_dsn: str, archived: Path
) -> None:
    as_writer = f"{other_lake_dsn} options='-c role=cryptopip_sync_writer'"
    done = archive("import", archived, "--dsn", as_writer, *BOTH, "--json")
    assert done.returncode == 0, done.stderr
    assert [one["present"] for one in json.loads(done.stdout)] == [["derivatives", "liquidations"], []]
    assert differences(datalake_dsn, other_lake_dsn) == ""
    for kept, computed in ((datalake_dsn, f"rows:{other_lake_dsn}"), (other_lake_dsn, f"rows:{other_lake_dsn}")):
        compared = subprocess.run(
            [*command()[:-1], "digest", "compare", kept, computed],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert compared.returncode == 0, compared.stdout
    assert rows_of(other_lake_dsn, "SELECT count(*) FROM watermarks") == [(0,)]
    said = rows_of(other_lake_dsn, "SELECT identity FROM identities WHERE channel = 'trades' ORDER BY exchange")
    assert said == [("id",), ("id",)], "without it, books and quotes would be read as if they had ids"
    assert archive("verify", archived, "--dsn", other_lake_dsn).returncode == 0


def test_a_second_import_changes_nothing_and_says_so(datalake_dsn: str, other_lake_dsn: str, archived: Path) -> None:
    arguments: tuple[str | Path, ...] = ("import", archived, "--dsn", other_lake_dsn, *BOTH, "--json")
    assert archive(*arguments).returncode == 0
    before = lines_of(other_lake_dsn)
    again = json.loads(archive(*arguments).stdout)
    assert [sum(one["inserted"].values()) for one in again] == [0, 0]
    assert {*again[1]["present"]} == {table.name for table in TABLES if table.kind == "events"}
    assert lines_of(other_lake_dsn) == before
    assert differences(datalake_dsn, datalake_dsn) == ""


def test_months_may_come_in_any_order(datalake_dsn: str, other_lake_dsn: str, archived: Path) -> None:
    """An interval that November knows the end of is not opened again by October."""
    execute(
        datalake_dsn,
        "UPDATE coverage SET ended_at = '2026-11-20', ended_by = 'shutdown', batch = 20 WHERE ended_at IS NULL;"
        " UPDATE connections SET alive_until = '2026-11-20 00:00:01+00', batch = 21 WHERE epoch = 2;"
        " UPDATE recording SET during = tstzrange(lower(during), '2026-11-20') WHERE upper_inf(during)",
    )
    export(datalake_dsn, archived)
    for month in reversed(MONTHS):
        done = archive("import", archived, "--dsn", other_lake_dsn, "--month", month)
        assert done.returncode == 0, done.stderr
    assert differences(datalake_dsn, other_lake_dsn) == ""


def test_other_events_of_the_month_refuse_it_before_anything_changes(other_lake_dsn: str, archived: Path) -> None:
    execute(
        other_lake_dsn,
        "INSERT INTO quotes (time, received_at, epoch, update_id, instrument_id, ingestor)"
        " VALUES ('2026-11-30', '2026-11-30', 1, 1, 1, 'ing1')",
    )
    before = lines_of(other_lake_dsn)
    done = archive("import", archived, "--dsn", other_lake_dsn, "--month", "2026-11")
    assert done.returncode == 3
    assert "quotes: the datalake has 1 rows of 2026-11 that are not the 21 of the archive" in done.stderr
    assert lines_of(other_lake_dsn) == before


def test_ids_of_another_fleet_refuse_it(other_lake_dsn: str, archived: Path) -> None:
    instrument = (
        "INSERT INTO instruments (id, exchange, symbol, native_id, kind, base, quote, listed_at)"
        " VALUES ({}, 'binance', 'A/B', '{}', 'spot', 'A', 'B', '2020-01-01')"
    )
    for number, native_id, said in ((1, "AB", "instrument 1 is"), (77, "BTCUSDT", "the datalake has 77 as")):
        execute(other_lake_dsn, "DELETE FROM instruments; " + instrument.format(number, native_id))
        before = lines_of(other_lake_dsn)
        done = archive("import", archived, "--dsn", other_lake_dsn, *BOTH)
        assert (done.returncode, said in done.stderr) == (3, True), done.stderr
        assert lines_of(other_lake_dsn) == before


def test_what_is_recorded_since_goes_on_where_the_archive_ends(other_lake_dsn: str, archived: Path) -> None:
    """A new datalake already has the universe: its open range and the archive's must not overlap."""
    execute(
        other_lake_dsn,
        "INSERT INTO instruments (id, exchange, symbol, native_id, kind, base, quote, listed_at)"
        " VALUES (1, 'binance', 'BTC/USDT', 'BTCUSDT', 'spot', 'BTC', 'USDT', '2020-01-01');"
        " INSERT INTO recording VALUES (1, 'trades', '[2026-12-01,)')",
    )
    for _ in range(2):
        done = archive("import", archived, "--dsn", other_lake_dsn, *BOTH)
        assert done.returncode == 0, done.stderr
        found = rows_of(
            other_lake_dsn,
            "SELECT during::text FROM recording WHERE instrument_id = 1 AND channel = 'trades' ORDER BY 1",
        )
        assert [row[0] for row in found] == [
            '["2026-09-30 00:00:00.000001+00","2026-12-01 00:00:00+00")',
            '["2026-12-01 00:00:00+00",)',
        ]


def test_a_damaged_file_is_found_and_never_imported(datalake_dsn: str, other_lake_dsn: str, archived: Path) -> None:
    trades = archived / "2026-11" / "trades.csv.gz"
    whole = trades.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    truncated, said = whole[:-1], "bytes, expected"
    for damaged, expected in (
        (bytes(flipped), "SHA-256"),
        (truncated, said),
        (gzip.compress(b""), said),
        (None, "not there"),
    ):
        trades.unlink()
        if damaged is not None:
            trades.write_bytes(damaged)
        for arguments in (("--dsn", datalake_dsn), ("--files-only",)):
            done = archive("verify", archived, *arguments)
            assert (done.returncode, done.stdout.count("\n")) == (1, 2), done.stdout
            assert done.stdout.startswith("2026-11 trades.csv.gz: ")
            assert expected in done.stdout
        refused = archive("import", archived, "--dsn", other_lake_dsn, "--month", "2026-11")
        assert refused.returncode == 3
        assert "nothing was changed" in refused.stderr
        assert not any(lines_of(other_lake_dsn).values())
        trades.write_bytes(whole)
    assert archive("verify", archived, "--dsn", datalake_dsn).returncode == 0


def test_verify_names_what_differs_from_the_datalake(datalake_dsn: str, archived: Path) -> None:
    def said() -> list[str]:
        done = archive("verify", archived, "--dsn", datalake_dsn)
        assert done.returncode in {0, 1}, done.stderr
        return done.stdout.splitlines()[:-1]

    assert said() == []
    execute(datalake_dsn, "UPDATE digests SET rows = rows + 1 WHERE channel = 'quotes' AND hour >= '2026-11-01'")
    execute(datalake_dsn, "UPDATE instruments SET price_tick = 0.1 WHERE id = 1")
    assert [line.partition(" rows ")[0] for line in said()] == [
        "2026-10 instruments.csv.gz: 2",
        "2026-11 instruments.csv.gz: 3",
        "2026-11 quotes.csv.gz: 21",
        "2026-11 digests.csv.gz: 5",
    ]
    export_again = archive("export", archived, "--dsn", datalake_dsn)
    assert export_again.returncode == 1  # it holds what the table holds, and says that the digests count one more
    assert said() == []
    (archived / "2026-11" / "stray.csv.gz").touch()
    (archived / "2026-11" / ".progress.json").write_bytes((archived / "2026-11" / "manifest.json").read_bytes())
    execute(
        datalake_dsn,
        "INSERT INTO digests (instrument_id, channel, hour, rows, hash) VALUES (1, 'trades', '2026-12-01', 1, 1)",
    )
    assert [line.partition(":")[0] for line in said()] == [
        "2026-11 .progress.json",
        "2026-11 stray.csv.gz",
        "2026-12 2026-12",
    ]
    (archived / "2026-10" / "manifest.json").write_text("{")
    assert said()[0].startswith("2026-10 manifest.json: ")


def test_a_killed_import_is_completed_by_the_next(datalake_dsn: str, other_lake_dsn: str, tmp_path: Path) -> None:
    fill(datalake_dsn, rows=20_000, step="interval '60 s'")
    export(datalake_dsn, tmp_path)
    kills, delay = 0, 0.4
    while True:
        running = subprocess.Popen(
            command("import", tmp_path, "--dsn", other_lake_dsn, *BOTH), cwd=ROOT, stderr=subprocess.PIPE
        )
        try:
            running.wait(delay)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            running.wait()
            kills += 1
            delay += 0.1
            continue
        break
    assert running.returncode == 0, running.stderr and running.stderr.read()
    assert kills > 0, "nothing was killed: make the datalake larger"
    assert differences(datalake_dsn, other_lake_dsn) == ""


def test_import_waits_for_a_sync_at_work(datalake_dsn: str, other_lake_dsn: str, archived: Path) -> None:
    with psycopg.connect(other_lake_dsn, autocommit=True) as sync:
        sync.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        running = subprocess.Popen(command("import", archived, "--dsn", other_lake_dsn, *BOTH), cwd=ROOT)
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while rows_of(other_lake_dsn, waits) == [(0,)]:
            assert running.poll() is None
        assert not any(lines_of(other_lake_dsn).values())
        sync.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
    assert running.wait(60) == 0
    assert differences(datalake_dsn, other_lake_dsn) == ""
