"""The archive of a real datalake: what lies in its folders, what changes it, what a crash leaves."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import signal
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from collectors.archive.export import find_months
from collectors.archive.lock import only_one
from collectors.events import CHANNELS
from tests.integration.archive_harness import (
    MONTHS,
    ROOT,
    archive,
    command,
    contents,
    execute,
    export,
    fill,
    keep_digests,
)

pytestmark = pytest.mark.database
TRADE = """
INSERT INTO trades (time, received_at, epoch, trade_id, instrument_id, price, amount, ingestor)
VALUES ('2026-10-05', '2026-10-05', 1, 'late', 1, 1, 1, 'ing2')
"""


def manifest(folder: Path, month: str) -> dict[str, dict[str, Any]]:
    return {one["table"]: one for one in json.loads((folder / month / "manifest.json").read_text())["entries"]}


def written(done: subprocess.CompletedProcess[str]) -> dict[str, set[str]]:
    return {one["month"]: set(one["written"]) for one in json.loads(done.stdout)}


def test_a_month_is_one_file_for_each_table_that_anybody_can_read(datalake_dsn: str, tmp_path: Path) -> None:
    fill(datalake_dsn)
    export(datalake_dsn, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".lock",
        *(name for month in MONTHS for name in (month, f"{month}.tar.gz")),
    ]
    for month in MONTHS:
        entries = manifest(tmp_path, month)
        assert {*entries} >= {*CHANNELS, "instruments", "coverage", "connections", "recording", "sources", "digests"}
        assert {path.name for path in (tmp_path / month).iterdir()} == {
            "manifest.json",
            *(one["file"] for one in entries.values()),
        }
        for one in entries.values():
            stored = (tmp_path / month / one["file"]).read_bytes()
            plain = gzip.decompress(stored)
            assert one["sha256"] == hashlib.sha256(stored).hexdigest()
            assert (one["bytes"], one["csv_bytes"]) == (len(stored), len(plain))
            header, *rows = csv.reader(io.StringIO(plain.decode(), newline=""))
            assert header == [column["name"] for column in one["columns"]]
            assert len(rows) == one["rows"] == one["digest"]["rows"]
    trades = manifest(tmp_path, "2026-11")["trades"]
    assert trades["rows"] == 21  # the first lies half a second behind the start of the month
    assert (trades["first_time"], trades["last_time"]) == ("2026-11-01T00:00:00.000001Z", "2026-11-01T00:00:10.000001Z")


def test_a_months_state_is_what_touches_the_month(datalake_dsn: str, tmp_path: Path) -> None:
    fill(datalake_dsn)
    export(datalake_dsn, tmp_path)

    def column(month: str, table: str, name: str) -> set[str]:
        text = gzip.decompress((tmp_path / month / f"{table}.csv.gz").read_bytes()).decode()
        return {row[name] for row in csv.DictReader(io.StringIO(text, newline=""))}

    assert [column(month, "instruments", "id") for month in MONTHS] == [{"1", "2"}, {"1", "2", "4"}]
    assert [column(month, "sources", "ingestor") for month in MONTHS] == [{"ing1"}, {"ing1", "ing2"}]
    assert [column(month, "coverage", "proof") for month in MONTHS] == [{"sequence"}, {"sequence", "heartbeat"}]
    assert [column(month, "connections", "epoch") for month in MONTHS] == [{"1", "2"}, {"1", "2"}]
    assert [column(month, "recording", "channel") for month in MONTHS] == [
        {"trades", "quotes", "book_events"},
        {"trades", "book_events"},
    ]


def test_only_what_changed_is_written_again(datalake_dsn: str, tmp_path: Path) -> None:
    fill(datalake_dsn)
    export(datalake_dsn, tmp_path)
    before = contents(tmp_path)
    assert written(export(datalake_dsn, tmp_path, "--json")) == {month: set() for month in MONTHS}
    assert contents(tmp_path) == before
    execute(datalake_dsn, TRADE)
    keep_digests(datalake_dsn)
    assert written(export(datalake_dsn, tmp_path, "--json")) == {"2026-10": {"trades", "digests"}, "2026-11": set()}
    after = contents(tmp_path)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {
        "2026-10.tar.gz",
        *(f"2026-10/{name}" for name in ("trades.csv.gz", "digests.csv.gz", "manifest.json")),
    }


def test_what_happens_later_does_not_change_a_month_that_is_over(datalake_dsn: str, tmp_path: Path) -> None:
    """A connection lives on, an instrument is delisted, another comes, a source is seen: October stays as it is."""
    fill(datalake_dsn)
    export(datalake_dsn, tmp_path)
    execute(
        datalake_dsn,
        """
UPDATE connections SET alive_until = '2026-11-24', batch = 20 WHERE epoch = 2;
UPDATE coverage SET ended_at = '2026-11-24', ended_by = 'shutdown', last_id = '99', batch = 20 WHERE ended_at IS NULL;
UPDATE instruments SET delisted_at = '2026-11-24' WHERE id = 1;
UPDATE recording SET during = tstzrange(lower(during), '2026-11-24') WHERE upper_inf(during);
UPDATE sources SET last_seen = now();
INSERT INTO instruments (id, exchange, symbol, native_id, kind, base, quote, listed_at)
VALUES (5, 'binance', 'X/USDT', 'XUSDT', 'spot', 'X', 'USDT', '2026-11-23');
""",
    )
    assert written(export(datalake_dsn, tmp_path, "--json")) == {
        "2026-10": set(),
        "2026-11": {"connections", "coverage", "instruments", "recording"},
    }


def test_a_file_that_is_gone_or_cut_is_written_again(datalake_dsn: str, tmp_path: Path) -> None:
    fill(datalake_dsn)
    export(datalake_dsn, tmp_path)
    before = contents(tmp_path)
    (tmp_path / "2026-10" / "trades.csv.gz").unlink()
    quotes = tmp_path / "2026-10" / "quotes.csv.gz"
    quotes.write_bytes(quotes.read_bytes()[:-1])
    assert written(export(datalake_dsn, tmp_path, "--json"))["2026-10"] == {"trades", "quotes"}
    after = contents(tmp_path)
    assert {name for name in after if after[name] != before[name]} == {
        "2026-10/manifest.json",
        "2026-10.tar.gz",
    }  # its time


def test_rows_that_the_digests_do_not_count_are_archived_and_told(datalake_dsn: str, tmp_path: Path) -> None:
    fill(datalake_dsn)
    execute(datalake_dsn, TRADE)
    done = archive("export", tmp_path, "--dsn", datalake_dsn, "--month", "2026-10")
    assert done.returncode == 1
    assert "trades: 20 rows written, but the digests count 19" in done.stderr
    assert manifest(tmp_path, "2026-10")["trades"]["rows"] == 20


def test_derived_quotes_are_left_out(datalake_dsn: str, tmp_path: Path) -> None:
    fill(datalake_dsn)
    with psycopg.connect(datalake_dsn) as connection:
        connection.execute("UPDATE quotes SET is_derived = update_id % 2 = 0")
        sent, derived = connection.execute(
            "SELECT count(*) FILTER (WHERE NOT is_derived), count(*) FILTER (WHERE is_derived) FROM quotes"
        ).fetchone() or (0, 0)
    assert derived > 0
    keep_digests(datalake_dsn)
    export(datalake_dsn, tmp_path)
    entries = [manifest(tmp_path, month)["quotes"] for month in MONTHS]
    assert sum(one["rows"] for one in entries) == sum(one["digest"]["rows"] for one in entries) == sent


def test_a_second_run_at_once_is_refused(datalake_dsn: str, tmp_path: Path) -> None:
    fill(datalake_dsn)
    with only_one(tmp_path):
        done = archive("export", tmp_path, "--dsn", datalake_dsn)
    assert done.returncode == 3
    assert "another run writes the archive" in done.stderr
    assert contents(tmp_path) == {}


def test_nothing_to_archive_and_no_datalake_are_said(datalake_dsn: str, ingestor_dsn: str, tmp_path: Path) -> None:
    for dsn, code, said in (
        (datalake_dsn, 3, "there is nothing to archive"),
        (ingestor_dsn, 3, "no datalake of this version"),
        ("host=127.0.0.1 port=1", 3, "cannot connect"),
    ):
        done = archive("export", tmp_path, "--dsn", dsn)
        assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    fill(datalake_dsn)
    for month, said in (("2026-13", "is no month"), ("2020-01", "the datalake has nothing of 2020-01")):
        done = archive("export", tmp_path, "--dsn", datalake_dsn, "--month", month)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_all_tables_of_a_month_are_of_one_moment(datalake_dsn: str, tmp_path: Path) -> None:
    """What is deleted while a month is written is still in all of its files."""
    fill(datalake_dsn, rows=60_000, step="interval '1 ms'")
    hasty = f"{datalake_dsn} options='-c idle_in_transaction_session_timeout=200 -c statement_timeout=200'"
    execute(datalake_dsn, "CREATE TABLE gate (open boolean)")  # also a table that this version does not know
    with psycopg.connect(datalake_dsn) as blocker:
        blocker.execute("LOCK TABLE quotes IN ACCESS EXCLUSIVE MODE")
        running = subprocess.Popen(
            command("export", tmp_path, "--dsn", hasty, "--month", "2026-11", "--jobs", "1"),
            cwd=ROOT, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        _await(lambda: (tmp_path / "2026-11" / "trades.csv.gz").exists() or running.poll() is not None)
        execute(datalake_dsn, "DELETE FROM derivatives; DELETE FROM book_events; DELETE FROM recording")
        time.sleep(0.5)  # longer than an impatient server lets anybody wait
    _, said = running.communicate(timeout=60)
    assert running.returncode == 0, said
    assert "not archived, as this version does not know it" in said
    counted = {table: one["rows"] for table, one in manifest(tmp_path, "2026-11").items()}
    assert [counted[t] for t in ("trades", "quotes", "book_events")] == [50_001] * 3
    assert (counted["derivatives"], counted["recording"]) == (2, 2)


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_export_goes_on_and_ends_as_if_it_had_not_been(datalake_dsn: str, tmp_path: Path, seed: int) -> None:
    fill(datalake_dsn, rows=20_000, step="interval '60 s'")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    export(datalake_dsn, whole)
    kills = 0
    delay = 0.45 + 0.1 * seed
    while True:
        running = subprocess.Popen(command("export", killed, "--dsn", datalake_dsn), cwd=ROOT, stderr=subprocess.PIPE)
        try:
            running.wait(delay)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            running.wait()
            kills += 1
            _no_half_file(killed, contents(whole))
            delay += 0.1
            continue
        break
    assert running.returncode == 0
    assert kills > 0, "nothing was killed: make the datalake larger"
    expected, found = contents(whole), contents(killed)
    assert found.keys() == expected.keys()
    assert {n for n in found if found[n] != expected[n]} <= {
        name for month in MONTHS for name in (f"{month}/manifest.json", f"{month}.tar.gz")
    }
    for month in MONTHS:
        assert manifest(killed, month) == manifest(whole, month)


def _no_half_file(folder: Path, whole: dict[str, bytes]) -> None:
    found = {name: text for name, text in contents(folder).items() if "/." not in name}
    assert {name for name, text in found.items() if name.endswith(".csv.gz") and text != whole[name]} == set()
    for name in found:
        if name.endswith(".tar.gz"):
            with tarfile.open(folder / name) as tar:
                assert len(tar.getnames()) == len(manifest(folder, name.removesuffix(".tar.gz"))) + 1
    for month in MONTHS:
        if (folder / month / "manifest.json").exists():
            manifest(folder, month)


def _await(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def test_a_months_bundle_holds_its_folder(datalake_dsn: str, tmp_path: Path) -> None:
    fill(datalake_dsn)
    export(datalake_dsn, tmp_path)
    bundle = tmp_path / "2026-11.tar.gz"
    whole = bundle.read_bytes()
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "--extract", "--gzip", "--file", bundle, "--directory", tmp_path / "out"], check=True)
    assert contents(tmp_path / "out") == {k: v for k, v in contents(tmp_path).items() if k.startswith("2026-11/")}
    assert len(whole) < sum(path.stat().st_size for path in (tmp_path / "2026-11").iterdir()) + 30_000  # headers of tar
    for damaged in (whole[:-200], whole[:1000], whole[: len(whole) // 2] + b"x" + whole[len(whole) // 2 + 1 :], None):
        bundle.unlink()
        if damaged is not None:
            bundle.write_bytes(damaged)
        done = archive("verify", tmp_path, "--files-only")
        assert (done.returncode, done.stdout.count("\n")) == (1, 2), done.stdout
        assert done.stdout.startswith("2026-11 2026-11.tar.gz: ")
    export(datalake_dsn, tmp_path)
    assert bundle.read_bytes() == whole
    assert archive("verify", tmp_path, "--files-only").returncode == 0


def test_the_reader_role_may_export_and_names_the_schema_where_it_may_read_it(
    datalake_dsn: str, tmp_path: Path
) -> None:
    fill(datalake_dsn)
    as_reader = f"{datalake_dsn} options='-c role=cryptopip_reader'"
    execute(
        datalake_dsn,
        "CREATE TABLE schema_migrations (version integer, name text, state text); INSERT INTO schema_migrations VALUES"
        " (9, '0009_nine', 'applied'), (12, '0012_twelve', 'applied'), (13, '0013_columnstore', 'skipped')",
    )
    for grant, expected in (("SELECT 1", ""), ("GRANT SELECT ON schema_migrations TO cryptopip_reader", "0012_twelve")):
        execute(datalake_dsn, grant)
        folder = tmp_path / (expected or "unknown")
        export(as_reader, folder)
        assert json.loads((folder / "2026-11" / "manifest.json").read_text())["schema"] == expected
    assert archive("verify", folder, "--dsn", as_reader).returncode == 0


def test_every_table_of_a_datalake_is_archived_or_known_to_be_left_out(datalake_dsn: str) -> None:
    _, unknown = find_months(datalake_dsn)
    assert unknown == [], "a migration made a table: name it in collectors/archive/tables.py"
    execute(datalake_dsn, "CREATE TABLE of_an_operator (a integer)")
    assert find_months(datalake_dsn)[1] == ["of_an_operator"]
