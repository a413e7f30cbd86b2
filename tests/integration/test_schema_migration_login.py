"""schema_migration at a server that asks for passwords: the image that hosts run, in a container of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.postgres import (
    PostgresError,
    UnreachableError,
    connect,
)

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "roles" / "timescaledb" / "files" / "image"
IMAGE = "cryptopip-timescaledb:apache"

pytestmark = pytest.mark.database


def docker(*arguments: str) -> str:
    """Standard output of the docker command."""
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.fixture(scope="module")
def login(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Connection options of a server whose superuser has a password, the right one among them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    conf = tmp_path_factory.mktemp("conf")
    for name in ("postgresql.conf", "pg_ident.conf"):
        shutil.copy(FILES / name, conf / name)
    with (conf / "postgresql.conf").open("a") as settings:
        settings.write(f"port = {port}\nshared_buffers = 32MB\nfsync = off\n")
    (conf / "pg_hba.conf").write_text("local all postgres peer\nhost all all 127.0.0.1/32 scram-sha-256\n")
    for path in (conf, *conf.iterdir()):
        path.chmod(path.stat().st_mode | 0o555)
    name = f"sql-login-{uuid.uuid4().hex[:12]}"
    volumes = ["--volume", f"{conf}:/etc/cryptopip/postgresql:ro", "--volume", "/var/lib/postgresql"]
    docker("run", "--detach", "--name", name, "--network", "host", *volumes, IMAGE)
    try:
        psql = ["exec", name, "psql", "--no-psqlrc", "--port", str(port), "--command"]
        _await(lambda: docker(*psql, "ALTER ROLE postgres PASSWORD 'the right one'"))
        server = {"login_host": "127.0.0.1", "login_port": port, "login_user": "postgres"}
        yield {**server, "login_password": "the right one"}
    finally:
        docker("rm", "--force", "--volumes", name)


def _await(attempt: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            attempt()
        except subprocess.CalledProcessError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def test_the_right_password_gets_in_and_check_mode_cannot_write(login: dict[str, Any]) -> None:
    with connect(login, "postgres", read_only=False) as connection:
        assert connection.execute("SHOW search_path").fetchone() == ("public",)
    with (
        connect(login, "postgres", read_only=True) as connection,
        pytest.raises(Exception, match="read-only transaction"),
    ):
        connection.execute("CREATE TABLE t (x integer)")


@pytest.mark.parametrize("password", ["a wrong one", None])
def test_a_wrong_or_missing_password_is_a_refusal_that_says_what_to_look_at(
    login: dict[str, Any], password: str | None
) -> None:
    with pytest.raises(PostgresError, match="Check login_user, login_password") as refused:
        connect({**login, "login_password": password}, "postgres", read_only=False)
    assert not isinstance(refused.value, UnreachableError)
    assert "wrong one" not in str(refused.value)


def test_tls_that_the_server_does_not_offer_is_a_refusal_too(login: dict[str, Any]) -> None:
    with pytest.raises(PostgresError, match="SSL") as refused:
        connect({**login, "ssl_mode": "require"}, "postgres", read_only=False)
    assert not isinstance(refused.value, UnreachableError)


def test_a_port_where_nobody_listens_is_unreachable(login: dict[str, Any]) -> None:
    with pytest.raises(UnreachableError, match="Check that the server runs"):
        connect({**login, "login_port": 1}, "postgres", read_only=False)
