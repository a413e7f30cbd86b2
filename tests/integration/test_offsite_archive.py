"""The archive off-site: months leave the datalake's host, are written again, and come back from the remote alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import fresh_database
from tests.integration.archive_harness import MONTHS, archive, contents, execute, export, fill, keep_digests
from tests.integration.offsite_harness import Site, crypt, webdav
from tests.integration.test_archive_import import differences

pytestmark = pytest.mark.database


@pytest.fixture
def other_lake_dsn(server_dsn: str) -> Iterator[str]:
    yield from fresh_database(server_dsn, "datalake")


def test_months_come_back_from_the_remote_alone_and_older_states_of_them_too(
    datalake_dsn: str, other_lake_dsn: str, tmp_path: Path
) -> None:
    fill(datalake_dsn)
    with webdav(tmp_path / "server") as base:
        site = Site(tmp_path, {"base": base, "secret": crypt("base:enc")})
        site.configure("secret:db1/archive", versions=True, exclude=["*.tar.gz"])
        export(datalake_dsn, site.source)
        first = site.copied()
        older = {name: text for name, text in contents(site.source).items() if name.startswith("2026-10/")}
        execute(
            datalake_dsn,
            "INSERT INTO trades (time, received_at, epoch, trade_id, instrument_id, price, amount, ingestor)"
            " VALUES ('2026-10-05', '2026-11-05', 1, 'late', 1, 1, 1, 'ing2')",
        )
        keep_digests(datalake_dsn)
        export(datalake_dsn, site.source)
        second = site.copied()
        assert second["written"] == 3, "the trades, the digests and the manifest of October"
        assert second["kept"] == first["written"] - 3
        shutil.rmtree(site.source)  # the host is gone, and with it what it remembered
        shutil.rmtree(tmp_path / "state")
        back = tmp_path / "back"
        for month in MONTHS:
            site.run("fetch", "it", back, "--below", month)
            done = archive("import", back, "--dsn", other_lake_dsn, "--month", month)
            assert done.returncode == 0, done.stderr
        assert differences(datalake_dsn, other_lake_dsn) == ""
        site.run("fetch", "it", tmp_path / "older", "--below", "2026-10", "--index", first["index"])
        assert contents(tmp_path / "older") == older
