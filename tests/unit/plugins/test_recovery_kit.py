"""A recovery kit is what it was made of, to the byte, or it says what is wrong with it."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.recovery_kit import (
    MANIFEST,
    File,
    KitError,
    changes,
    collect,
    listing,
    pack,
    put_back,
    unpack,
)
from hypothesis import given
from hypothesis import strategies as st

PARTS = st.text("abc._-", min_size=1, max_size=6).filter(lambda part: part not in (".", ".."))
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join).filter(lambda name: name != MANIFEST)
FILES = st.dictionaries(NAMES, st.builds(File, st.binary(max_size=200), st.booleans()), max_size=6)
KIT = {"hosts.yml": File(b"all:\n"), "ca/ca.key": File(b"secret"), "bin/list": File(b"#!/bin/sh\n", is_program=True)}


def entries(packed: bytes) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    """The members of a .tar.gz."""
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        return {member.name: (member, getattr(tar.extractfile(member), "read", bytes)()) for member in tar}


def packed_of(members: dict[str, tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """The other way round."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for member, content in members.values():
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@given(FILES)
def test_what_was_packed_comes_out(files: dict[str, File]) -> None:
    assert unpack(pack(files)) == files


@given(FILES, FILES)
def test_changes_lead_from_one_to_the_other(before: dict[str, File], after: dict[str, File]) -> None:
    found = changes(before, after)
    assert (found == {}) == (before == after)
    assert {name for name, what in found.items() if what == "added"} == after.keys() - before.keys()
    assert {name for name, what in found.items() if what == "removed"} == before.keys() - after.keys()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("ca/ca.key", b"Secret", "ca/ca.key: damaged"),
        ("ca/ca.key", None, "ca/ca.key: missing"),
        ("stranger", b"x", "stranger: not in the manifest"),
    ],
)
def test_what_differs_from_the_manifest_is_named(name: str, content: bytes | None, said: str) -> None:
    members = entries(pack(KIT))
    if content is None:
        del members[name]
    else:
        members[name] = (tarfile.TarInfo(name), content)
    with pytest.raises(KitError) as caught:
        unpack(packed_of(members))
    assert caught.value.problems == (said,)


@pytest.mark.parametrize("name", ["../over", "/etc/passwd", "a/../../b", "a//b", "./a"])
def test_a_path_that_leaves_the_kit_is_refused(name: str) -> None:
    members = entries(pack(KIT))
    members[name] = (tarfile.TarInfo(name), b"x")
    with pytest.raises(KitError, match="expected a file once, by a path below the kit"):
        unpack(packed_of(members))


def test_a_kit_cut_anywhere_opens_whole_or_not_at_all() -> None:
    packed = pack(KIT)
    refused = 0
    for length in range(len(packed)):
        try:
            assert unpack(packed[:length]) == KIT  # only the end of the archive is cut
        except KitError:
            refused += 1
    assert refused > len(packed) * 0.9


@pytest.mark.parametrize(
    "packed", [b"", b"text", gzip.compress(b"text"), packed_of({"a": (tarfile.TarInfo("a"), b"")})]
)
def test_what_is_no_kit_is_refused(packed: bytes) -> None:
    with pytest.raises(KitError):
        unpack(packed)


def test_a_diff_shows_no_content() -> None:
    assert "secret" not in listing(KIT)
    assert "ca/ca.key  " in listing(KIT)


def test_folders_are_collected_with_what_links_lead_to(tmp_path: Path) -> None:
    inventory, elsewhere = tmp_path / "production", tmp_path / "shared"
    for folder in (inventory / ".git", inventory / "host_vars", elsewhere):
        folder.mkdir(parents=True)
    (inventory / ".git" / "HEAD").write_text("x")
    (inventory / "list").write_text("#!/bin/sh\n")
    (inventory / "list").chmod(0o755)
    (elsewhere / "all.yml").write_text("a: 1\n")
    (inventory / "group_vars").symlink_to(elsewhere)
    found = collect({"inventory": str(inventory)}, {"keys.yml": "b: 2\n"}, tmp_path / "kit")
    assert found == {
        "inventory/list": File(b"#!/bin/sh\n", is_program=True),
        "inventory/group_vars/all.yml": File(b"a: 1\n"),
        "keys.yml": File(b"b: 2\n"),
    }


def test_a_source_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    kit = tmp_path / "kit"
    with pytest.raises(KitError, match="is missing, expected a file or a folder"):
        collect({"ca": str(tmp_path / "ca")}, {}, kit)
    with pytest.raises(KitError, match="holds no file"):
        collect({"ca": str(folder)}, {}, kit)
    (folder / "loop").symlink_to(folder)
    with pytest.raises(KitError, match="leads back"):
        collect({"ca": str(folder)}, {}, kit)
    (folder / "loop").unlink()
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(KitError, match="neither a file nor a folder"):
        collect({"ca": str(folder)}, {}, kit)
    (folder / "gone").unlink()
    (folder / "kit").write_text("x")
    with pytest.raises(KitError, match="put the kit elsewhere"):
        collect({"ca": str(folder)}, {}, folder / "kit")
    with pytest.raises(KitError, match="twice"):
        collect({"ca": str(folder)}, {"ca/kit": ""}, kit)


def test_a_kit_is_put_back_for_its_owner_alone_into_an_empty_folder(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    put_back(folder, KIT, check=True)
    assert not folder.exists()
    put_back(folder, KIT, check=False)
    assert collect({"x": str(folder)}, {}, tmp_path / "kit") == {f"x/{name}": file for name, file in KIT.items()}
    modes = {str(path.relative_to(folder)): path.stat().st_mode & 0o777 for path in folder.rglob("*")}
    assert modes == {"hosts.yml": 0o600, "ca": 0o700, "ca/ca.key": 0o600, "bin": 0o700, "bin/list": 0o700}
    with pytest.raises(KitError, match="not empty"):
        put_back(folder, KIT, check=True)
    assert folder.stat().st_mode & 0o777 == 0o700
