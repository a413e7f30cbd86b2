"""What ingestors may rely on: the moment before which all that was merged is in whole files, and no later one."""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path

import pytest

from tests.integration.archive_harness import MONTHS, archive, execute, export, fill, keep_digests, rows_of

pytestmark = pytest.mark.database
LATE = """
INSERT INTO trades (time, received_at, epoch, trade_id, instrument_id, price, amount, ingestor)
VALUES ('{}', '{}', 1, 'late', 1, 1, 1, 'ing2')
"""


def verify(dsn: str, folder: Path, *more: str, code: int = 0) -> str:
    """As the service does: it reads as the reader, and writes as the writer."""
    done = archive(
        "verify", folder, "--allow-newer", "--dsn", f"{dsn} options='-c role=cryptopip_reader'",
        "--protect", f"{dsn} options='-c role=cryptopip_sync_writer'", *more,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def protections(dsn: str) -> dict[str, datetime]:
    return dict(rows_of(dsn, "SELECT name, protected_until FROM protections WHERE source = 'archive'"))


def now(dsn: str) -> datetime:
    moment: datetime = rows_of(dsn, "SELECT now()")[0][0]
    return moment


def merge(dsn: str, day: str) -> None:
    execute(dsn, LATE.format(day, day))
    keep_digests(dsn)


def snapshot_of(folder: Path, month: str) -> datetime:
    return datetime.fromisoformat(json.loads((folder / month / "manifest.json").read_text())["snapshot_at"])


def test_an_archive_that_equals_the_datalake_protects_all_that_was_merged_until_now(
    datalake_dsn: str, tmp_path: Path
) -> None:
    fill(datalake_dsn)
    export(datalake_dsn, tmp_path)
    before = now(datalake_dsn)
    said = verify(datalake_dsn, tmp_path)
    found = protections(datalake_dsn)
    assert found.keys() == {*MONTHS}
    assert len({*found.values()}) == 1
    assert before < found["2026-11"] < now(datalake_dsn)
    assert rows_of(datalake_dsn, "SELECT protected_until()")[0][0] == found["2026-11"]
    assert f"Protected until: {found['2026-11'].isoformat()}" in said


@pytest.mark.parametrize(("month", "rows"), [("2026-10", 20), ("2026-11", 22)])
def test_a_row_merged_since_the_export_is_never_claimed_whatever_its_month(
    datalake_dsn: str, tmp_path: Path, month: str, rows: int
) -> None:
    """One moment for all months: a late row of October must hold back what November would allow."""
    fill(datalake_dsn)
    export(datalake_dsn, tmp_path)
    merge(datalake_dsn, f"{month}-02")
    merged = now(datalake_dsn)
    assert f"{month} trades.csv.gz: {rows - 1} rows in the archive, {rows} in the datalake" in verify(
        datalake_dsn, tmp_path
    )
    assert {*protections(datalake_dsn).values()} == {snapshot_of(tmp_path, month)}
    assert snapshot_of(tmp_path, month) < merged
    export(datalake_dsn, tmp_path)
    verify(datalake_dsn, tmp_path)
    assert min(protections(datalake_dsn).values()) > merged


def test_a_promise_is_kept_while_files_are_whole_and_taken_back_when_one_is_not(
    datalake_dsn: str, tmp_path: Path
) -> None:
    fill(datalake_dsn)
    export(datalake_dsn, tmp_path)
    verify(datalake_dsn, tmp_path)
    promised = protections(datalake_dsn)
    merge(datalake_dsn, "2026-12-01")  # a month that began since: nothing new can be promised
    verify(datalake_dsn, tmp_path)
    assert protections(datalake_dsn) == promised
    execute(datalake_dsn, "INSERT INTO protections VALUES ('base_backup', 'base_1', '2026-11-01')")
    trades = tmp_path / "2026-10" / "trades.csv.gz"
    whole = trades.read_bytes()
    trades.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    verify(datalake_dsn, tmp_path, code=1)
    assert rows_of(datalake_dsn, "SELECT source, name FROM protections") == [("base_backup", "base_1")]
    trades.write_bytes(whole)
    export(datalake_dsn, tmp_path)
    verify(datalake_dsn, tmp_path)
    assert protections(datalake_dsn).keys() == {*MONTHS, "2026-12"}


def test_months_that_the_archive_lacks_and_rows_that_it_has_too_many_promise_nothing(
    datalake_dsn: str, tmp_path: Path
) -> None:
    fill(datalake_dsn)
    export(datalake_dsn, tmp_path, "--month", "2026-11")
    assert "the archive has none" in verify(datalake_dsn, tmp_path, code=1)
    assert protections(datalake_dsn) == {}
    export(datalake_dsn, tmp_path)
    execute(datalake_dsn, "DELETE FROM quotes WHERE update_id = 9000000000001")
    keep_digests(datalake_dsn)
    assert "19 rows in the archive, 18 in the datalake" in verify(datalake_dsn, tmp_path, code=1)
    assert protections(datalake_dsn) == {}


def test_only_a_whole_verification_speaks_for_the_archive(datalake_dsn: str, tmp_path: Path) -> None:
    fill(datalake_dsn)
    export(datalake_dsn, tmp_path)
    for option in (("--month", "2026-11"), ("--files-only",)):
        verify(datalake_dsn, tmp_path, *option, code=2)
    refused = archive(
        "verify", tmp_path, "--dsn", datalake_dsn, "--protect", f"{datalake_dsn} options='-c role=cryptopip_reader'"
    )
    assert (refused.returncode, "permission denied" in refused.stderr) == (3, True)
    assert protections(datalake_dsn) == {}


def test_a_month_that_vanished_takes_the_promise_back(datalake_dsn: str, tmp_path: Path) -> None:
    """What the datalake lost as well goes unnoticed by the comparison, but ingestors may have it still."""
    fill(datalake_dsn)
    export(datalake_dsn, tmp_path)
    verify(datalake_dsn, tmp_path)
    assert protections(datalake_dsn).keys() == {*MONTHS}
    shutil.rmtree(tmp_path / "2026-10")
    verify(datalake_dsn, tmp_path, code=1)
    assert protections(datalake_dsn) == {}
    export(datalake_dsn, tmp_path)
    verify(datalake_dsn, tmp_path)
    assert protections(datalake_dsn).keys() == {*MONTHS}
