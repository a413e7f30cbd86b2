"""Fetching a dump from a URL or an rclone remote: resumed where it broke off, and never an HTML page in its place.

What has come so far lies in the work path as ``dump.part`` beside ``dump.part.json``, which says of what it is a
part. Only a part of the same thing (source, size, and what tells versions of it apart) is gone on with.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from .dump import DumpError
from .source import looks_like_html

BLOCK = 1 << 20
TIMEOUT_S = 60.0
FETCHED, PART, NOTE = "dump.fetched", "dump.part", "dump.part.json"
_URL = re.compile(r"https?://", re.IGNORECASE)
_REMOTE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. +@-]*:(?!//)")


@dataclass(frozen=True)
class Remote:
    """A dump elsewhere; ``size`` in bytes, None where nobody tells; ``version`` changes when its contents do."""

    source: str
    size: int | None
    version: str | None


def is_remote(source: str) -> bool:
    """Whether a source is to be fetched first."""
    return bool(_URL.match(source)) or (bool(_REMOTE.match(source)) and not source.startswith("/"))


def look(source: str, config: str | None) -> Remote:
    """What lies there, without fetching it. Raises DumpError where it is not there, or an HTML page."""
    if not _URL.match(source):
        told = json.loads(_rclone(["lsjson", "--stat", "--", source], config))
        if told is None or told.get("IsDir"):
            raise DumpError(
                f"{source} is {'a folder' if told else 'not there'}, expected a file: copy a dump in directory format "
                "to the host with rclone, and give its path."
            )
        return Remote(source, int(told["Size"]) if told["Size"] >= 0 else None, told.get("ModTime"))
    with _http(source, "HEAD", 0, None) as answer:
        length = answer.headers.get("Content-Length")
        version = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        return Remote(source, int(length) if length is not None else None, version)


def fetch(remote: Remote, folder: Path, config: str | None) -> Path:
    """The dump as a file in the folder, gone on with where an earlier run broke off. Raises DumpError."""
    fetched, part, note = folder / FETCHED, folder / PART, folder / NOTE
    told = _read_note(note)
    if told != asdict(remote):
        remove_fetched(folder)
        note.write_text(json.dumps(asdict(remote)))
    if fetched.exists():
        return fetched
    # Without a size or version there is no telling whether more of the same comes.
    resumable = remote.size is not None and remote.version is not None
    offset = part.stat().st_size if part.exists() and resumable else 0
    _check_room(folder, remote, offset)
    try:
        if remote.size is None or offset < remote.size:
            _receive(remote, part, offset, config)
    except (OSError, http.client.HTTPException) as error:
        raise DumpError(
            f"{remote.source}: broke off after {part.stat().st_size if part.exists() else 0} of {remote.size} bytes: "
            f"{error}. Run again, it goes on from there."
        ) from error
    size = part.stat().st_size
    if remote.size is not None and size != remote.size:
        if size > remote.size:
            part.unlink()
        raise DumpError(
            f"{remote.source}: {size} bytes came, expected {remote.size}. Run again"
            + (", it goes on from there." if size < remote.size else " from the beginning.")
        )
    part.rename(fetched)
    return fetched


def remove_fetched(folder: Path) -> None:
    """Take away what was fetched, whole or in part."""
    for name in (FETCHED, PART, NOTE):
        (folder / name).unlink(missing_ok=True)


def _receive(remote: Remote, part: Path, offset: int, config: str | None) -> None:
    with contextlib.ExitStack() as stack:
        if _URL.match(remote.source):
            answer = stack.enter_context(_http(remote.source, "GET", offset, remote.version))
            if answer.status != http.client.PARTIAL_CONTENT:
                offset = 0  # the server begins anew, since it knows no ranges or has another version
            stream: IO[bytes] = answer
        else:
            command = ["cat", f"--offset={offset}", "--", remote.source]
            stream = stack.enter_context(_rclone_stream(command, config))
        first = stream.read(BLOCK)
        if offset == 0 and looks_like_html(first):
            raise DumpError(_html(remote.source))
        with part.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(first)
            shutil.copyfileobj(stream, file, BLOCK)


def _check_room(folder: Path, remote: Remote, offset: int) -> None:
    free = shutil.disk_usage(folder).free
    if remote.size is not None and free < remote.size - offset:
        raise DumpError(
            f"{folder} has {free >> 20} MB free, {remote.source} takes {(remote.size - offset) >> 20} MB more: make "
            "room there, or give work_path a folder with room."
        )


def _read_note(note: Path) -> object:
    try:
        return json.loads(note.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _html(source: str) -> str:
    return (
        f"{source} answers an HTML page, expected a dump: it is a page to look at (a consent, a log-in, or Google "
        "Drive's warning of large files), not the file. Nothing of it was kept. Use the link's direct form, or an "
        "rclone remote."
    )


@contextlib.contextmanager
def _http(url: str, method: str, offset: int, version: str | None) -> Iterator[http.client.HTTPResponse]:
    headers = {"Accept-Encoding": "identity", "User-Agent": "cryptopip"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if version:
            headers["If-Range"] = version
    request = urllib.request.Request(url, method=method, headers=headers)  # noqa: S310 - http and https only, by _URL
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310
    except urllib.error.URLError as error:
        reason = f"{error.code} {error.reason}" if isinstance(error, urllib.error.HTTPError) else str(error.reason)
        raise DumpError(f"{url}: {reason}: check source, and that this host reaches it.") from error
    with answer:
        if answer.headers.get_content_type() in {"text/html", "application/xhtml+xml"}:
            raise DumpError(_html(url))
        yield answer


def _command(arguments: list[str], config: str | None) -> list[str]:
    return ["rclone", *(["--config", config] if config else []), *arguments]


def _rclone(arguments: list[str], config: str | None) -> str:
    with _no_rclone():
        done = subprocess.run(_command(arguments, config), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DumpError(f"rclone {arguments[0]} {arguments[-1]}: {_last_line(done.stderr)}")
    return done.stdout


@contextlib.contextmanager
def _rclone_stream(arguments: list[str], config: str | None) -> Iterator[IO[bytes]]:
    with _no_rclone():
        process = subprocess.Popen(_command(arguments, config), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        yield process.stdout
        said = process.stderr.read().decode(errors="replace")
        if process.wait() != 0:
            raise ConnectionError(f"rclone: {_last_line(said)}")


@contextlib.contextmanager
def _no_rclone() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise DumpError("the program rclone is not there, expected it to fetch the dump: install rclone.") from error


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"
