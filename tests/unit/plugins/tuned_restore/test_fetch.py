"""Fetching a dump over real sockets, from a server that can break off, and through the real rclone."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.dump import DumpError
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.fetch import (
    FETCHED,
    fetch,
    is_remote,
    look,
    remove_fetched,
)

DATA = b"PGDMP" + hashlib.sha256(b"seed").digest() * 200_000


@dataclass
class Served:
    """What the server answers: once it closes after ``breaks_at`` bytes of the file; ``asked`` are the ranges asked."""

    data: bytes = DATA
    content_type: str = "application/octet-stream"
    etag: str = '"1"'
    breaks_at: int | None = None
    knows_ranges: bool = True
    status: int = 200
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def served() -> Iterator[Served]:
    state = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(0, with_body=False)

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.asked.append(asked)
            same = self.headers.get("If-Range") in {None, state.etag}
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.knows_ranges and same else 0
            self.answer(start, with_body=True)

        def answer(self, start: int, *, with_body: bool) -> None:
            self.send_response(206 if start else state.status)
            self.send_header("Content-Type", state.content_type)
            self.send_header("Content-Length", str(len(state.data) - start))
            if state.etag:
                self.send_header("ETag", state.etag)
            self.end_headers()
            if not with_body:
                return
            end, state.breaks_at = state.breaks_at, None
            self.wfile.write(state.data[start:end])
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/lake.dump"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("source", "remote"),
    [
        ("https://example.org/x", True),
        ("HTTP://example.org/x", True),
        ("gdrive:backups/x.dump", True),
        ("/backups/a:b.dump", False),
        ("/backups/x.dump", False),
        ("~/x.dump", False),
    ],
)
def test_urls_and_remotes_are_told_from_paths(source: str, remote: bool) -> None:
    assert is_remote(source) is remote


def test_a_download_goes_on_where_it_broke_off(served: Served, tmp_path: Path) -> None:
    served.breaks_at = 3_000_000
    remote = look(served.url, None)
    assert remote.size == len(DATA)
    with pytest.raises(DumpError, match=f"3000000 bytes came, expected {len(DATA)}"):
        fetch(remote, tmp_path, None)
    path = fetch(look(served.url, None), tmp_path, None)
    assert path.read_bytes() == DATA
    assert served.asked == [None, "bytes=3000000-"]
    assert fetch(look(served.url, None), tmp_path, None) == path
    assert len(served.asked) == 2, "what is whole is not fetched again"
    remove_fetched(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["another version", "no ranges", "no version"])
def test_a_part_of_another_version_or_of_who_knows_what_is_not_gone_on_with(
    served: Served, tmp_path: Path, how: str
) -> None:
    served.breaks_at = 3_000_000
    if how == "no version":
        served.etag = ""
    with pytest.raises(DumpError):
        fetch(look(served.url, None), tmp_path, None)
    if how == "another version":
        served.etag, served.data = '"2"', DATA[::-1]
    elif how == "no ranges":
        served.knows_ranges = False
    assert fetch(look(served.url, None), tmp_path, None).read_bytes() == served.data


def test_a_version_that_changes_between_asking_and_fetching_begins_anew(served: Served, tmp_path: Path) -> None:
    served.breaks_at = 3_000_000
    remote = look(served.url, None)
    with pytest.raises(DumpError):
        fetch(remote, tmp_path, None)
    served.etag, served.data = '"2"', DATA[::-1]
    assert fetch(remote, tmp_path, None).read_bytes() == served.data


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/octet-stream"])
def test_an_html_page_is_refused_and_never_saved(served: Served, tmp_path: Path, content_type: str) -> None:
    served.data, served.content_type = b"<!DOCTYPE html><title>Virus scan warning</title>", content_type
    with pytest.raises(DumpError, match="HTML page"):
        fetch(look(served.url, None), tmp_path, None)
    assert not [file for file in tmp_path.iterdir() if file.name == FETCHED or "html" in file.read_text().lower()]


def test_a_server_that_refuses_or_is_not_there_is_told_of(served: Served, tmp_path: Path) -> None:
    served.status = 404
    with pytest.raises(DumpError, match="404"):
        look(served.url, None)
    with pytest.raises(DumpError, match="refused"):
        look("http://127.0.0.1:1/x", None)


def test_too_little_room_is_found_before_a_byte_is_fetched(served: Served, tmp_path: Path) -> None:
    remote = replace(look(served.url, None), size=1 << 60)
    with pytest.raises(DumpError, match="MB free"):
        fetch(remote, tmp_path, None)
    assert served.asked == []


@pytest.mark.skipif(shutil.which("rclone") is None, reason="no rclone here")
def test_an_rclone_remote_is_fetched_and_gone_on_with(tmp_path: Path) -> None:
    store, work, config = tmp_path / "store", tmp_path / "work", tmp_path / "rclone.conf"
    store.mkdir()
    work.mkdir()
    (store / "lake.dump").write_bytes(DATA)
    config.write_text(f"[far]\ntype = alias\nremote = {store}\n")
    remote = look("far:lake.dump", str(config))
    assert remote.size == len(DATA)
    path = fetch(remote, work, str(config))
    assert path.read_bytes() == DATA
    path.rename(work / "dump.part")
    with (work / "dump.part").open("r+b") as file:
        file.truncate(3_000_000)
        file.seek(10)
        file.write(b"kept as it was")  # so that one sees the part was gone on with, not fetched anew
    again = fetch(remote, work, str(config)).read_bytes()
    assert again[10:24] == b"kept as it was"
    assert again[3_000_000:] == DATA[3_000_000:]
    for source, says in (("far:none", "not there|not found"), ("far:", "folder"), ("near:x", "near")):
        with pytest.raises(DumpError, match=says):
            look(source, str(config))
