"""What tuned_restore finds in its way on the server before it changes anything; and a dump of an older schema."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.integration.tuned_restore_harness import ROOT, RestoreServer, Site, docker

pytestmark = [pytest.mark.database, pytest.mark.timeout(900)]
SMALL = ("--tmpfs", "/var/lib/postgresql/data:size=400m,uid=5432,gid=5432,mode=0700")
WAL = ("--tmpfs", "/var/lib/postgresql/wal:size=200m,uid=5432,gid=5432,mode=0700")
OLD = 15
"""Of the datalake's migrations, the last that the older schema has."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with little room, one of whose settings is on its command line."""
    image = os.environ.get("CRYPTOPIP_TEST_IMAGE")
    if not image:
        pytest.skip("CRYPTOPIP_TEST_IMAGE names no image: bin/test sets it")
    folder = tmp_path_factory.mktemp("restore")
    server = RestoreServer(image, folder, storage=(*SMALL, *WAL), flags=("-c", "max_wal_size=128MB"))
    try:
        yield Site(server.container, server.dsn, folder)
    finally:
        docker("rm", "--force", f"{server.container}-restore", check=False)
        server.remove()


def plain_dump(path: Path, rows: int) -> Path:
    """A dump of one table, of about a kilobyte a row."""
    row = "x" * 1000 + "\n"
    with path.open("w") as file:
        file.write("-- PostgreSQL database dump\nCREATE TABLE public.t (a text);\nCOPY public.t (a) FROM stdin;\n")
        file.writelines(row for _ in range(rows))
        file.write("\\.\n\n-- PostgreSQL database dump complete\n")
    return path


def test_a_setting_on_the_command_line_is_named_and_may_be_left_alone(site: Site, tmp_path: Path) -> None:
    source = str(plain_dump(tmp_path / "small.sql", 10))
    message = site.fails(source=source)
    assert "max_wal_size is fixed to 128MB on the server's command line" in message
    assert "Nothing was changed" in message
    assert site.databases() == {"postgres"}
    answer = site.ok(source=source, settings={"max_wal_size": None})
    assert answer["validated"]["rows"] == 10
    assert "max_wal_size" not in {setting["name"] for setting in answer["settings"]}
    assert site.query("SHOW max_wal_size") == [("128MB",)]
    site.drop("lake")


def test_too_little_room_is_found_before_anything_changes(site: Site, tmp_path: Path) -> None:
    source = str(plain_dump(tmp_path / "large.sql", 150_000))
    before = site.auto_conf(), site.settings()
    for check in (True, False):
        message = site.fails(source=source, settings={"max_wal_size": None}, check=check)
        assert "MB free, the restore takes about" in message, message
        assert ("Nothing was changed" in message) is not check
    assert (site.auto_conf(), site.settings()) == before
    assert site.databases() == {"postgres"}
    assert site.journal() is None


class Schema(Site):
    """The module schema_migration on the same server."""

    def arguments(self, **options: Any) -> dict[str, Any]:
        server = conninfo_to_dict(self.dsn)
        connection = {f"login_{key}": server[key] for key in ("host", "port", "user")}
        kind = {"kind": "datalake", **options}["kind"]
        path = str(ROOT / "files" / "sql" / kind)
        return {**connection, "database": "lake", "kind": kind, "edition": "apache", "path": path, **options}


def test_a_dump_of_an_older_schema_is_migrated_after_it_was_restored(site: Site) -> None:
    """The two steps of playbooks/restore_logical.yml."""
    schema = Schema(site.container, site.dsn, site.folder, {}, ROOT / "plugins" / "modules" / "schema_migration.py")
    schema.ok(version=OLD)
    ingestor = ("00000000-0000-4000-8000-000000000001", "ing1")
    site.query("INSERT INTO sources VALUES ('{}', '{}')".format(*ingestor), "lake")
    newest = max(int(path.name[:4]) for path in (ROOT / "files" / "sql" / "datalake").glob("*.up.sql"))
    path = site.dump("lake", "old.dump", "--format=custom")
    site.drop("lake")
    site.ok(source=str(path), owner="cryptopip_owner", settings={"max_wal_size": None})
    ledger = "SELECT max(version) FROM schema_migrations"
    assert site.query(ledger, "lake") == [(OLD,)]
    assert schema.ok()["changed"]
    assert site.query(ledger, "lake") == [(newest,)]
    assert site.query("SELECT incarnation::text, ingestor FROM sources", "lake") == [ingestor]
    assert not schema.ok()["changed"]
    site.drop("lake")


def test_a_restored_ingestor_begins_a_new_life_so_that_sync_passes_over_none_of_its_batches(site: Site) -> None:
    schema = Schema(site.container, site.dsn, site.folder, {}, ROOT / "plugins" / "modules" / "schema_migration.py")
    schema.ok(kind="ingestor")
    (before,) = site.query("SELECT id FROM incarnation", "lake")
    path = site.dump("lake", "ingestor.dump", "--format=custom")
    site.ok(source=str(path), owner="cryptopip_owner", existing="drop", settings={"max_wal_size": None})
    (after,) = site.query("SELECT id FROM incarnation", "lake")
    assert after != before
    assert not schema.ok(kind="ingestor")["changed"]
    site.drop("lake")
