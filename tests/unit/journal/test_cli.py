"""``cryptopip journal cat|export|verify``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from collectors.journal import read_capture
from collectors.journal.cli import app
from tests.unit.journal.helpers import SMALL_FRAMES, write

PAYLOADS = [[f'{{"group":{group},"line":{line}}}'.encode() for line in range(5)] for group in range(12)]
FRAMES = [(1000 + number, payload) for number, payload in enumerate(p for group in PAYLOADS for p in group)]


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    return write(tmp_path / "journal" / "binance", PAYLOADS, limits=SMALL_FRAMES)


def damage(segment: Path) -> None:
    content = bytearray(segment.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 30] = bytes(30)
    segment.write_bytes(content)


def test_cat_prints_the_frames_and_with_marks_all_lines(segment: Path) -> None:
    result = CliRunner().invoke(app, ["cat", str(segment)])
    assert result.exit_code == 0
    assert result.stdout.encode().splitlines() == [b"%d %b" % frame for frame in FRAMES]
    with_marks = CliRunner().invoke(app, ["cat", "--marks", str(segment)]).stdout.splitlines()
    assert [line for line in with_marks if not line.startswith("{")] == result.stdout.splitlines()
    assert json.loads(with_marks[0])["mark"] == "header"
    assert json.loads(with_marks[-1])["mark"] == "close"


def test_export_is_read_back_as_a_capture(segment: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.gz"
    assert CliRunner().invoke(app, ["export", str(segment.parent), "-o", str(output)]).exit_code == 0
    assert list(read_capture(output)) == FRAMES
    again = CliRunner().invoke(app, ["export", str(segment.parent), "-o", str(output)])
    assert again.exit_code == 2, "a file that exists is not written over"
    assert list(read_capture(output)) == FRAMES


def test_verify_tells_whole_from_damaged_by_its_exit_code_and_says_where(segment: Path) -> None:
    result = CliRunner().invoke(app, ["verify", str(segment.parent.parent)])
    assert (result.exit_code, "whole, closed (shutdown), 60 frames" in result.stdout) == (0, True)
    damage(segment)
    result = CliRunner().invoke(app, ["verify", "--json", str(segment)])
    assert result.exit_code == 1
    verdict = json.loads(result.stdout)
    middle = segment.stat().st_size // 2
    assert any(each["from_byte"] <= middle < each["to_byte"] for each in verdict["damages"])
    assert not verdict["is_whole"]


def test_what_is_readable_of_a_damaged_segment_is_printed_and_the_rest_told(segment: Path) -> None:
    damage(segment)
    result = CliRunner().invoke(app, ["cat", str(segment)])
    assert result.exit_code == 1
    assert "bytes" in result.stderr
    found = result.stdout.encode().splitlines()
    assert 0 < len(found) < len(FRAMES)
    assert set(found) < {b"%d %b" % frame for frame in FRAMES}


@pytest.mark.parametrize("command", ["cat", "verify"])
def test_what_is_no_segment_is_wrong_usage(tmp_path: Path, command: str) -> None:
    other = tmp_path / "notes.txt"
    other.touch()
    assert CliRunner().invoke(app, [command, str(other)]).exit_code == 2
    assert CliRunner().invoke(app, [command, str(tmp_path)]).exit_code == 2
    assert CliRunner().invoke(app, [command, str(tmp_path / "none")]).exit_code == 2
