"""The server's side of a restore: what it runs with, changing and taking back settings, databases, their names."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..postgres import PostgresError, UnreachableError, connect
from .settings import LIST_SETTINGS, Change, Running, revert_order

with contextlib.suppress(ImportError):  # connect() says so before anything here needs it
    from psycopg import sql

if TYPE_CHECKING:
    from psycopg import Connection

    Database = Connection[tuple[Any, ...]]

MAINTENANCE_DATABASE = "postgres"
MARKER = "cryptopip.restored_from"
"""A setting of the restored database: the SHA-256 of its dump. It goes with the database, whatever its name."""

NOT_INHERITED = frozenset({MARKER, "timescaledb.restoring"})
"""Settings of a database that say something of it alone."""

SESSION = "cryptopip tuned_restore"
"""Application name of every session of a restore, those of its one-shot containers too; one runs at a time."""

RELOAD_TIMEOUT_S = 60.0
START_TIMEOUT_S = 600.0  # crash recovery counts too


class ServerError(Exception):
    """The server did not do as asked: what was found, expected, and what to do."""


def open_session(options: Mapping[str, Any], database: str, *, read_only: bool) -> Database:
    """A connection under the name by which ``end_sessions`` knows it."""
    connection = connect(options, database, read_only=read_only)
    connection.execute("SELECT set_config('application_name', %s, false)", [SESSION])
    return connection


def end_sessions(connection: Database) -> None:
    """End what sessions of a run before this one still do: a statement may outlive the client that asked for it."""
    sessions = "application_name = %s AND pid <> pg_backend_pid()"
    connection.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {sessions}",  # noqa: S608
        [SESSION],
    )
    _until(
        lambda: _value(connection, f"SELECT count(*) FROM pg_stat_activity WHERE {sessions}", [SESSION]) == 0,  # noqa: S608
        RELOAD_TIMEOUT_S,
        "sessions of an earlier restore did not end",
    )


def running_settings(connection: Database, names: Iterable[str]) -> dict[str, Running]:
    """pg_settings of these names."""
    rows = connection.execute(
        "SELECT name, setting, unit, context, source, vartype FROM pg_settings WHERE name = ANY(%s)", [list(names)]
    )
    return {name: Running(value, unit, context, source, kind) for name, value, unit, context, source, kind in rows}


def auto_conf(connection: Database) -> dict[str, str]:
    """What ALTER SYSTEM has set: postgresql.auto.conf, as the server itself reads it."""
    rows = connection.execute(
        "SELECT name, setting FROM pg_file_settings "
        "WHERE sourcefile = current_setting('data_directory') || '/postgresql.auto.conf' ORDER BY seqno"
    )
    return {name: value for name, value in rows if value is not None}


def system_identifier(connection: Database) -> str:
    """The cluster's own number, given by initdb."""
    return str(_value(connection, "SELECT system_identifier FROM pg_control_system()"))


def is_superuser(connection: Database) -> bool:
    """Whether the session may do anything."""
    return bool(_value(connection, "SELECT current_setting('is_superuser') = 'on'"))


def databases(connection: Database) -> dict[str, str | None]:
    """Each database with the checksum of the dump it was restored from, None where it was not."""
    rows = connection.execute(
        "SELECT datname, (SELECT substr(setting, length(%(marker)s) + 2) FROM pg_db_role_setting, unnest(setconfig) "
        "AS setting WHERE setdatabase = d.oid AND setrole = 0 AND setting LIKE %(marker)s || '=%%') "
        "FROM pg_database AS d ORDER BY datname",
        {"marker": MARKER},
    )
    return dict(rows.fetchall())


def user_databases(connection: Database, without: Iterable[str]) -> list[str]:
    """Databases that somebody may keep data in, but for those named."""
    spared = {"template0", "template1", MAINTENANCE_DATABASE, *without}
    return [name for name in databases(connection) if name not in spared]


def roles(connection: Database) -> frozenset[str]:
    """Every role of the cluster."""
    return frozenset(name for (name,) in connection.execute("SELECT rolname FROM pg_roles"))


def available_extensions(connection: Database) -> dict[str, frozenset[str]]:
    """Extension -> versions that the server can create."""
    rows = connection.execute("SELECT name, array_agg(version) FROM pg_available_extension_versions GROUP BY name")
    return {name: frozenset(versions) for name, versions in rows}


def owner_of(connection: Database, database: str) -> str | None:
    """Who owns the database, None where there is none."""
    rows = connection.execute(
        "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", [database]
    ).fetchall()
    return rows[0][0] if rows else None


def apply_settings(connection: Database, changes: Iterable[Change]) -> None:
    """ALTER SYSTEM SET each and reload; what takes a restart waits for it."""
    for change in changes:
        alter_system(connection, change.name, change.value)
    reload(connection)


def take_back_settings(connection: Database, changes: Iterable[Change]) -> None:
    """Each setting to its prior value or to none, one by one, reload, and all that was written onto the disk."""
    by_name = {change.name: change for change in changes}
    for name in revert_order(by_name):
        alter_system(connection, name, by_name[name].prior)
    reload(connection)
    connection.execute("CHECKPOINT")
    # What was written while fsync was off is in no checkpoint's list; the host's own dirty pages hold it.
    os.sync()


def alter_system(connection: Database, name: str, value: str | None) -> None:
    """ALTER SYSTEM SET, or RESET where there is no value."""
    identifier = sql.Identifier(*name.split("."))
    if value is None:
        connection.execute(sql.SQL("ALTER SYSTEM RESET {}").format(identifier))
    else:
        connection.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(identifier, sql.Literal(value)))


def reload(connection: Database) -> None:
    """Have the server read its files, and wait until it has."""
    before = _value(connection, "SELECT pg_conf_load_time()")
    connection.execute("SELECT pg_reload_conf()")
    _until(
        lambda: _value(connection, "SELECT pg_conf_load_time()") != before,
        RELOAD_TIMEOUT_S,
        "the server has not read its settings anew",
    )


def pending_restart(connection: Database, names: Iterable[str]) -> list[str]:
    """Which of the settings wait for a restart."""
    rows = connection.execute(
        "SELECT name FROM pg_settings WHERE pending_restart AND name = ANY(%s) ORDER BY name", [list(names)]
    )
    return [name for (name,) in rows]


def wait_for_server(options: Mapping[str, Any]) -> Database:
    """A connection to the server once it takes one. Raises what kept it from that until the deadline."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            return open_session(options, MAINTENANCE_DATABASE, read_only=False)
        except UnreachableError:
            if time.monotonic() > deadline:
                raise
        except PostgresError as error:
            starting = any(sign in str(error) for sign in ("starting up", "shutting down", "recovery"))
            if not starting or time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def create_database(connection: Database, name: str, owner: str) -> None:
    """A new, empty database in UTF-8."""
    connection.execute(
        sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8'").format(
            sql.Identifier(name), sql.Identifier(owner)
        )
    )


def drop_database(connection: Database, name: str) -> None:
    """End whoever is connected and drop it; nothing where there is none."""
    if name in databases(connection):
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def set_marker(connection: Database, name: str, checksum: str) -> None:
    """Note of a database which dump it was restored from."""
    connection.execute(
        sql.SQL("ALTER DATABASE {} SET {} = {}").format(
            sql.Identifier(name), sql.Identifier(*MARKER.split(".")), sql.Literal(checksum)
        )
    )


def renew_incarnation(connection: Database) -> bool:
    """Begin a new life where the database is an ingestor's; whether it is one.

    The loader goes on from the dump's position and may number its batches otherwise than before. Under the old
    incarnation sync would take them for those it has merged already, and leave out what is in them.
    """
    is_ingestor = bool(
        _value(
            connection,
            "SELECT to_regclass('public.incarnation') IS NOT NULL AND to_regclass('public.load_batches') IS NOT NULL",
        )
    )
    if is_ingestor:
        connection.execute("UPDATE public.incarnation SET id = gen_random_uuid()")
    return is_ingestor


def inherit(connection: Database, old: str, new: str) -> None:
    """Give a database the rights on it and the settings of it that another has: no dump of one database holds them."""
    with connection.transaction():
        _inherit_rights(connection, old, new)
        rows = connection.execute(
            "SELECT CASE WHEN setrole <> 0 THEN pg_get_userbyid(setrole) END, split_part(setting, '=', 1), "
            "substr(setting, strpos(setting, '=') + 1) FROM pg_db_role_setting, unnest(setconfig) AS setting "
            "WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = %s)",
            [old],
        ).fetchall()
        for role, name, value in rows:
            if name in NOT_INHERITED:
                continue
            whose = sql.SQL("ALTER DATABASE {}").format(sql.Identifier(new))
            if role is not None:
                whose = sql.SQL("ALTER ROLE {} IN DATABASE {}").format(sql.Identifier(role), sql.Identifier(new))
            how = sql.SQL(" SET {} TO {}").format(sql.Identifier(*name.split(".")), sql.Literal(value))
            if name.lower() in LIST_SETTINGS:  # a list of quoted names, which as one string would be one name
                connection.execute("SELECT set_config(%s, %s, true)", [name, value])
                how = sql.SQL(" SET {} FROM CURRENT").format(sql.Identifier(name))
            connection.execute(whose + how)


def _inherit_rights(connection: Database, old: str, new: str) -> None:
    database = sql.Identifier(new)
    row = connection.execute("SELECT datacl IS NOT NULL FROM pg_database WHERE datname = %s", [old]).fetchone()
    if row != (True,):
        return  # as by default
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
    rows = connection.execute(
        "SELECT CASE WHEN grantee <> 0 THEN pg_get_userbyid(grantee) END, privilege_type, is_grantable "
        "FROM pg_database, aclexplode(datacl) WHERE datname = %s AND grantee <> datdba",
        [old],
    ).fetchall()
    for role, right, is_grantable in rows:
        to = sql.SQL("PUBLIC") if role is None else sql.Identifier(role)
        further = sql.SQL(" WITH GRANT OPTION" if is_grantable else "")
        connection.execute(sql.SQL("GRANT {} ON DATABASE {} TO {}").format(sql.SQL(right), database, to) + further)


def stop_workers(options: Mapping[str, Any], database: str) -> None:
    """Have TimescaleDB's launcher leave the database alone, so that it can be renamed."""
    with open_session(options, database, read_only=False) as connection:
        if _has_timescaledb(connection):
            connection.execute("SELECT _timescaledb_functions.stop_background_workers()")


def start_workers(options: Mapping[str, Any], database: str, *, timeout_s: float = 30.0) -> bool | None:
    """Have TimescaleDB's scheduler run in the database; whether it was seen, None where it has no TimescaleDB."""
    with open_session(options, database, read_only=False) as connection:
        if not _has_timescaledb(connection):
            return None
        connection.execute("SELECT _timescaledb_functions.start_background_workers()")
        try:
            _until(
                lambda: bool(
                    _value(
                        connection,
                        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                        "AND backend_type ILIKE '%%TimescaleDB%%Scheduler%%'",
                    )
                ),
                timeout_s,
                "no scheduler seen",
            )
        except ServerError:
            return False
        return True


def allow_connections(connection: Database, name: str, *, allowed: bool) -> None:
    """Whether anybody may connect to the database."""
    connection.execute(
        sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}").format(
            sql.Identifier(name), sql.SQL("true" if allowed else "false")
        )
    )


def end_connections(connection: Database, name: str) -> int:
    """End every connection to the database, and wait until they are gone; how many there were."""
    ended = connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()", [name]
    ).rowcount
    _until(
        lambda: _value(connection, "SELECT count(*) FROM pg_stat_activity WHERE datname = %s", [name]) == 0,
        RELOAD_TIMEOUT_S,
        f"connections to {name} did not end",
    )
    return ended


def rename(connection: Database, names: Iterable[tuple[str, str]]) -> None:
    """Give databases their new names, all or none."""
    with connection.transaction():
        for old, new in names:
            connection.execute(
                sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(old), sql.Identifier(new))
            )


def _has_timescaledb(connection: Database) -> bool:
    return bool(_value(connection, "SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'"))


def _value(connection: Database, query: str, parameters: list[Any] | None = None) -> Any:
    row = connection.execute(query.encode(), parameters or []).fetchone()
    assert row is not None
    return row[0]


def _until(holds: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise ServerError(f"{otherwise} within {timeout_s:g} s; look into the server's log.")
        time.sleep(0.05)
