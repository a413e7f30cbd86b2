"""Each way back undoes exactly its way there, on the real server, for every migration we ship."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.migrate import Wish, migrate
from ansible_collections.cryptopip.marketdata.plugins.module_utils.migrations import Migration, read_migrations
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

SQL = Path(__file__).resolve().parents[2] / "files" / "sql"
KINDS = ["ingestor", "datalake", "app"]

# Everything a migration can leave behind in schema public, one row a thing. pg_dump says the same with a client of the
# server's own version, which the control node may not have.
CATALOG = """
SELECT 'relation', relname, relkind::text || coalesce(relacl::text, '') || coalesce(reloptions::text, '')
FROM pg_class WHERE relnamespace = 'public'::regnamespace
UNION ALL SELECT 'column', attrelid::regclass || '.' || attname,
    concat_ws(' ', attnum, format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated, attacl,
              pg_get_expr(adbin, adrelid))
FROM pg_attribute INNER JOIN pg_class ON pg_class.oid = attrelid
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped
UNION ALL SELECT 'constraint', conrelid::regclass || ' ' || conname, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT 'view', viewname, definition FROM pg_views WHERE schemaname = 'public'
UNION ALL SELECT 'function', p.oid::regprocedure::text, pg_get_functiondef(p.oid) || coalesce(proacl::text, '')
FROM pg_proc AS p WHERE pronamespace = 'public'::regnamespace AND prokind IN ('f', 'p')
UNION ALL SELECT 'type', typname, typtype::text FROM pg_type WHERE typnamespace = 'public'::regnamespace
UNION ALL SELECT 'trigger', tgrelid::regclass || ' ' || tgname, pg_get_triggerdef(t.oid)
FROM pg_trigger AS t INNER JOIN pg_class AS c ON c.oid = tgrelid
WHERE relnamespace = 'public'::regnamespace AND NOT tgisinternal
UNION ALL SELECT 'comment', classoid::regclass || ' ' || pg_describe_object(classoid, objoid, objsubid), description
FROM pg_description WHERE objoid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)
UNION ALL SELECT 'schema', nspname, concat(nspacl) FROM pg_namespace WHERE nspname !~ '^(pg_|_timescaledb|timescaledb)'
UNION ALL SELECT 'extension', extname, extnamespace::regnamespace::text FROM pg_extension
"""
HYPERTABLES = """
UNION ALL SELECT 'hypertable', hypertable_name, column_name || coalesce(time_interval::text, integer_interval::text)
FROM timescaledb_information.dimensions
UNION ALL SELECT 'job', proc_name, coalesce(config::text, '') FROM timescaledb_information.jobs
WHERE proc_schema = 'public'
"""


def migrations_of(kind: str) -> list[Migration]:
    """The collection's migrations of a kind."""
    migrations: list[Migration] = read_migrations({file.name: file.read_bytes() for file in (SQL / kind).iterdir()})
    return migrations


@pytest.fixture
def database(server_dsn: str) -> Iterator[tuple[str, str]]:
    """Names of a database to be made and of its owner; dropped when done."""
    name = f"lint_{uuid.uuid4().hex[:12]}"
    yield name, f"{name}_owner"
    with psycopg.connect(server_dsn, dbname="postgres", autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        admin.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(f"{name}_owner")))


@pytest.mark.database
@pytest.mark.parametrize("kind", KINDS)
def test_every_way_back_undoes_exactly_its_way_there(kind: str, server_dsn: str, database: tuple[str, str]) -> None:
    name, owner = database
    server = conninfo_to_dict(server_dsn)
    login: dict[str, Any] = {
        f"login_{key}": server[key] for key in ("host", "port", "user", "password") if key in server
    }
    migrations = migrations_of(kind)

    def go(version: int) -> dict[tuple[str, str], str]:
        wish = Wish(name, "latest", version, community=False, timescaledb=kind != "app", owner=owner)
        migrate(login, wish, migrations, check=False, done=[])
        with psycopg.connect(make_conninfo(server_dsn, dbname=name)) as connection:
            rows = connection.execute((CATALOG + (HYPERTABLES if kind != "app" else "")).encode()).fetchall()
        return {(what, which): definition for what, which, definition in rows if "schema_migrations" not in which}

    schemas = [go(version) for version in range(len(migrations) + 1)]
    assert len(schemas[-1]) > len(schemas[0])
    for version in reversed(range(len(migrations))):
        assert go(version) == schemas[version], f"{migrations[version].down.file} does not undo its up file"
    assert go(len(migrations)) == schemas[-1], "all up again is not the same schema"
