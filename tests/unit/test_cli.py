from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

import collectors
from collectors.cli import Commands, app, common
from collectors.errors import CryptopipError

UNIVERSE = Path(__file__).resolve().parents[2] / "files" / "universe.yml"


def walk(command: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Every command below, with its full name."""
    below = getattr(command, "commands", None)
    if below is None:
        yield name, command
        return
    for key, child in below.items():
        yield from walk(child, f"{name} {key}".strip())


COMMANDS = dict(walk(get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    text = getattr(COMMANDS[name], "help", None) or ""
    assert f"cryptopip {name}" in text, f"`cryptopip {name} --help` has no example"
    assert CliRunner().invoke(app, [*name.split(), "--help"]).exit_code == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is_for(name: str) -> None:
    silent = [p.name for p in COMMANDS[name].params if not getattr(p, "help", None)]  # type: ignore[attr-defined]
    assert not silent


def test_the_version_is_printed() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"cryptopip {collectors.__version__}\n"


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (CryptopipError("found a, expected b: do c"), 3, "found a, expected b: do c"),
        (psycopg.OperationalError("password=hunter2 failed"), 3, "the database cannot be used: password=*** failed"),
        (OSError(28, "No space left on device"), 3, "the system refused: [Errno 28] No space left on device"),
    ],
)
def test_an_error_is_one_message_unless_debugging(error: Exception, code: int, text: str) -> None:
    failing = typer.Typer(cls=Commands)
    failing.callback()(common)

    @failing.command()
    def fail() -> None:
        raise error

    result = CliRunner().invoke(failing, ["fail"])
    assert (result.exit_code, result.stderr, result.stdout) == (code, text + "\n", "")
    assert CliRunner().invoke(failing, ["--debug", "fail"]).exception is error


def test_a_fault_of_the_program_is_not_dressed_up() -> None:
    failing = typer.Typer(cls=Commands)
    failing.callback()(common)

    @failing.command()
    def fail() -> None:
        raise ZeroDivisionError

    assert isinstance(CliRunner().invoke(failing, ["fail"]).exception, ZeroDivisionError)


def test_a_valid_universe_ends_with_0_and_mistakes_with_1(tmp_path: Path) -> None:
    good = CliRunner().invoke(app, ["universe", "validate", str(UNIVERSE), "--json"])
    assert good.exit_code == 0
    assert json.loads(good.stdout)["problems"] == []
    bad = tmp_path / "bad.yml"
    bad.write_text(UNIVERSE.read_text().replace("id: 2", "id: 1").replace("SOL/USDT", "SOL/USD"))
    result = CliRunner().invoke(app, ["universe", "validate", str(bad)])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 2
    assert result.stderr.count(str(bad)) == 2


def test_an_exchange_that_does_not_answer_is_told_and_ends_with_3() -> None:
    at = ["--online", "--exchange", "binance=http://127.0.0.1:1", "--exchange", "okx=http://127.0.0.1:1"]
    result = CliRunner().invoke(app, ["universe", "validate", str(UNIVERSE), *at])
    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr.startswith("binance at http://127.0.0.1:1 did not give its market list (")  # of okx is nothing
    assert result.stderr.count("\n") == 1


def test_asking_an_exchange_takes_online() -> None:
    result = CliRunner().invoke(app, ["universe", "validate", str(UNIVERSE), "--exchange", "binance"])
    assert result.exit_code == 2
    assert "add --online" in result.stderr


def test_loading_an_invalid_universe_never_reaches_the_database(tmp_path: Path) -> None:
    args = ["universe", "load", str(tmp_path / "absent.yml"), "--kind", "ingestor", "--dsn", "host=203.0.113.1"]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 2
    assert "no such file" in result.stderr
