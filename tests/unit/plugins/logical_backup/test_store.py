"""The folder of dumps, and the manifest of each."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.dump_manifest import (
    File,
    Hypertable,
    Manifest,
    ManifestError,
    checksum_of,
    file_problems,
    manifest_of,
    read_manifest,
    row_problems,
    write_manifest,
)
from ansible_collections.cryptopip.marketdata.plugins.module_utils.logical_backup.run import BackupError
from ansible_collections.cryptopip.marketdata.plugins.module_utils.logical_backup.store import (
    Verdict,
    begin,
    finish,
    leftovers,
    list_dumps,
    name_of,
    only_one,
    read_dump,
    remove,
    write_verdict,
)

AT = datetime(2026, 11, 27, 1, 2, 3, tzinfo=UTC)
MANIFEST = Manifest(
    database="ä/b_c",
    snapshot_at=AT.isoformat(),
    finished_at=AT.isoformat(),
    system_identifier="7",
    postgresql="17.6",
    timescaledb="2.19.3",
    migrations=("0001_roles",),
    format="directory",
    compression="zstd",
    dump="dump",
    sha256="0" * 64,
    database_bytes=10,
    files=(File("dump/toc.dat", 3, "0" * 64), File("globals.sql", 4, "1" * 64)),
    rows={'public."Ä"': 2},
    hypertables={"public.t": Hypertable(2, 1, 2, "-5")},
    merged_until=None,
)


def test_a_dump_has_its_name_only_once_it_is_finished(tmp_path: Path) -> None:
    name = name_of("ä/b_c", AT)
    assert name == "%C3%A4%2Fb_c_20261127T010203Z"
    part = begin(tmp_path, name)
    (part / "dump").mkdir()
    (part / "dump" / "toc.dat").write_text("abc")
    assert (list_dumps(tmp_path), leftovers(tmp_path)) == ([], [part])
    write_manifest(part, MANIFEST)
    write_verdict(part, Verdict("now", "contents"))
    final = finish(part)
    assert final == tmp_path / name
    assert (final / "dump" / "toc.dat").stat().st_mode & 0o777 == 0o600
    assert leftovers(tmp_path) == []
    (dump,) = list_dumps(tmp_path)
    assert (dump.manifest, dump.is_verified, dump.taken_at) == (MANIFEST, True, AT)
    with pytest.raises(BackupError, match="two dumps of one second"):
        finish(begin(tmp_path, name))
    remove(final)
    assert list_dumps(tmp_path) == []


def test_what_cannot_be_read_is_told_and_is_not_verified(tmp_path: Path) -> None:
    folder = tmp_path / name_of("x", AT)
    folder.mkdir()
    assert "has no manifest" in str(read_dump(folder).problem)
    write_manifest(folder, MANIFEST)
    assert read_dump(folder).is_verified is False
    (folder / "verified.json").write_text("{")
    assert "is no verdict" in str(read_dump(folder).problem)
    (folder / "verified.json").unlink()
    write_verdict(folder, Verdict("now", "restore", "torn"))
    assert read_dump(folder).is_verified is False
    for text in ("torn", "[]", "{}", json.dumps({"manifest": 1})):
        (folder / "manifest.json").write_text(text)
        assert "is no manifest" in str(read_dump(folder).problem)
    (folder / "manifest.json").write_text('{"manifest": 2}')
    assert "another release's format" in str(read_dump(folder).problem)


def test_the_manifest_is_found_from_the_folder_and_from_the_dump(tmp_path: Path) -> None:
    assert manifest_of(tmp_path / "plain.dump") == (tmp_path / "plain.dump", None)
    write_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path) == MANIFEST
    assert manifest_of(tmp_path) == (tmp_path / "dump", MANIFEST)
    assert manifest_of(tmp_path / "dump") == (tmp_path / "dump", MANIFEST)
    assert manifest_of(tmp_path / "another.dump") == (tmp_path / "another.dump", None)
    (tmp_path / "manifest.json").write_text("torn")
    with pytest.raises(ManifestError):
        manifest_of(tmp_path / "dump")


def test_every_difference_of_files_and_rows_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("abc")
    whole = File("a", 3, checksum_of(path))
    assert file_problems(tmp_path, [whole]) == []
    other = replace(whole, sha256="0" * 64)
    problems = file_problems(tmp_path, [replace(whole, size=4), other, File("b", 1, "")])
    assert [problem.split(", expected")[0].split(" has ")[0] for problem in problems] == ["a", "a", "b is not there"]
    assert row_problems({"a": 1, "b": 2}, {"a": 1, "b": 2}) == []
    assert row_problems({"a": 1, "b": 2}, {"a": 3, "c": 4}) == [
        "a has 3 rows in the dump, expected 1",
        "b has no rows in the dump, expected 2",
        "c has 4 rows in the dump, expected no",
    ]


def test_one_run_at_a_time_is_at_work_in_a_folder(tmp_path: Path) -> None:
    with only_one(tmp_path / "dumps", check=True):
        assert not (tmp_path / "dumps").exists()
    with (
        only_one(tmp_path / "dumps", check=False),
        pytest.raises(BackupError, match="another dump is at work"),
        only_one(tmp_path / "dumps", check=True),
    ):
        pass
