from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from collectors.cli import app
from collectors.universe import load_universe

UNIVERSE = Path(__file__).resolve().parents[2] / "files" / "universe.yml"
pytestmark = pytest.mark.database


def load(dsn: str, kind: str, file: Path = UNIVERSE, *extra: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["universe", "load", str(file), "--kind", kind, "--dsn", dsn, "--json", *extra])
    assert result.exit_code == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def edited(folder: Path, old: str, new: str) -> Path:
    path = folder / "universe.yml"
    text = UNIVERSE.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, client_encoding="UTF8") as connection:
        return connection.execute(query.encode()).fetchall()


def test_a_second_load_changes_nothing_and_check_changes_nothing_ever(ingestor_dsn: str) -> None:
    checked = load(ingestor_dsn, "ingestor", UNIVERSE, "--check")
    assert checked["changed"]
    assert rows(ingestor_dsn, "SELECT * FROM instruments") == []
    first = load(ingestor_dsn, "ingestor")
    assert first["changes"] == checked["changes"]
    assert [c["action"] for c in first["changes"]] == ["add"] * 3
    assert load(ingestor_dsn, "ingestor") == {"changed": False, "check": False, "changes": []}
    assert not load(ingestor_dsn, "ingestor", UNIVERSE, "--check")["changed"]


def test_the_table_holds_every_field_of_the_file(ingestor_dsn: str) -> None:
    load(ingestor_dsn, "ingestor")
    stored = rows(ingestor_dsn, "SELECT id, native_id, price_tick, amount_step, listed_at FROM instruments ORDER BY id")
    expected = load_universe(UNIVERSE).instruments
    assert stored == [(i.id, i.native_id, i.price_tick, i.amount_step, i.listed_at) for i in expected]


def test_a_changed_field_is_updated_and_shown(ingestor_dsn: str, tmp_path: Path) -> None:
    load(ingestor_dsn, "ingestor")
    answer = load(ingestor_dsn, "ingestor", edited(tmp_path, '"0.001"', '"0.0001"'))
    (change,) = answer["changes"]
    assert change["fields"] == {"amount_step": ["0.001", "0.0001"]}
    assert rows(ingestor_dsn, "SELECT amount_step::text FROM instruments WHERE id = 3") == [("0.0001",)]


def test_an_id_that_now_names_another_instrument_is_refused_and_nothing_changes(
    ingestor_dsn: str, tmp_path: Path
) -> None:
    load(ingestor_dsn, "ingestor")
    before = rows(ingestor_dsn, "SELECT * FROM instruments ORDER BY id")
    text = UNIVERSE.read_text().replace('"0.00001"', '"0.1"').replace("SOL", "XRP")
    file = tmp_path / "universe.yml"
    file.write_text(text)
    args = ["universe", "load", str(file), "--kind", "ingestor", "--dsn", ingestor_dsn]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 3
    assert "id 3 is binance SOLUSDT in the database and binance XRPUSDT in the file" in result.stderr
    assert rows(ingestor_dsn, "SELECT * FROM instruments ORDER BY id") == before


def test_the_datalake_notes_from_when_to_when_recording_was_meant(datalake_dsn: str, tmp_path: Path) -> None:
    assert len(load(datalake_dsn, "datalake")["changes"]) == 3 + 9
    assert not load(datalake_dsn, "datalake")["changed"]
    dropped = edited(tmp_path, "channels: [trades, quotes, book_events]", "channels: [trades, quotes]")
    answer = load(datalake_dsn, "datalake", dropped)
    assert [(c["action"], c["channel"]) for c in answer["changes"]] == [("close", "book_events")] * 3
    assert rows(datalake_dsn, "SELECT count(*) FROM recording WHERE upper(during) <= now()") == [(3,)]
    reopened = load(datalake_dsn, "datalake")
    assert [c["action"] for c in reopened["changes"]] == ["open"] * 3
    assert rows(datalake_dsn, "SELECT count(*) FROM recording WHERE upper_inf(during)") == [(9,)]
    assert rows(datalake_dsn, "SELECT count(*) FROM recording") == [(12,)]


def test_the_ingestors_own_role_may_load_the_universe(ingestor_dsn: str) -> None:
    load(ingestor_dsn + " options='-c role=cryptopip_loader'", "ingestor")


def test_the_sync_writer_may_load_the_universe(datalake_dsn: str) -> None:
    load(datalake_dsn + " options='-c role=cryptopip_sync_writer'", "datalake")


def test_an_unreachable_database_is_one_clear_message() -> None:
    args = ["universe", "load", str(UNIVERSE), "--kind", "ingestor", "--dsn", "host=127.0.0.1 port=1 dbname=x"]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 3
    assert result.stderr.startswith("the database cannot be used: ")
