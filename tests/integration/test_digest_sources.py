"""Digests from where no datalake answers: an archive's files and journals, against those of the rows."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from collectors.config import Source, Sync
from collectors.decode import EXCHANGES, decoder
from collectors.digests.archive import TEXTS
from collectors.events import CHANNELS
from collectors.load import Loader
from collectors.sync import sync_once
from collectors.sync.identities import specs
from tests.conftest import fresh_database
from tests.integration.archive_harness import ROOT, execute, export, fill, keep_digests
from tests.integration.load_harness import START_NS, Traffic, add_instrument, write_journal

pytestmark = pytest.mark.database


def digest(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "collectors", "digest", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def of_every_text() -> dict[str, str]:
    """An exchange for each text that merges hash, by the text."""
    return {spec.text: exchange for exchange in EXCHANGES for spec in specs(exchange)}


@pytest.fixture
def lake(datalake_dsn: str) -> str:
    """The archive tests' datalake, its events once more for an exchange of each text."""
    fill(datalake_dsn)
    with psycopg.connect(datalake_dsn) as connection:
        for number, exchange in enumerate(sorted(set(of_every_text().values())), 100):
            connection.execute(
                "INSERT INTO instruments (id, exchange, symbol, native_id, kind, base, quote, listed_at)"
                " VALUES (%s, %s, 'A', 'A', 'swap', 'A', 'B', '2020-01-01')",
                [number, exchange],
            )
            for channel in CHANNELS:
                connection.execute(
                    f"CREATE TEMPORARY TABLE again ON COMMIT DROP AS SELECT * FROM {channel} WHERE instrument_id < 100;"
                    f" UPDATE again SET instrument_id = {number};"
                    f" INSERT INTO {channel} SELECT * FROM again; DROP TABLE again".encode()
                )
    keep_digests(datalake_dsn)
    return datalake_dsn


def test_digests_of_an_archives_files_are_those_of_the_rows(lake: str, tmp_path: Path) -> None:
    assert set(of_every_text()) == set(TEXTS), "a text that merges hash and archives cannot"
    export(lake, tmp_path)
    done = digest("compare", f"archive:{tmp_path}", f"rows:{lake}")
    assert done.returncode == 0, done.stdout + done.stderr
    with psycopg.connect(lake) as connection:
        row = connection.execute("SELECT sum(rows), count(*) FROM digests").fetchone()
    assert row is not None
    assert done.stdout == f"Equal: {row[0]:,} rows in {row[1]} hours of instruments and channels.\n"
    part = ("--since", "2026-11-01", "--channel", "quotes", "--exchange", "binance")
    done = digest("compare", f"archive:{tmp_path}", lake, *part, "--json")
    hours, rows = (json.loads(done.stdout)[key] for key in ("hours", "rows_a"))
    with psycopg.connect(lake) as connection:
        counted = connection.execute(
            "SELECT count(*), sum(d.rows) FROM digests AS d INNER JOIN instruments AS i ON i.id = d.instrument_id"
            " WHERE hour >= '2026-11-01Z' AND channel = 'quotes' AND exchange = 'binance'"
        ).fetchone()
    assert (hours, rows) == counted


def test_an_archive_whose_files_lie_is_found_out_whatever_its_manifest_says(lake: str, tmp_path: Path) -> None:
    export(lake, tmp_path)
    path = tmp_path / "2026-11" / "trades.csv.gz"
    text = gzip.decompress(path.read_bytes())
    assert text.count(b",123456789012345.678901234567890,") == 0
    price = b"123456789012381.678901234567890"  # of the 36th trade, once for each instrument
    path.write_bytes(gzip.compress(text.replace(price, b"123456789012381.67890123456789", 1)))
    done = digest("compare", f"archive:{tmp_path}", lake)
    *differences, _ = done.stdout.splitlines()
    assert (done.returncode, len(differences)) == (1, 1), done.stdout + done.stderr
    assert " trades 2026-11-01 00:00: 21 rows in both, with other content" in differences[0]
    for harm, said in (
        (path.read_bytes()[:-500], "trades.csv.gz cannot be read"),
        (gzip.compress(text[:-30]), "trades.csv.gz cannot be read"),
        (gzip.compress(text.replace(b"+00,", b"+01,", 1)), "trades has a row that is none"),
    ):
        path.write_bytes(harm)
        done = digest("compare", f"archive:{tmp_path}", lake)
        assert (done.returncode, said in done.stderr) == (3, True), done.stdout + done.stderr
    (tmp_path / "2026-11" / "manifest.json").unlink()
    done = digest("compare", f"archive:{tmp_path}", lake)
    assert (done.returncode, "has no manifest" in done.stderr) == (3, True)


@pytest.fixture
def workshop(server_dsn: str) -> Iterator[str]:
    yield from fresh_database(server_dsn, "datalake")


@pytest.fixture
def scratch(server_dsn: str) -> Iterator[str]:
    yield from fresh_database(server_dsn, "ingestor")


def test_journals_have_the_digests_of_the_datalake_they_were_merged_into(
    tmp_path: Path, ingestor_dsn: str, datalake_dsn: str, workshop: str, scratch: str
) -> None:
    """Two connections that heard the same for a while, in two folders."""
    one, other = Traffic().add(100), Traffic(START_NS + 10**8, 42).add(100)
    add_instrument(ingestor_dsn)
    for folder, traffic in (("a", one), ("b", other)):
        write_journal(tmp_path / folder / "binance", traffic.epoch, traffic.frames)
        Loader(tmp_path / folder / "binance", ingestor_dsn, "ing1", decoder("binance")).run(until_idle=True)
    assert not sync_once(Sync(datalake_dsn, [Source("ing1", ingestor_dsn)])).failed
    source = f"journal:{tmp_path / 'a'}:{tmp_path / 'b'}"
    refused = digest("compare", source, datalake_dsn)
    assert (refused.returncode, "give --rebuild-into" in refused.stderr) == (2, True)
    add_instrument(workshop)
    options = ("--rebuild-into", workshop, "--scratch", scratch)
    done = digest("compare", source, datalake_dsn, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    distinct = {row[3] for row in (*one.trades, *other.trades)}  # each is a quote and an update, too
    assert len(distinct) == 141
    trades = {row[2:4] for row in (*one.trades, *other.trades)}  # to the simulator a time is of an id's own
    assert done.stdout.startswith(f"Equal: {len(trades) + 2 * len(distinct)} rows in ")
    execute(datalake_dsn, "DELETE FROM trades WHERE trade_id = '7'")
    done = digest("compare", f"rows:{datalake_dsn}", source, *options)  # merged already: it goes on from there
    assert done.returncode == 1
    assert " trades 2023-11-14 22:00: " in done.stdout
    missing = digest("export", f"journal:{tmp_path / 'c'}", *options)
    assert (missing.returncode, "no such folder" in missing.stderr) == (2, True)
