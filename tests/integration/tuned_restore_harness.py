"""What the tests of tuned_restore need: servers with dumps of them, the module as a process, and kills at its phases.

Run as a program it is the module, with a victim that is killed as soon as the restore journal has reached a phase.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # it is run as a program too
from tests.integration.harness.container import DatabaseServer

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "plugins" / "modules" / "tuned_restore.py"
VICTIMS = ("module", "tool", "postgres", "container")
PREPARED = {"archive_mode": "on", "archive_command": "/bin/true", "max_wal_size": "2GB", "work_mem": "7MB"}
"""Settings that ALTER SYSTEM has made before any restore."""


_DEFINITIONS = """
WITH spaces AS (
    SELECT oid, nspname FROM pg_namespace
    WHERE nspname IN ('public', 'other', '_timescaledb_internal')
), relations AS (
    SELECT c.*, format('%I.%I', nspname, relname) AS name
    FROM pg_class AS c INNER JOIN spaces ON spaces.oid = relnamespace
    WHERE NOT EXISTS (
        SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e'
    )
)
SELECT 'relation', name, relkind::text, pg_get_userbyid(relowner),
    CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(oid) WHEN relkind = 'i' THEN pg_get_indexdef(oid) END,
    (SELECT string_agg(item::text, ',' ORDER BY item::text) FROM unnest(relacl) AS item)
FROM relations
UNION ALL SELECT 'column', name, attnum::text, attname,
    format_type(atttypid, atttypmod) || attnotnull::text || attidentity::text, pg_get_expr(adbin, adrelid)
FROM relations INNER JOIN pg_attribute AS a ON attrelid = relations.oid AND attnum > 0 AND NOT attisdropped
    LEFT JOIN pg_attrdef AS d ON d.adrelid = attrelid AND d.adnum = attnum
UNION ALL SELECT 'constraint', name, conname, '', pg_get_constraintdef(k.oid), ''
FROM relations INNER JOIN pg_constraint AS k ON conrelid = relations.oid
UNION ALL SELECT 'trigger', name, tgname, '', pg_get_triggerdef(t.oid), ''
FROM relations INNER JOIN pg_trigger AS t ON tgrelid = relations.oid AND NOT tgisinternal
UNION ALL SELECT 'function', p.oid::regprocedure::text, '', pg_get_userbyid(proowner), pg_get_functiondef(p.oid),
    (SELECT string_agg(item::text, ',' ORDER BY item::text) FROM unnest(proacl) AS item)
FROM pg_proc AS p INNER JOIN spaces ON spaces.oid = pronamespace
WHERE NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = p.oid AND deptype = 'e')
UNION ALL SELECT 'label', enumtypid::regtype::text, enumlabel, '', '', '' FROM pg_enum
UNION ALL SELECT 'sequence', schemaname || '.' || sequencename, last_value::text, '', '', '' FROM pg_sequences
WHERE schemaname IN ('public', 'other')
ORDER BY 1, 2, 3, 4, 5, 6
"""


def docker(*arguments: str, check: bool = True) -> str:
    """Standard output of a docker command."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0 or not check, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout


class RestoreServer(DatabaseServer):
    """One whose container is known, for the module to run programs beside it."""

    @property
    def container(self) -> str:
        return self._name


@dataclass
class Site:
    """A server's container, a superuser's conninfo, and a folder for dumps and the journal."""

    container: str
    dsn: str
    folder: Path
    defaults: dict[str, Any] = field(default_factory=dict)
    module: Path = MODULE
    killer: Path = Path(__file__)

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def query(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Rows of a statement, run outside of a transaction."""
        with psycopg.connect(make_conninfo(self.dsn, dbname=database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def databases(self) -> set[str]:
        return {name for (name,) in self.query("SELECT datname FROM pg_database")} - {"template0", "template1"}

    def auto_conf(self) -> dict[str, str]:
        """What postgresql.auto.conf says, each line of it; comments aside."""
        text = docker("exec", self.container, "cat", "/var/lib/postgresql/data/pg_data/postgresql.auto.conf")
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        return {name: value for name, _, value in (line.partition(" = ") for line in lines)}

    def settings(self) -> dict[str, tuple[str, bool]]:
        """What runs: value and whether a restart is pending, of every setting."""
        return {
            name: (value, pending)
            for name, value, pending in self.query(
                "SELECT name, setting, pending_restart FROM pg_settings "
                "WHERE name NOT IN ('transaction_read_only', 'in_hot_standby')"
            )
        }

    def fingerprint(self, database: str) -> dict[str, tuple[int, int]]:
        """Table -> rows and an order-independent hash of them, of all that is not the catalog's."""
        tables = self.query(
            "SELECT format('%I.%I', nspname, relname) FROM pg_class INNER JOIN pg_namespace AS n ON n.oid = "
            "relnamespace WHERE relkind = 'r' AND "
            "(nspname IN ('public', 'other') OR relname LIKE '\\_hyper%') ORDER BY 1",
            database,
        )
        return {
            table: self.query(
                f"SELECT count(*), coalesce(sum(hashtext(t::text)), 0)::bigint FROM ONLY {table} AS t", database
            )[0]
            for (table,) in tables
        }

    def catalog(self, database: str) -> dict[str, list[str]]:
        """Every row of what TimescaleDB knows of hypertables, dimensions and chunks."""
        return {
            table: [row for (row,) in self.query(f"SELECT t::text FROM _timescaledb_catalog.{table} AS t", database)]
            for table in ("hypertable", "dimension", "dimension_slice", "chunk", "chunk_constraint")
        }

    def definitions(self, database: str) -> list[tuple[Any, ...]]:
        """What is defined there beside the extension itself, with owners and rights: relations, columns, functions."""
        return self.query(_DEFINITIONS, database)

    def log(self) -> str:
        """What the server has said."""
        done = subprocess.run(["docker", "logs", self.container], capture_output=True, text=True, check=True)
        return done.stdout + done.stderr

    def arguments(self, **options: Any) -> dict[str, Any]:
        server = conninfo_to_dict(self.dsn)
        return {
            "login_host": server["host"],
            "login_port": int(str(server["port"])),
            "login_user": server["user"],
            "container": self.container,
            "work_path": str(self.work),
            "database": "lake",
            "jobs": 2,
            **self.defaults,
            **options,
        }

    def start(
        self, *, kill: tuple[str, str] | None = None, check: bool = False, **options: Any
    ) -> subprocess.Popen[str]:
        """The module as a process; ``kill`` is a phase and a victim."""
        arguments = self.arguments(**options)
        process = subprocess.Popen(
            [sys.executable, *([str(self.module)] if kill is None else [str(self.killer), *kill])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "collections")},
        )
        assert process.stdin is not None
        process.stdin.write(
            json.dumps({"ANSIBLE_MODULE_ARGS": {**arguments, "_ansible_check_mode": check, "_ansible_diff": True}})
        )
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, **options: Any) -> dict[str, Any]:
        """The module's answer, failed or not."""
        out, err = self.start(**options).communicate(timeout=300)
        assert out, err
        answer: dict[str, Any] = json.loads(out)
        return answer

    def ok(self, **options: Any) -> dict[str, Any]:
        answer = self.run(**options)
        assert not answer.get("failed"), answer
        return answer

    def fails(self, **options: Any) -> str:
        answer = self.run(**options)
        assert answer.get("failed"), answer
        return str(answer["msg"])

    def journal(self) -> dict[str, Any] | None:
        path = self.work / "journal.json"
        return json.loads(path.read_text()) if path.exists() else None

    def drop(self, *names: str) -> None:
        for name in names:
            with psycopg.connect(self.dsn, dbname="postgres", autocommit=True) as connection:
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def dump(self, database: str, name: str, *options: str) -> Path:
        """A dump of a database of the server, by the image's own pg_dump."""
        path = self.folder / name
        port = str(conninfo_to_dict(self.dsn)["port"])
        inside = f"/tmp/{name}"
        connect = ("-h", "127.0.0.1", "-p", port, "-U", "postgres")
        docker("exec", self.container, "pg_dump", *connect, "-f", inside, *options, database)
        docker("cp", f"{self.container}:{inside}", str(path))
        docker("exec", self.container, "rm", "-r", inside)
        return path


def fill(site: Site, database: str, *, chunks: int, rows: int) -> None:
    """A database with a hypertable, plain tables, views, functions, an enum, a trigger, awkward names and values."""
    site.query(f"CREATE DATABASE {database}")
    site.query("CREATE EXTENSION timescaledb", database)
    for statement in f"""
        CREATE SCHEMA other;
        CREATE TYPE public.side AS ENUM ('buy', 'sell');
        CREATE TABLE public.ticks (
            time timestamptz NOT NULL, id bigint NOT NULL, side public.side, price numeric, "od d" text,
            levels numeric[], UNIQUE (time, id)
        );
        SELECT create_hypertable('public.ticks', 'time', chunk_time_interval => interval '1 day');
        INSERT INTO public.ticks SELECT '2026-01-01'::timestamptz + i * interval '1 day' * {chunks} / {rows},
            i, CASE i % 3 WHEN 0 THEN 'buy' WHEN 1 THEN 'sell' END::public.side,
            (i::numeric / 7)::numeric(30, 20), E'a\\tb\\n\\\\c"''' || i, ARRAY[i, NULL, i / 3.0]
        FROM generate_series(0, {rows} - 1) AS i;
        CREATE INDEX ON public.ticks (id);
        CREATE TABLE other.plain (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL UNIQUE);
        INSERT INTO other.plain (body) SELECT 'x' || i FROM generate_series(1, 500) AS i;
        CREATE VIEW public.latest AS SELECT max(time) AS time FROM public.ticks;
        CREATE FUNCTION public.twice(x numeric) RETURNS numeric LANGUAGE sql RETURN x * 2;
        CREATE MATERIALIZED VIEW other.sides AS SELECT side, count(*) AS rows FROM public.ticks GROUP BY side;
        CREATE TABLE other.child (
            id int PRIMARY KEY REFERENCES other.plain (id) ON DELETE CASCADE, n numeric NOT NULL CHECK (n > 0), at date
        );
        INSERT INTO other.child SELECT id, id / 7.0, '2026-01-01' FROM other.plain;
        CREATE FUNCTION other.stamp() RETURNS trigger LANGUAGE plpgsql
            AS $$BEGIN NEW.at := '2026-02-02'; RETURN NEW; END$$;
        CREATE FUNCTION other.add(x text) RETURNS void LANGUAGE sql AS $$
INSERT INTO other.plain (body) VALUES (x)
$$;
        CREATE TRIGGER stamp BEFORE UPDATE ON other.child FOR EACH ROW EXECUTE FUNCTION other.stamp();
        CREATE SEQUENCE other.counter;
        SELECT setval('other.counter', 41);
        ALTER TABLE public.ticks OWNER TO keeper;
        GRANT SELECT ON public.ticks TO reader;
        GRANT USAGE ON SCHEMA other TO reader;
        GRANT SELECT (id, n) ON other.child TO reader;
        REVOKE EXECUTE ON FUNCTION public.twice FROM PUBLIC
    """.split(";\n"):
        site.query(statement, database)


def kill(victim: str, site: dict[str, Any], tool: str = "restore") -> None:
    """End the victim for real, without warning; ``tool`` is what its one-shot container is for."""
    container = site["container"]
    if victim == "module":
        os.kill(os.getpid(), signal.SIGKILL)
    elif victim == "container":
        docker("kill", container)
    elif victim == "postgres":  # one of its processes: the others end, and it recovers
        dsn = f"host={site['login_host']} port={site['login_port']} user={site['login_user']} dbname=postgres"
        with psycopg.connect(dsn) as connection:
            row = connection.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'").fetchone()
        assert row is not None
        docker("exec", container, "bash", "-c", f"kill -9 {row[0]}")
    else:
        threading.Thread(target=_kill_tool, args=[f"{container}-{tool}"], daemon=True).start()


def _kill_tool(name: str) -> None:
    for _ in range(2000):
        if docker("kill", name, check=False):
            return


def give_again(arguments: str) -> None:
    """Standard input as it was before it was read."""
    reader, writer = os.pipe()
    os.write(writer, arguments.encode())
    os.close(writer)
    os.dup2(reader, 0)


def main() -> None:
    """The module, and a victim that is killed at a phase: what stands on standard error first proves it was."""
    at, victim = sys.argv[1:]
    from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore import engine, journal, restore
    from ansible_collections.cryptopip.marketdata.plugins.modules import tuned_restore

    arguments = sys.stdin.read()
    site = json.loads(arguments)["ANSIBLE_MODULE_ARGS"]
    real, real_write, real_docker = journal.enter, journal.write_journal, engine.__dict__["_docker"]
    killed: list[str] = []

    def reached(phase: str) -> None:
        if phase == at and not killed:
            killed.append(phase)
            print(f"killing {victim} in phase {phase}", file=sys.stderr, flush=True)
            kill(victim, site)

    def enter(folder: Path, journal: journal.Journal, phase: journal.Phase) -> journal.Journal:
        moved = real(folder, journal, phase)
        reached(phase)
        return moved

    def write(folder: Path, journal: journal.Journal) -> None:
        real_write(folder, journal)
        reached(journal.phase)

    def wait(*arguments: str, environment: dict[str, str] | None = None) -> str:
        if arguments[:2] == ("container", "wait"):
            reached("inspect")  # the first program of a run reads the dump
        return str(real_docker(*arguments, environment=environment))

    restore.__dict__.update(enter=enter, write_journal=write)
    engine.__dict__["_docker"] = wait
    give_again(arguments)
    sys.argv = [str(MODULE)]
    tuned_restore.main()


if __name__ == "__main__":
    main()
