"""What the datalake no longer keeps: only what a verified archive holds, and nobody takes it for a loss afterwards."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from collectors.config import Expiry
from collectors.derived import derive, derive_books
from collectors.digests import Source, Window
from collectors.retention.expiry import Expired, expire
from collectors.sync import target
from collectors.sync.channels import TRADES, copy_columns, create_stage, stage_name
from tests.integration.archive_harness import archive, contents, execute, export, fill, keep_digests, rows_of
from tests.integration.test_archive_protect import LATE, verify

pytestmark = pytest.mark.database
DAYS = (datetime.now(UTC) - datetime(2026, 11, 1, tzinfo=UTC)).days
"""Since October ended."""


class Lake:
    """A datalake of October and November 2026, and its archive, exported and verified."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn, self.folder = dsn, folder
        fill(dsn)
        self.derive()
        self.archive()

    def derive(self) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            derive(connection)
            derive_books(connection)

    def archive(self) -> None:
        export(self.dsn, self.folder)
        verify(self.dsn, self.folder)

    def expire(self, *, check: bool = False, days: int = DAYS, channel: Any = "trades") -> Expired:
        """With no more rights than on a host."""
        dsn = make_conninfo(self.dsn, options="-c role=cryptopip_sync_writer")
        return expire(dsn, Expiry({channel: days}, self.folder), check=check)

    def months(self) -> list[Any]:
        return rows_of(
            self.dsn, "SELECT to_char(time AT TIME ZONE 'UTC', 'YYYY-MM'), count(*) FROM trades GROUP BY 1 ORDER BY 1"
        )

    def digests(self, prefix: str = "") -> list[Any]:
        return list(Source(prefix + self.dsn).digests(Window()))

    def merge(self, *times: str) -> target.Merged:
        """Trades with these times, as sync merges them."""
        with psycopg.connect(self.dsn, options="-c role=cryptopip_sync_writer") as connection:
            connection.execute(create_stage(TRADES))
            rows = [(at, at, 1, 1, True, f"late {at}", Decimal(1), Decimal(1), None, None) for at in times]
            connection.cursor().executemany(
                sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                    stage_name(TRADES), copy_columns(TRADES), sql.SQL(", ").join([sql.Placeholder()] * 10)
                ),
                rows,
            )
            return target.merge(connection, TRADES, "ing2")


@pytest.fixture
def lake(datalake_dsn: str, tmp_path: Path) -> Lake:
    return Lake(datalake_dsn, tmp_path)


def test_a_month_goes_that_is_old_enough_and_verified_in_the_archive(lake: Lake) -> None:
    before, digests = lake.months(), lake.digests()
    assert [month for month, _ in before] == ["2026-10", "2026-11"]
    assert lake.expire(days=DAYS + 1) == Expired(checked_only=False)
    told = lake.expire(check=True)
    assert ([(one.channel, one.month) for one in told.dropped], told.kept) == ([("trades", "2026-10")], [])
    assert lake.months() == before, "it was a check"
    done = lake.expire()
    assert done.dropped == told.dropped
    assert done.freed > 0
    assert lake.months() == before[1:]
    assert lake.digests() == digests
    assert rows_of(lake.dsn, "SELECT channel, rows FROM dropped_chunks") == [("trades", before[0][1])]
    assert lake.expire() == Expired(checked_only=False), "nothing is left of it"


def test_whatever_is_not_provably_in_the_archive_stays(lake: Lake) -> None:
    before = lake.months()

    def why() -> str:
        report = lake.expire()
        assert (report.dropped, lake.months()) == ([], before)
        return "; ".join(report.kept[0].held)

    manifest = lake.folder / "2026-10" / "manifest.json"
    file = lake.folder / "2026-10" / "trades.csv.gz"
    for path, said in ((manifest, "not whole in the archive"), (file, "not of the size that its manifest says")):
        kept = path.read_bytes()
        path.unlink()
        assert said in why()
        path.write_bytes(kept)
    execute(lake.dsn, "UPDATE protections SET verified_at = '2026-11-01'")
    assert "not verified since it was written" in why()
    execute(lake.dsn, "UPDATE protections SET verified_at = now()")
    execute(lake.dsn, LATE.format("2026-10-31 10:00+00", "2026-10-31 10:00+00"))
    keep_digests(lake.dsn)
    before = lake.months()
    assert "bars of its trades are still to be made" in why()
    lake.derive()
    assert "bars" not in why()
    assert "holds another state of it" in why()
    lake.archive()
    with psycopg.connect(lake.dsn) as reader:
        reader.execute("SELECT count(*) FROM trades")
        report = lake.expire()
        assert "somebody is reading what is of 2026-10-31" in report.kept[0].held[0]
    assert lake.expire().kept == []


def test_the_archive_keeps_what_the_datalake_dropped(lake: Lake) -> None:
    files = contents(lake.folder)
    lake.expire()
    execute(lake.dsn, "ALTER TABLE trades ADD COLUMN told_by text")  # what a newer release may bring
    done = archive("export", lake.folder, "--dsn", lake.dsn)
    assert done.returncode == 1
    assert "dropped since: it is left as it is" in done.stderr
    now = contents(lake.folder)
    assert now["2026-10/trades.csv.gz"] == files["2026-10/trades.csv.gz"]
    assert now["2026-11/trades.csv.gz"] != files["2026-11/trades.csv.gz"], "of a month that is there"
    (lake.folder / "2026-10" / "manifest.json").unlink()
    done = archive("export", lake.folder, "--dsn", lake.dsn, "--month", "2026-10")
    assert done.returncode == 1
    assert "dropped since" in done.stderr
    assert contents(lake.folder)["2026-10/trades.csv.gz"] == files["2026-10/trades.csv.gz"]


def test_book_events_stay_while_books_are_to_be_made_of_them(lake: Lake) -> None:
    execute(lake.dsn, "INSERT INTO book_hours (instrument_id, hour) VALUES (2, '2026-10-31 23:00+00')")
    report = lake.expire(check=True, channel="book_events")
    assert "books at its full hours are still to be made" in "; ".join(report.kept[0].held)


def test_nothing_changes_in_an_archive_and_comparisons_find_nothing(lake: Lake) -> None:
    files, digests = contents(lake.folder), lake.digests()
    lake.expire()
    export(lake.dsn, lake.folder)
    assert contents(lake.folder) == files
    assert "All agree" in verify(lake.dsn, lake.folder)
    assert lake.digests("rows:") == digests
    bars = rows_of(lake.dsn, "SELECT * FROM ohlcv ORDER BY 1, 2, 3")
    hour = "'2026-10-31 23:00+00'"
    execute(lake.dsn, f"INSERT INTO ohlcv_hours (instrument_id, hour, settled_until) VALUES (1, {hour}, {hour})")
    lake.derive()
    assert rows_of(lake.dsn, "SELECT * FROM ohlcv ORDER BY 1, 2, 3") == bars


def test_rows_that_come_too_late_are_counted_and_not_merged(lake: Lake) -> None:
    lake.expire()
    digests, months = lake.digests(), lake.months()
    late = ["2026-10-31 10:00:00+00", "2026-10-31 23:59:59.9+00"]
    assert lake.merge(*late) == target.Merged(pulled=2, inserted=0, conflicts=0, late=2)
    assert (lake.digests(), lake.months()) == (digests, months)
    assert lake.merge(late[0], "2026-11-01 00:00:00+00") == target.Merged(pulled=2, inserted=1, conflicts=0, late=1)
    counted = "SELECT channel, ingestor, (day AT TIME ZONE 'UTC')::text, rows FROM late_rows"
    assert rows_of(lake.dsn, counted) == [("trades", "ing2", "2026-10-31 00:00:00", 3)]


def test_a_month_of_the_archive_comes_back(lake: Lake) -> None:
    whole = rows_of(lake.dsn, "SELECT * FROM trades ORDER BY time, trade_id")
    digests = lake.digests()
    lake.expire()
    done = archive("import", lake.folder, "--month", "2026-10", "--dsn", lake.dsn)
    assert done.returncode == 0, done.stderr
    assert rows_of(lake.dsn, "SELECT * FROM trades ORDER BY time, trade_id") == whole
    assert (lake.digests(), rows_of(lake.dsn, "SELECT * FROM dropped_chunks")) == (digests, [])
