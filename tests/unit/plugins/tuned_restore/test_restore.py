"""What a restore runs, and the room it asks for: pure."""

from __future__ import annotations

import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.engine import Finished
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.plan import refuse_space
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.progress import progress_line
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.restore import (
    client_environment,
    restore_commands,
)
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.run import RestoreError
from ansible_collections.cryptopip.marketdata.plugins.modules.tuned_restore import explained

GB = 1 << 30


def test_progress_tells_rate_and_rest() -> None:
    assert progress_line("x: data", (1 * GB, 4 * GB), (3, 7), 10) == (
        "x: data, 1024 MB of about 4096 MB, 3 of 7 tables, 102 MB/s, about 30 s left"
    )
    assert progress_line("x: data", (5 * GB, 4 * GB), (7, 7), 10).endswith("about 0 s left")
    assert progress_line("x: pre-data", (0, 4 * GB), (0, 0), 0) == "x: pre-data, 0 MB of about 4096 MB"
    assert progress_line("x: dumping", (1 * GB, 0), (0, 0), 10) == "x: dumping, 1024 MB, 102 MB/s"


def test_the_catalog_is_loaded_by_one_job_before_the_data_and_never_with_it() -> None:
    made = restore_commands("directory", 4, "lake_restoring", has_timescaledb=True)
    commands = {phase.value: command for phase, command in made}
    assert list(commands) == ["pre-data", "catalog", "data", "post-data"]
    catalog, data = commands["catalog"], commands["data"]
    schemas = {argument.removeprefix("--schema=") for argument in catalog if argument.startswith("--schema=")}
    assert "_timescaledb_catalog" in schemas
    assert {f"--exclude-schema={schema}" for schema in schemas} <= set(data)
    assert [name for name, command in commands.items() if "--jobs=4" in command] == ["data", "post-data"]
    assert all("--exit-on-error" in command for command in commands.values())
    assert list(dict(restore_commands("custom", 4, "x", has_timescaledb=False))) == ["pre-data", "data", "post-data"]
    assert list(dict(restore_commands("plain", 4, "x", has_timescaledb=True))) == ["plain"]


def test_the_programs_get_passwords_and_settings_through_their_environment() -> None:
    options = {"login_host": "/run/pg", "login_port": 5433, "login_user": "me", "login_password": "s", "ssl_mode": None}
    environment = client_environment(options, "x", {"work_mem": "1 MB"})
    assert environment["PGPASSWORD"] == "s"
    assert "PGSSLMODE" not in environment
    assert "-c work_mem=1\\ MB" in environment["PGOPTIONS"]


@pytest.mark.parametrize(
    ("data_free", "wal_free", "says"),
    [
        (26 * GB, 16 * GB, None),
        (24 * GB, 16 * GB, "file system of data has 24576 MB free, the restore takes about 25600 MB"),
        (26 * GB, 14 * GB, "file system of WAL"),
        (41 * GB, None, None),
        (26 * GB, None, "file system of data and WAL"),
    ],
)
def test_too_little_disk_is_told_of_with_what_is_needed(data_free: int, wal_free: int | None, says: str | None) -> None:
    if says is None:
        refuse_space(10 * GB, data_free, wal_free)
        return
    with pytest.raises(RestoreError, match=says):
        refuse_space(10 * GB, data_free, wal_free)


@pytest.mark.parametrize(
    ("stderr", "errors"),
    [
        ("pg_restore: warning: something", 0),
        ("pg_restore: error: could not execute query: ERROR:  relation exists\nCommand was: x", 1),
        ("psql:/dump:3: ERROR:  division by zero", 1),
        ("connection failed: FATAL:  the database system is starting up", 1),
    ],
)
def test_an_error_is_seen_even_where_the_exit_code_is_good(stderr: str, errors: int) -> None:
    assert len(Finished(0, "", stderr).errors) == errors


def test_the_error_of_an_extension_that_is_not_loaded_comes_with_the_way_out() -> None:
    said = "data: pg_restore: error: tried calling catalog_get when extension isn't loaded."
    assert explained(said).startswith(said)
    assert "Restart the server" in explained(said)
    assert explained("data: something else.") == "data: something else."
