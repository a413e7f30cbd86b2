"""Parquet and Tardis' files while the datalake changes, after kills, and under `archive verify`."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from typer.testing import CliRunner, Result

from collectors.archive import parquet
from collectors.archive.database import one_state
from collectors.archive.month import Month
from collectors.archive.parquet import export_parquet
from collectors.archive.tardis import export_tardis
from collectors.cli import app
from tests.integration.archive_harness import ROOT, command, contents, execute, fill, keep_digests
from tests.integration.harness.process import until

pytestmark = pytest.mark.database
BOTH = ("parquet", "tardis")
WRITE: dict[str, Callable[..., Any]] = {"parquet": export_parquet, "tardis": export_tardis}
MONTH = "2026-11"
# What the other tests of the archive hold is more than 38 digits can say.
FITTING = "UPDATE trades SET amount = 1; UPDATE book_events SET ask_prices = ARRAY[1.5], ask_amounts = ARRAY[2]"


@pytest.fixture
def lake(datalake_dsn: str) -> str:
    fill(datalake_dsn)
    execute(datalake_dsn, FITTING)
    keep_digests(datalake_dsn)
    return datalake_dsn


@pytest.fixture
def archived(lake: str, tmp_path: Path) -> Path:
    """An archive of the datalake in all its formats."""
    assert invoke("export", tmp_path, "--dsn", lake).exit_code == 0
    for kind in BOTH:
        write(kind, lake, tmp_path)
    return tmp_path


def invoke(*arguments: str | Path) -> Result:
    """The command, here: a process of its own for each would take most of the time."""
    return CliRunner().invoke(app, ["archive", *map(str, arguments)])


def write(kind: str, dsn: str, folder: Path) -> None:
    done = invoke(kind, folder, "--dsn", dsn)
    assert done.exit_code == 0, done.output


def names(folder: Path) -> set[str]:
    """Of the files, without the lists of them and what is not whole yet."""
    return {str(path.relative_to(folder)) for kind in (".parquet", ".gz") for path in folder.rglob(f"*{kind}")}


def said(folder: Path, *arguments: str) -> list[str]:
    """What `archive verify` finds, without the line at the end."""
    done = invoke("verify", folder, *arguments)
    assert done.exit_code == int(done.stdout.count("\n") > 1), done.output
    return done.stdout.splitlines()[:-1]


@pytest.mark.parametrize("kind", BOTH)
def test_all_files_of_a_run_are_of_one_moment(lake: str, tmp_path: Path, kind: str) -> None:
    """Also those whose session is opened after the datalake has changed."""
    with one_state(lake, "test", 2) as source:
        WRITE[kind](source, tmp_path / "a", Month.named(MONTH), lambda _: None)
        execute(lake, "DELETE FROM trades; DELETE FROM quotes; DELETE FROM book_events; DELETE FROM liquidations")
        again = WRITE[kind](source, tmp_path / "b", Month.named(MONTH), lambda _: None)
    assert again.problems == []
    assert again.written == 5
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("kind", BOTH)
def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been(datalake_dsn: str, tmp_path: Path, kind: str) -> None:
    fill(datalake_dsn, rows=6_000, step="interval '600 s'")
    execute(datalake_dsn, FITTING)
    keep_digests(datalake_dsn)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    write(kind, datalake_dsn, whole)
    expected = contents(whole)
    for _ in range(3):
        before = names(killed)
        running = subprocess.Popen(
            command(kind, killed, "--dsn", datalake_dsn), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        until(lambda: len(names(killed)) > len(before) or running.poll() is not None, "files", pause=0.002)  # noqa: B023
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL, "it ended before it was killed: make the datalake larger"
        running.communicate()
        found = {name: (killed / name).read_bytes() for name in names(killed)}
        assert before < found.keys() < expected.keys()
        assert {name for name in found if found[name] != expected[name]} == set(), "a half file has a name"
    write(kind, datalake_dsn, killed)
    found = contents(killed)
    assert found.keys() == expected.keys()
    assert {name for name in found if found[name] != expected[name]} <= {
        name for name in found if name.endswith(".parquet.json")
    }, "the lists alone say when they were made"


@pytest.mark.parametrize("fits", ["not at all", "as it seemed"])
def test_a_day_too_large_to_be_sorted_here_is_the_same_file_in_pieces(
    datalake_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: str
) -> None:
    """The server sorts it: known before, or found out while it comes, so that what was begun is given up."""
    fill(datalake_dsn, rows=400, step="interval '0.1 s'")
    execute(datalake_dsn, FITTING)
    keep_digests(datalake_dsn)
    queries = list[bool]()
    query = parquet._query

    def noted(*of: Any, is_sorted: bool) -> Any:
        queries.append(is_sorted)
        return query(*of, is_sorted=is_sorted)

    monkeypatch.setattr(parquet, "_query", noted)
    with one_state(datalake_dsn, "test", 1) as source:
        export_parquet(source, tmp_path / "a", Month.named(MONTH), lambda _: None)
        assert queries == [False] * 5
        queries.clear()
        limits = {"_BLOCK": 2_000, "_GROUP_BYTES": 10_000, "_SORT_BYTES": 10_000}
        for name, value in (limits | {"_LEAST_ROW_BYTES": 1 if fits == "as it seemed" else 1_000}).items():
            monkeypatch.setattr(parquet, name, value)
        again = export_parquet(source, tmp_path / "b", Month.named(MONTH), lambda _: None)
    assert again.problems == []
    three = [False, True] if fits == "as it seemed" else [True]
    assert sorted(queries) == sorted(three * 3 + [False] * 2), "the two small ones fit all the same"
    for file in names(tmp_path / "a"):
        one, other = (pq.read_table(tmp_path / folder / file, partitioning=None) for folder in ("a", "b"))
        assert one.equals(other)
        assert (pq.read_metadata(tmp_path / "b" / file).num_row_groups > 1) == (one.num_rows > 2)


@pytest.mark.parametrize("limit", [0, 1 << 26])
def test_a_value_that_does_not_fit_costs_its_file_alone(
    lake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """Also where rows of it are still on their way from the server."""
    monkeypatch.setattr(parquet, "_SORT_BYTES", limit)
    monkeypatch.setattr(parquet, "_BLOCK", 500)
    execute(lake, "UPDATE book_events SET bid_prices = ARRAY[1e-19] WHERE last_id = 25")
    with one_state(lake, "test", 1) as source:
        result = export_parquet(source, tmp_path, Month.named(MONTH), lambda _: None)
    assert (result.written, len(result.problems)) == (4, 1)
    assert "channel=book_events/day=2026-11-01/events.parquet: a value does not fit" in result.problems[0]


def test_the_list_of_a_months_parquet_says_what_its_files_hold(archived: Path) -> None:
    listed = json.loads((archived / f"{MONTH}.parquet.json").read_text())
    assert (listed["month"], len(listed["files"])) == (MONTH, 5)
    for one in listed["files"]:
        times = pq.read_table(archived / one["file"], partitioning=None)["time"].to_pylist()
        assert (one["rows"], one["digest"]["rows"]) == (len(times), len(times))
        assert [one["first_time"], one["last_time"]] == [
            moment.isoformat().replace("+00:00", "Z") for moment in (min(times), max(times))
        ]


def test_verify_reads_every_file_of_every_format(lake: str, archived: Path) -> None:
    assert said(archived, "--dsn", lake) == []
    assert said(archived, "--files-only") == []
    for pattern in (f"parquet/*/channel=quotes/day={MONTH}-01/*.parquet", "tardis/binance/quotes/2026/11/01/*.gz"):
        (path,) = archived.glob(pattern)
        name, whole = str(path.relative_to(archived)), path.read_bytes()
        flipped = whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]
        for damaged, expected in ((flipped, "SHA-256"), (whole[:-1], "bytes, expected"), (None, "not there")):
            path.unlink()
            if damaged is not None:
                path.write_bytes(damaged)
            for arguments in (("--dsn", lake), ("--files-only",)):
                (finding,) = said(archived, *arguments)
                assert finding.startswith(f"{MONTH} {name}: ")
                assert expected in finding
        path.write_bytes(whole)
        stray = path.with_name("stray.parquet")
        stray.touch()
        (finding,) = said(archived, "--files-only")
        assert finding.startswith(f"{MONTH} {stray.relative_to(archived)}: no list of the archive knows this file")
        stray.unlink()
    assert said(archived, "--dsn", lake) == []
    (archived / f"{MONTH}.parquet.json").write_text("{")
    (finding,) = said(archived, "--dsn", lake)
    assert finding.startswith(f"{MONTH} {MONTH}.parquet.json: ")


def test_verify_names_what_the_datalake_has_otherwise(lake: str, archived: Path) -> None:
    execute(lake, "UPDATE quotes SET bid_price = 7 WHERE update_id = 9000000000030")
    execute(lake, "DELETE FROM liquidations")
    execute(
        lake,
        "INSERT INTO trades (time, received_at, epoch, trade_id, instrument_id, price, amount, ingestor)"
        " SELECT at, at, 1, 'late', 1, 1, 1, 'ing2'"
        " FROM unnest(ARRAY['2026-11-01 12:00+00', '2026-11-07']::timestamptz[]) AS at",
    )
    keep_digests(lake)
    assert invoke("export", archived, "--dsn", lake).exit_code == 0
    found = dict(line.removeprefix(f"{MONTH} ").split(": ", 1) for line in said(archived, "--dsn", lake))
    for path in (
        f"parquet/exchange=binance/channel={{}}/day={MONTH}-{{}}/events.parquet",
        "tardis/binance/{}/2026/11/{}/BTCUSDT.csv.gz",
    ):
        assert found.pop(path.format("trades", "01")).startswith("21 rows in the archive, 22 in the datalake")
        assert found.pop(path.format("trades", "07")).startswith("the datalake has 1 rows of it, the archive has none")
        assert found.pop(path.format("quotes", "01")).startswith("21 rows in both, with other content")
        gone = path.format("liquidations", "01").replace("binance", "deribit").replace("BTCUSDT", "BTC-PERPETUAL")
        assert found.pop(gone).startswith("the archive has it, and the datalake has no rows of it")
    assert found == {}
    for kind in BOTH:
        write(kind, lake, archived)
    left = said(archived, "--dsn", lake)
    assert [line.partition(": ")[2][:39] for line in left] == [
        "no list of the archive knows this file:", "the archive has it, and the datalake ha"
    ], "nothing is ever removed; that rows were is told for ever"  # fmt: skip


def test_what_is_merged_later_is_no_fault_where_newer_is_allowed(lake: str, archived: Path) -> None:
    execute(
        lake,
        "INSERT INTO trades (time, received_at, epoch, trade_id, instrument_id, price, amount, ingestor)"
        " SELECT at, at, 1, 'late', 1, 1, 1, 'ing2'"
        " FROM unnest(ARRAY['2026-11-01 12:00+00', '2026-11-03']::timestamptz[]) AS at",
    )
    keep_digests(lake)
    assert len(said(archived, "--dsn", lake)) == 6, "trades, digests, and in each format a file more and one that grew"
    assert invoke("verify", archived, "--dsn", lake, "--allow-newer").exit_code == 0
