"""What can be known of a run without a server."""

from __future__ import annotations

import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.migrate import Found, Wish, failed_line, outcome
from ansible_collections.cryptopip.marketdata.plugins.module_utils.migrations import (
    MigrationError,
    Row,
    read_migrations,
)
from ansible_collections.cryptopip.marketdata.plugins.module_utils.postgres import connection_parameters
from ansible_collections.cryptopip.marketdata.plugins.module_utils.sql_statements import Statement

ONE = read_migrations({"0001_a.up.sql": b"-- edition: any\nSELECT 1;", "0001_a.down.sql": b"SELECT 1;"})
LATEST = Wish("lake", "latest", None, community=False, timescaledb=True, owner="owner")
STATUS = Wish("lake", "status", None, community=False, timescaledb=True, owner="owner")
ABSENT = Wish("lake", "absent", 0, community=False, timescaledb=True, owner="owner")


def test_a_new_database_is_all_change() -> None:
    answer = outcome(LATEST, ONE, Found(None))
    assert answer["changed"]
    assert (answer["owner_created"], answer["database_created"], answer["extension_created"]) == (True, True, True)
    assert answer["diff"]["before"] == "database lake: none\n"
    assert "0001_a  applied" in answer["diff"]["after"]
    assert answer["version"] == 1


@pytest.mark.parametrize("wish", [STATUS, ABSENT])
def test_asking_or_going_down_creates_no_database(wish: Wish) -> None:
    answer = outcome(wish, ONE, Found(None))
    assert not answer["changed"]
    assert answer["diff"]["before"] == answer["diff"]["after"]
    assert answer["pending"] == ["0001_a"]


def test_an_owner_that_is_missing_is_a_change_of_its_own() -> None:
    ledger = [Row(1, "0001_a", ONE[0].sha256, "applied")]
    answer = outcome(LATEST, ONE, Found(ledger, True, has_owner=False, has_extension=True))
    assert (answer["changed"], answer["owner_created"], answer["pending"]) == (True, True, [])


@pytest.mark.parametrize(("chunks", "aggregates"), [(3, 0), (0, 2)])
@pytest.mark.parametrize("wish", [LATEST, STATUS, ABSENT])
def test_apache_is_refused_over_what_only_the_community_edition_can_read(
    wish: Wish, chunks: int, aggregates: int
) -> None:
    found = Found([], True, True, True, "timescale", chunks, aggregates)
    with pytest.raises(MigrationError, match=f"{chunks} compressed chunks and {aggregates} continuous aggregates"):
        outcome(wish, ONE, found)
    community = Wish(wish.database, wish.state, wish.target, community=True, timescaledb=True, owner="owner")
    assert outcome(community, ONE, found)["version"] in {0, 1}


@pytest.mark.parametrize(("position", "line"), [(None, 4), ("1", 4), ("7", 4), ("8", 5), ("9", 6)])
def test_an_error_is_placed_on_its_line_of_the_file(position: str | None, line: int) -> None:
    assert failed_line(Statement("SELECT\n\nx", 4), position) == line


def test_what_was_not_given_is_left_to_libpq() -> None:
    parameters = connection_parameters(
        {"login_host": None, "login_port": 5432, "login_user": "postgres", "ssl_mode": "prefer"}, "lake"
    )
    assert set(parameters) == {"port", "user", "sslmode", "dbname", "connect_timeout", "application_name"}
