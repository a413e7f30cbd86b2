"""The module schema_migration against a real server, called as Ansible calls it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "plugins" / "modules" / "schema_migration.py"

pytestmark = pytest.mark.database


@dataclass
class Target:
    """A database that may not exist yet, a folder of migrations, and the module's options to bring them together."""

    server: str
    database: str
    folder: Path
    kind: str = "app"
    owner: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    def arguments(self, **options: Any) -> dict[str, Any]:
        """The module's arguments for this target."""
        server = conninfo_to_dict(self.server)
        login = {
            "login_host": server.get("host"),
            "login_port": int(server.get("port") or 5432),
            "login_user": server.get("user", "postgres"),
            "login_password": server.get("password"),
        }
        given = {key: value for key, value in login.items() if value is not None}
        here = {"database": self.database, "kind": self.kind, "path": str(self.folder), "owner": self.owner}
        return {**given, **here, **self.options, **options}

    def start(
        self, *, check: bool = False, environment: dict[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """The module as a process of its own, its arguments on standard input."""
        arguments = {
            "ANSIBLE_MODULE_ARGS": {**self.arguments(**options), "_ansible_check_mode": check, "_ansible_diff": True}
        }
        process = subprocess.Popen(
            [sys.executable, str(MODULE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "collections"), **(environment or {})},
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(arguments))
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, **options: Any) -> dict[str, Any]:
        """The module's answer, failed or not."""
        return finish(self.start(**options))

    def ok(self, **options: Any) -> dict[str, Any]:
        """The module's answer where it is to succeed."""
        answer = self.run(**options)
        assert not answer.get("failed"), answer["msg"]
        return answer

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of a query in the database, as superuser."""
        with psycopg.connect(make_conninfo(self.server, dbname=self.database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def exists(self) -> bool:
        """Whether the database is there."""
        with psycopg.connect(self.server, dbname="postgres") as connection:
            return bool(connection.execute("SELECT FROM pg_database WHERE datname = %s", [self.database]).fetchall())

    def ledger(self) -> dict[str, str]:
        """Name -> state as the database has it."""
        return dict(self.query("SELECT name, state FROM public.schema_migrations ORDER BY version"))

    def tables(self) -> set[str]:
        """The tables in schema public, but for the ledger."""
        found = self.query("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
        return {name for (name,) in found} - {"schema_migrations"}

    def write(self, name: str, up: str, down: str = "SELECT 1;", header: str = "edition: any") -> None:
        """Put a migration into the folder."""
        (self.folder / f"{name}.up.sql").write_text(f"-- {name}: a test.\n-- {header}\n{up}\n")
        settings = "   ".join(part for part in header.split("   ") if not part.startswith("edition"))
        (self.folder / f"{name}.down.sql").write_text(f"-- {name}: back.\n-- {settings}\n{down}\n")


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The answer of a module process."""
    out, err = process.communicate(timeout=120)
    assert out, err
    answer: dict[str, Any] = json.loads(out)
    answer["warnings"] = [warning["event"]["msg"] for warning in answer.get("warnings", [])]
    return answer


@pytest.fixture
def target(server_dsn: str, tmp_path: Path) -> Iterator[Target]:
    """A database yet to be made, and a folder with three small migrations."""
    name = f"sql_{uuid.uuid4().hex[:12]}"
    made = Target(server_dsn, name, tmp_path / "migrations", owner=f"{name}_owner")
    made.folder.mkdir()
    made.write("0001_a", "CREATE TABLE a (x integer);", "DROP TABLE a;")
    made.write("0002_b", "CREATE TABLE b (x integer);\nINSERT INTO b VALUES (1);", "DROP TABLE b;")
    made.write("0003_c", "CREATE TABLE c (x integer);", "DROP TABLE c;")
    yield made
    with psycopg.connect(server_dsn, dbname="postgres", autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        admin.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(made.owner)))


def told(answer: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What an answer says of each migration."""
    return [(m["name"], m["action"], m["state"]) for m in answer["migrations"]]


@pytest.mark.parametrize("kind", ["ingestor", "datalake", "app"])
def test_our_own_schemas_are_made_on_a_new_database_and_a_second_run_changes_nothing(target: Target, kind: str) -> None:
    target.kind, target.folder = kind, ROOT / "files" / "sql" / kind
    shown = target.ok(check=True)
    assert not target.exists()
    first = target.ok()
    for answer in (shown, first):
        assert answer["changed"]
        assert (answer["database_created"], answer["owner_created"]) == (True, True)
        assert answer["extension_created"] == (kind != "app")
    assert shown["migrations"] == first["migrations"]
    assert (shown["pending"], shown["version"], shown["diff"]) == (first["pending"], first["version"], first["diff"])
    assert target.ledger() == {m["name"]: m["state"] for m in first["migrations"]}
    owner = target.query(
        "SELECT pg_get_userbyid(datdba), pg_encoding_to_char(encoding) FROM pg_database "
        "WHERE datname = current_database()"
    )
    assert owner == [(target.owner, "UTF8")]
    again = target.ok()
    assert (again["changed"], again["pending"]) == (False, [])
    assert again["diff"]["before"] == again["diff"]["after"] == first["diff"]["after"]
    assert not target.ok(check=True)["changed"]


def test_tables_belong_to_the_owner_unless_the_migration_asks_for_the_superuser(target: Target) -> None:
    target.write("0004_d", "CREATE TABLE d (x integer);", "DROP TABLE d;", "edition: any   role: superuser")
    target.ok()
    owners = dict(target.query("SELECT tablename, tableowner FROM pg_tables WHERE schemaname = 'public'"))
    assert owners == {
        **dict.fromkeys(("a", "b", "c", "schema_migrations"), target.owner),
        "d": target.arguments()["login_user"],
    }


def test_check_mode_on_an_existing_database_writes_nothing_and_shows_the_same(target: Target) -> None:
    target.ok(version=1)
    shown = target.ok(check=True)
    assert (target.tables(), target.ledger()) == ({"a"}, {"0001_a": "applied"})
    assert told(shown) == [("0001_a", "none", "applied"), ("0002_b", "up", "applied"), ("0003_c", "up", "applied")]
    real = target.ok()
    assert {key: shown[key] for key in ("changed", "migrations", "pending", "version", "diff")} == {
        key: real[key] for key in ("changed", "migrations", "pending", "version", "diff")
    }


def test_it_goes_up_and_down_to_a_version_and_all_the_way(target: Target) -> None:
    assert target.ok(version=2)["version"] == 2
    assert target.tables() == {"a", "b"}
    assert target.ok(version=1)["version"] == 1
    assert target.tables() == {"a"}
    target.ok()
    assert target.tables() == {"a", "b", "c"}
    down = target.ok(state="absent")
    assert [action for _, action, _ in told(down)] == ["down", "down", "down"]
    assert (target.tables(), target.ledger(), down["version"]) == (set(), {}, 0)
    assert not target.ok(state="absent")["changed"]


def test_status_tells_what_is_pending_and_changes_nothing(target: Target) -> None:
    new = target.ok(state="status")
    assert (new["changed"], new["pending"], target.exists()) == (False, ["0001_a", "0002_b", "0003_c"], False)
    target.ok(version=1)
    status = target.ok(state="status")
    assert (status["changed"], status["pending"], status["version"]) == (False, ["0002_b", "0003_c"], 1)
    assert target.ledger() == {"0001_a": "applied"}


def test_absent_makes_no_database(target: Target) -> None:
    assert not target.ok(state="absent")["changed"]
    assert not target.exists()


@pytest.mark.parametrize("check", [False, True])
def test_an_edited_migration_is_refused_and_nothing_runs(target: Target, check: bool) -> None:
    target.ok(version=1)
    with (target.folder / "0001_a.up.sql").open("a") as file:
        file.write("-- a word more\n")
    answer = target.run(check=check)
    assert answer["failed"]
    assert "0001_a.up.sql was edited after it was applied" in answer["msg"]
    assert "Nothing was changed" in answer["msg"]
    assert not answer["changed"]
    assert target.tables() == {"a"}


def test_a_missing_migration_is_refused_and_nothing_runs(target: Target) -> None:
    target.ok()
    for file in target.folder.glob("0003_c.*"):
        file.unlink()
    target.write("0003_other", "CREATE TABLE other (x integer);")
    answer = target.run()
    assert "0003_c is in the database's ledger (applied), but its number belongs to 0003_other" in answer["msg"]
    assert "other" not in target.tables()


def test_a_missing_way_back_is_refused_before_the_database_is_made(target: Target) -> None:
    (target.folder / "0002_b.down.sql").unlink()
    answer = target.run()
    assert "0002_b.up.sql has no .down.sql beside it" in answer["msg"]
    assert not target.exists()


def test_a_failing_migration_leaves_nothing_half_and_what_was_before_stays(target: Target) -> None:
    target.write("0002_b", "CREATE TABLE b (x integer);\n\nINSERT INTO b\nVALUES ('no number');", "DROP TABLE b;")
    answer = target.run()
    assert answer["failed"]
    assert answer["msg"].startswith(
        '0002_b.up.sql, line 6: invalid input syntax for type integer: "no number" (SQLSTATE 22P02)'
    )
    assert answer["done"][-1] == "0001_a up"
    assert "Done before:" in answer["msg"]
    assert answer["changed"]
    assert (target.tables(), target.ledger()) == ({"a"}, {"0001_a": "applied"})
    target.write("0002_b", "CREATE TABLE b (x integer);", "DROP TABLE b;")
    assert target.ok()["version"] == 3


def test_a_check_that_fails_at_the_commit_is_told_and_nothing_stays(target: Target) -> None:
    target.write(
        "0002_b", "CREATE TABLE b (x integer REFERENCES k DEFERRABLE INITIALLY DEFERRED);\nINSERT INTO b VALUES (1);"
    )
    target.write("0001_a", "CREATE TABLE k (x integer PRIMARY KEY);")
    answer = target.run()
    assert "0002_b: not committed" in answer["msg"]
    assert "(SQLSTATE 23503)" in answer["msg"]
    assert (target.tables(), target.ledger()) == ({"k"}, {"0001_a": "applied"})


def test_two_runners_at_once_apply_everything_once(target: Target) -> None:
    target.write("0002_b", "CREATE TABLE b (x integer);\nSELECT pg_sleep(1);", "DROP TABLE b;")
    answers = [finish(process) for process in [target.start(), target.start(), target.start()]]
    assert not any(answer.get("failed") for answer in answers), answers
    applied = sorted(sum(action == "up" for _, action, _ in told(answer)) for answer in answers)
    assert applied == [0, 0, 3]
    assert target.tables() == {"a", "b", "c"}


def test_a_runner_that_waits_too_long_is_told_who_holds_the_lock(target: Target, server_dsn: str) -> None:
    from ansible_collections.cryptopip.marketdata.plugins.module_utils.migrate import migration_lock
    from ansible_collections.cryptopip.marketdata.plugins.module_utils.postgres import PostgresError

    target.ok()
    dsn = make_conninfo(server_dsn, dbname=target.database)
    with (
        psycopg.connect(dsn, autocommit=True) as one,
        psycopg.connect(dsn, autocommit=True) as two,
        migration_lock(one, shared=False),
        pytest.raises(PostgresError, match=rf"pid {one.info.backend_pid} of"),
        migration_lock(two, shared=True, timeout_s=0.2),
    ):
        pass
    with (
        psycopg.connect(dsn, autocommit=True) as one,
        psycopg.connect(dsn, autocommit=True) as two,
        migration_lock(one, shared=True),
        migration_lock(two, shared=True, timeout_s=0.2),
    ):
        pass  # those that only look do not wait for each other


def test_a_migration_without_transaction_runs_what_cannot_run_in_one(target: Target) -> None:
    concurrently = "INSERT INTO a VALUES (1);\nCREATE INDEX CONCURRENTLY a_x ON a (x);"
    target.write("0002_b", concurrently, "DROP INDEX CONCURRENTLY a_x;", "edition: any   transaction: none")
    target.ok()
    assert target.ledger()["0002_b"] == "applied"
    assert target.query("SELECT tableowner FROM pg_tables WHERE tablename = 'a'") == [(target.owner,)]
    assert target.ok(version=1)["version"] == 1
    assert target.query("SELECT FROM pg_indexes WHERE indexname = 'a_x'") == []


def test_one_killed_outside_a_transaction_is_recognised_and_the_operator_told(target: Target) -> None:
    target.write(
        "0002_b", "CREATE TABLE half (x integer);\nSELECT pg_sleep(60);", header="edition: any   transaction: none"
    )
    process = target.start()
    _wait_for_sleep(target)
    process.kill()
    process.communicate()
    assert (target.ledger(), "half" in target.tables()) == ({"0001_a": "applied", "0002_b": "running"}, True)
    for options in ({}, {"check": True}, {"state": "absent"}):
        answer = target.run(**options)
        assert "0002_b began" in answer["msg"]
        assert "never finished" in answer["msg"]
    target.query("DROP TABLE half")
    target.query("DELETE FROM public.schema_migrations WHERE version = 2")
    target.write("0002_b", "CREATE TABLE b (x integer);")
    assert target.ok()["version"] == 3


def _wait_for_sleep(target: Target) -> None:
    """Until the migration sleeps; a deadline, and no run of the test depends on how fast it is."""
    with psycopg.connect(target.server, dbname="postgres", autocommit=True) as watcher:
        watcher.execute("SET statement_timeout = '30s'")
        watcher.execute(
            f"""DO $$ BEGIN
                WHILE NOT EXISTS (
                    SELECT FROM pg_stat_activity
                    WHERE datname = '{target.database}' AND state = 'active' AND wait_event = 'PgSleep'
                ) LOOP PERFORM pg_sleep(0.05); PERFORM pg_stat_clear_snapshot(); END LOOP;
            END $$""".encode()
        )


def test_one_killed_inside_a_transaction_leaves_no_trace_and_the_next_run_finishes(target: Target) -> None:
    target.write("0002_b", "CREATE TABLE b (x integer);\nSELECT pg_sleep(60);", "DROP TABLE b;")
    process = target.start()
    _wait_for_sleep(target)
    process.kill()
    process.communicate()
    assert (target.tables(), target.ledger()) == ({"a"}, {"0001_a": "applied"})
    target.write("0002_b", "CREATE TABLE b (x integer);", "DROP TABLE b;")
    assert target.ok()["version"] == 3


def test_a_migration_of_the_community_edition_waits_for_it_and_goes_with_it(target: Target) -> None:
    target.write("0002_b", "CREATE TABLE b (x integer);", "DROP TABLE b;", "edition: community")
    assert told(target.ok())[1] == ("0002_b", "skip", "skipped")
    assert target.tables() == {"a", "c"}
    assert not target.ok()["changed"]
    assert told(target.ok(edition="community")) == [
        ("0001_a", "none", "applied"),
        ("0002_b", "up", "applied"),
        ("0003_c", "none", "applied"),
    ]
    assert target.tables() == {"a", "b", "c"}
    assert told(target.ok(edition="apache"))[1] == ("0002_b", "withdraw", "skipped")
    assert target.tables() == {"a", "c"}


def test_community_is_refused_on_a_server_of_the_apache_edition_before_any_migration(target: Target) -> None:
    target.kind = "ingestor"
    shown = target.ok(check=True, edition="community")
    assert shown["changed"]
    answer = target.run(edition="community")
    assert "the server runs the apache edition" in answer["msg"]
    assert target.tables() == set()
    assert "the server still runs the apache edition" in target.ok(check=True, edition="community")["warnings"][0]


def test_a_refused_login_is_said_and_never_taken_for_a_new_host(target: Target, server_dsn: str) -> None:
    role = target.owner
    with psycopg.connect(server_dsn, dbname="postgres", autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'right' CONNECTION LIMIT 0").format(sql.Identifier(role)))
    answer = target.run(check=True, login_user=role, login_password="wrong", assume_new_when_unreachable=True)
    assert answer["failed"]
    assert "the server refused the connection" in answer["msg"]
    assert "wrong" not in json.dumps(answer)


def test_a_virgin_host_can_be_planned_for_in_check_mode_only(target: Target, tmp_path: Path) -> None:
    nowhere = {"login_host": str(tmp_path), "assume_new_when_unreachable": True}
    shown = target.ok(check=True, **nowhere)
    assert shown["pending"] == ["0001_a", "0002_b", "0003_c"]
    assert "no connection" in shown["warnings"][0]
    for options in ({"check": False}, {"check": True, "assume_new_when_unreachable": False}):
        answer = target.run(**{**nowhere, **options})
        assert "no connection" in answer["msg"]
        assert "Check that the server runs" in answer["msg"]


def test_a_missing_driver_is_named_with_its_package_and_does_not_stop_check_mode(
    target: Target, tmp_path: Path
) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError('not here')")
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT / 'collections'}"}
    answer = target.run(environment=environment)
    assert "install the package python3-psycopg" in answer["msg"]
    shown = target.ok(environment=environment, check=True, assume_new_when_unreachable=True)
    assert len(shown["pending"]) == 3
    assert "python3-psycopg" in shown["warnings"][0]


def test_a_number_that_is_not_there_is_refused(target: Target) -> None:
    assert "there is no version 9" in target.run(version=9)["msg"]
    assert not target.exists()
    assert "goes with state=latest only" in target.run(version=1, state="absent")["msg"]


ANSIBLE = [str(Path(sys.executable).parent / "ansible"), "localhost", "-i", "localhost,", "-c", "local"]


def _ansible(target: Target, *flags: str, **options: Any) -> tuple[int, str]:
    arguments = {key: value for key, value in target.arguments(**options).items() if key != "path"}
    command = [
        *ANSIBLE,
        "-e",
        f"ansible_python_interpreter={sys.executable}",
        "-m",
        "cryptopip.marketdata.schema_migration",
    ]
    remote = target.folder.parent / "remote"
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_REMOTE_TMP": str(remote)}
    ran = subprocess.run(
        [*command, "-a", json.dumps(arguments), *flags],
        cwd=ROOT,
        env=environment,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert list(remote.iterdir()) == [], "something was left on the host"
    return ran.returncode, ran.stdout + ran.stderr


def test_ad_hoc_carries_the_files_from_the_control_node_and_shows_the_diff(target: Target) -> None:
    code, out = _ansible(target, "--check", "--diff")
    assert (code, target.exists()) == (0, False), out
    assert f"-database {target.database}: none" in out
    assert re.findall(r"^\+(\d{4}_\w+) +applied ", out, re.MULTILINE) == [
        "0001_watchlists",
        "0002_restore_drills",
        "0003_base_backups",
    ]
    code, out = _ansible(target)
    assert code == 0, out
    assert "CHANGED" in out
    assert target.tables() == {"watchlists", "watchlist_instruments", "saved_queries", "restore_drills", "base_backups"}
    code, out = _ansible(target)
    assert code == 0, out
    assert "SUCCESS" in out


def test_ad_hoc_takes_a_folder_of_the_operators_own(target: Target) -> None:
    code, out = _ansible(target, src=str(target.folder))
    assert code == 0, out
    assert target.tables() == {"a", "b", "c"}
    code, out = _ansible(target, src="no/such/folder")
    assert code != 0
    assert "no folder no/such/folder" in out
