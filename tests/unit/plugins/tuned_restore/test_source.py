"""A dump as files, on a real file system."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
from pathlib import Path

import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.dump import DumpError
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.source import (
    describe_source,
    is_below,
    remove_unpacked,
    unpack,
)

PLAIN = b"--\n-- PostgreSQL database dump\n--\n\n" + b"SELECT 1;\n" * 200_000
CUSTOM = b"PGDMP\x01\x10" + bytes(range(256)) * 4096


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("data", "format_"), [(PLAIN, "plain"), (CUSTOM, "custom")])
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_a_dump_is_known_and_unpacked_whatever_its_name(
    tmp_path: Path, data: bytes, format_: str, compression: str
) -> None:
    packed = {"none": data, "gzip": gzip.compress(data, 1), "zstd": zstd(data)}[compression]
    source = describe_source(written(tmp_path / "a, dump", packed))
    assert (source.format, source.compression, source.size) == (format_, compression, len(packed))
    assert source.sha256 == hashlib.sha256(packed).hexdigest()
    work = tmp_path / "work"
    work.mkdir()
    usable = unpack(source, work)
    assert usable.read_bytes() == data
    assert (usable == source.path) is (compression == "none")
    remove_unpacked(work)
    assert list(work.iterdir()) == []
    assert source.path.read_bytes() == packed


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
@pytest.mark.parametrize("damage", ["truncated", "corrupt"])
def test_a_damaged_file_is_refused_and_leaves_nothing(tmp_path: Path, compression: str, damage: str) -> None:
    packed = gzip.compress(CUSTOM, 1) if compression == "gzip" else zstd(CUSTOM)
    middle = len(packed) * 3 // 4
    spoiled = packed[:middle] if damage == "truncated" else packed[:middle] + b"\xff" * 8 + packed[middle + 8 :]
    dump = written(tmp_path / "dump", spoiled)
    with pytest.raises(DumpError, match="truncated or damaged"):
        unpack(describe_source(dump), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["dump"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\n<!DOCTYPE html><html><title>Google Drive - Virus scan warning", "HTML page"),
        (b"<html>", "HTML page"),
        (b"-- PostgreSQL database cluster dump\n", "pg_dumpall"),
        (b"toc.dat".ljust(257, b"\0") + b"ustar\0", "tar file"),
        (b"\xfd7zXZ\x00", "xz or bzip2"),
        (b"", "no dump"),
        (b"hello", "no dump"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_no_dump_is_refused_by_name(tmp_path: Path, data: bytes, says: str, packed: bool) -> None:
    with pytest.raises(DumpError, match=says):
        describe_source(written(tmp_path / "x", gzip.compress(data) if packed else data))


def test_a_folder_is_a_dump_where_it_has_a_table_of_contents(tmp_path: Path) -> None:
    with pytest.raises(DumpError, match=r"toc\.dat"):
        describe_source(tmp_path)
    with pytest.raises(DumpError, match="is not there"):
        describe_source(tmp_path / "none")
    written(tmp_path / "toc.dat", b"PGDMP")
    written(tmp_path / "1.dat.gz", b"x")
    first = describe_source(tmp_path)
    assert (first.format, first.size) == ("directory", 6)
    sums = subprocess.run(["sha256sum", "1.dat.gz", "toc.dat"], cwd=tmp_path, capture_output=True, check=True).stdout
    assert first.sha256 == hashlib.sha256(sums).hexdigest()
    written(tmp_path / "1.dat.gz", b"y")
    assert describe_source(tmp_path).sha256 != first.sha256


def test_a_path_is_below_a_folder_through_links_too(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    assert is_below(tmp_path / "link" / "work", tmp_path / "data")
    assert not is_below(tmp_path / "data2", tmp_path / "data")
