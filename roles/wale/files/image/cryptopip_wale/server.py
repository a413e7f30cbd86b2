"""Archive push and fetch over HTTP on a Unix socket: POST and GET /wal/NAME with a bearer token."""

from __future__ import annotations

import hmac
import shutil
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler

from cryptopip_wale.archive import fetch, push
from cryptopip_wale.codec import ensure_keys
from cryptopip_wale.config import Config, read_config
from cryptopip_wale.durable import make_folder
from cryptopip_wale.errors import WaleError
from cryptopip_wale.s3 import read_credentials
from cryptopip_wale.store import open_store

STATUS = {
    "not_found": HTTPStatus.NOT_FOUND,
    "different": HTTPStatus.CONFLICT,
    "foreign": HTTPStatus.CONFLICT,
    "usage": HTTPStatus.BAD_REQUEST,
}


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """One thread a request; pushes are taken one at a time, as the archiver sends them."""

    daemon_threads = True

    def __init__(self, config: Config, token: str) -> None:
        self.config = config
        self.token = token
        self.pushing = threading.Lock()
        super().__init__(str(config.socket), Handler)


class Handler(BaseHTTPRequestHandler):
    """Answers PostgreSQL's archive and restore helper."""

    server: Server
    timeout = 30  # s without a byte from the client

    def address_string(self) -> str:
        """For the log: a Unix socket's client has no address."""
        return "postgresql"

    def do_POST(self) -> None:
        """Archive a file of pg_wal; 200 once it is durable."""
        self._answer(self._push)

    def do_GET(self) -> None:
        """Send an archived file; 404 only where the archive is readable and lacks it."""
        self._answer(lambda name: fetch(open_store(self.server.config), name))

    def _push(self, name: str) -> bytes:
        with self.server.pushing:
            return push(self.server.config, open_store(self.server.config), name).encode()

    def _answer(self, work: Callable[[str], bytes]) -> None:
        sent = self.headers.get("Authorization", "")
        if not hmac.compare_digest(sent.encode(), f"Bearer {self.server.token}".encode()):
            self._send(HTTPStatus.UNAUTHORIZED, b"the token is missing or wrong: run the wale role again")
            return
        if not self.path.startswith("/wal/"):
            self._send(HTTPStatus.BAD_REQUEST, f"the path is {self.path}, expected /wal/NAME".encode())
            return
        try:
            self._send(HTTPStatus.OK, work(self.path.removeprefix("/wal/")))
        except WaleError as error:
            self._send(STATUS.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR), str(error).encode())
        except (OSError, subprocess.SubprocessError) as error:
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}".encode())

    def _send(self, status: HTTPStatus, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until stopped."""
    try:
        config = read_config()
        ensure_keys(config)
        if config.s3:
            read_credentials(config.s3.credentials_file)
    except WaleError as error:
        sys.exit(f"cryptopip-wale: {error}")
    token = config.token_file.read_text().strip()
    if len(token) < 32:
        sys.exit(
            f"cryptopip-wale: {config.token_file} holds {len(token)} characters, expected at least 32: "
            "run the wale role again"
        )
    if config.scratch.exists():
        shutil.rmtree(config.scratch)  # what an earlier life left half-written
    make_folder(config.scratch)
    config.socket.unlink(missing_ok=True)
    where = f"s3://{config.s3.bucket}" if config.s3 else config.store
    with Server(config, token) as server:
        sys.stderr.write(f"cryptopip-wale: serving {config.socket} into {where}\n")
        server.serve_forever()


if __name__ == "__main__":
    main()
