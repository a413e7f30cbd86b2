"""Tablespaces of a fetched backup: never those of a cluster that lives beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from cryptopip_wale.durable import make_folder
from cryptopip_wale.errors import WaleError

_LINE = re.compile(r"(\d+) (/[^\\\n]*)")


def parse_map(text: str) -> dict[str, str]:
    """Object id and folder of each tablespace, from the ``spcmapfile`` of pg_backup_stop()."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            raise WaleError("usage", f"the tablespace map has the line {line!r}, expected an id and a path on one line")
        found[match[1]] = match[2]
    return found


def require_visible(data: Path) -> None:
    """Refuse a cluster with a tablespace that is not mounted here: WAL-E would leave it out without a word."""
    for link in (data / "pg_tblspc").iterdir():
        if not link.is_dir():
            raise WaleError(
                "usage", f"{link} leads to {link.readlink()}, which is not there: mount it into the sidecar too"
            )


def place(spaces: Mapping[str, str], folder: Path, *, is_home: bool) -> dict[str, Path]:
    """Where the tablespaces of a backup fetched into ``folder`` go; refuses a place that is in use.

    Home is the server's own data folder: they go back to where they were. Elsewhere each goes beside ``folder``.
    """
    beside = folder.parent / f"{folder.name}.tablespaces"
    places = {oid: Path(path) if is_home else beside / oid for oid, path in spaces.items()}
    for path in places.values():
        if path.is_dir() and any(path.iterdir()):
            raise WaleError("usage", f"{path} is not empty, expected an empty folder for a tablespace: move it away")
    return places


def link(places: Mapping[str, Path], folder: Path) -> None:
    """Make the folders of the tablespaces and the links by which WAL-E fills them."""
    (folder / "pg_tblspc").mkdir(mode=0o700, exist_ok=True)
    for oid, path in places.items():
        make_folder(path)
        (folder / "pg_tblspc" / oid).symlink_to(path)


def write_map(places: Mapping[str, Path], folder: Path) -> None:
    """Have the server find the tablespaces there: it makes its links from this file when recovery begins."""
    (folder / "tablespace_map").write_text("".join(f"{oid} {path}\n" for oid, path in places.items()))
