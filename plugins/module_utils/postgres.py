"""One way for every module to reach PostgreSQL: the options, the connection, and errors that say what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

try:
    import psycopg
except ImportError:  # looked at in connect(), so that documentation and argument checks work without it
    HAS_PSYCOPG = False
else:
    HAS_PSYCOPG = True

if TYPE_CHECKING:
    from psycopg import Connection

CONNECT_TIMEOUT_S = 10


class PostgresError(Exception):
    """The database could not be asked: what was found, what was expected, what to do."""


class UnreachableError(PostgresError):
    """No server answered, or the driver is missing: nothing is known about the database."""


def postgres_argument_spec(**options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The connection options of the doc fragment ``postgres``, together with a module's own."""
    return {
        "login_host": {"type": "str"},
        "login_port": {"type": "int", "default": 5432},
        "login_user": {"type": "str", "default": "postgres"},
        "login_password": {"type": "str", "no_log": True},
        "ssl_mode": {
            "type": "str",
            "default": "prefer",
            "choices": ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"],
        },
        "ca_cert": {"type": "path"},
        **options,
    }


def connection_parameters(options: Mapping[str, Any], database: str) -> dict[str, Any]:
    """libpq's parameters for the options of postgres_argument_spec; what was not given is left to libpq."""
    given = {
        "host": options.get("login_host"),
        "port": options.get("login_port"),
        "user": options.get("login_user"),
        "password": options.get("login_password"),
        "sslmode": options.get("ssl_mode"),
        "sslrootcert": options.get("ca_cert"),
        "dbname": database,
        "connect_timeout": CONNECT_TIMEOUT_S,
        "application_name": "cryptopip ansible",
    }
    return {key: value for key, value in given.items() if value is not None}


def connect(options: Mapping[str, Any], database: str, *, read_only: bool) -> Connection[tuple[Any, ...]]:
    """A connection in autocommit mode that sees schema public only; ``read_only`` makes the server refuse to write.

    Raises UnreachableError where no server answers or psycopg is missing, PostgresError where it refuses.
    """
    if not HAS_PSYCOPG:
        raise UnreachableError(
            "psycopg 3 is not there for the Python that runs modules on this host (ansible_python_interpreter): "
            "expected psycopg >= 3.1; install the package python3-psycopg."
        )
    parameters = connection_parameters(options, database)
    # Without the interval a server goes on with the statement of a client that was killed, holding its locks all along.
    settings = (
        "-c search_path=public -c client_connection_check_interval=1s "
        f"-c default_transaction_read_only={'on' if read_only else 'off'}"
    )
    try:
        # No prepared statements: nothing here runs often, and poolers that share sessions trip over them.
        return psycopg.connect(**parameters, options=settings, autocommit=True, prepare_threshold=None)
    except psycopg.OperationalError as error:
        reason = " ".join(str(error).split())
        server = f"{parameters.get('host', 'the local socket')}, port {parameters['port']}"
        where = f"database {database} on {server}, as {parameters['user']}"
        # libpq gives no SQLSTATE for a failed login. FATAL is the server's word, the others are of talks with one.
        if any(sign in reason for sign in ("FATAL:", "fe_sendauth", "SSL", "certificate")):
            raise PostgresError(
                f"{where}: the server refused the connection: {reason}. Check login_user, login_password, "
                "ssl_mode, ca_cert and the server's pg_hba.conf."
            ) from error
        raise UnreachableError(
            f"{where}: no connection: {reason}. Check that the server runs, and login_host (a folder for a socket) "
            "and login_port."
        ) from error
