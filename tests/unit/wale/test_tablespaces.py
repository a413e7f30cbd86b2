"""Where the tablespaces of a fetched backup go."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptopip_wale import tablespaces
from cryptopip_wale.errors import WaleError


def test_a_map_is_read_line_by_line() -> None:
    assert tablespaces.parse_map("16400 /a b/space\n16401 /other\n") == {"16400": "/a b/space", "16401": "/other"}
    assert tablespaces.parse_map("") == {}


@pytest.mark.parametrize("text", ["16400", "/a", "16400 relative", "16400 /with\\\nnewline"])
def test_what_is_no_map_is_refused(text: str) -> None:
    with pytest.raises(WaleError, match="tablespace map"):
        tablespaces.parse_map(text)


def test_a_live_clusters_tablespace_is_never_used(tmp_path: Path) -> None:
    live = tmp_path / "live"
    (live / "PG_17").mkdir(parents=True)
    spaces, folder = {"16400": str(live)}, tmp_path / "restored"
    assert tablespaces.place(spaces, folder, is_home=False) == {"16400": tmp_path / "restored.tablespaces" / "16400"}
    with pytest.raises(WaleError, match="is not empty"):
        tablespaces.place(spaces, folder, is_home=True)


def test_a_tablespace_that_is_not_mounted_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pg_tblspc").mkdir()
    tablespaces.require_visible(tmp_path)
    (tmp_path / "pg_tblspc" / "16400").symlink_to("/not/mounted")
    with pytest.raises(WaleError, match="mount it into the sidecar"):
        tablespaces.require_visible(tmp_path)
