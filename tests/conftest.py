"""Databases for the tests: real, fresh, migrated from files/sql, dropped afterwards."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import structlog
from hypothesis import HealthCheck, settings
from psycopg import sql
from psycopg.conninfo import make_conninfo

ROOT = Path(__file__).resolve().parent.parent
CAPTURES = ROOT.parent / "shared" / "captures"

# How fast a machine is says nothing of the code: no example is too slow.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run also what takes long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "long" in item.keywords and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason="runs only with --long"))
        if "captures" in item.keywords and not CAPTURES.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"no recorded traffic at {CAPTURES}"))


@pytest.fixture(autouse=True)
def _log_of_its_own() -> Iterator[None]:
    """A command's log goes to the stderr that pytest captures for its test, which is closed for the next one."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def server_dsn() -> str:
    """A superuser's conninfo of the test server; bin/test starts one a worker, as roles are of a server."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    return os.environ.get(
        f"CRYPTOPIP_TEST_DSN_{worker}" if worker else "CRYPTOPIP_TEST_DSN", "host=127.0.0.1 port=55432 user=postgres"
    )


def fresh_database(server_dsn: str, kind: str) -> Iterator[str]:
    """Conninfo of a new database with the migrations of ``kind`` applied; dropped when done."""
    name = f"test_{kind}_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_dsn, dbname="postgres", autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    dsn = make_conninfo(server_dsn, dbname=name)
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
            for migration in sorted((ROOT / "files" / "sql" / kind).glob("*.up.sql")):
                text = migration.read_text()
                if "edition: community" not in text:
                    connection.execute(text.encode())
        yield dsn
    finally:
        with psycopg.connect(server_dsn, dbname="postgres", autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def ingestor_dsn(server_dsn: str) -> Iterator[str]:
    """A fresh, migrated ingestor database."""
    yield from fresh_database(server_dsn, "ingestor")


@pytest.fixture
def datalake_dsn(server_dsn: str) -> Iterator[str]:
    """A fresh, migrated datalake database."""
    yield from fresh_database(server_dsn, "datalake")


@pytest.fixture
def captures() -> Path:
    """The folder of recorded exchange traffic."""
    return CAPTURES
