"""The migrations read, lint, and keep what only the community edition has to themselves. No server is asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.migrations import read_migrations

ROOT = Path(__file__).resolve().parents[2]
SQL = ROOT / "files" / "sql"
KINDS = ["ingestor", "datalake", "app"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_migration_of_any_edition_uses_what_only_the_community_edition_has(kind: str) -> None:
    words = (
        "enable_columnstore",
        "timescaledb.compress",
        "compress_chunk",
        "timescaledb.continuous",
        "add_retention_policy",
    )
    for migration in read_migrations({file.name: file.read_bytes() for file in (SQL / kind).iterdir()}):
        text = (SQL / kind / migration.up.file).read_text()
        assert migration.community or not any(word in text for word in words), migration.up.file


def test_sqlfluff_finds_nothing() -> None:
    command = [str(Path(sys.executable).parent / "sqlfluff"), "lint", "--format", "json", "files/sql"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    found = [
        f"{file['filepath']}:{violation['start_line_no']}: {violation['code']} {violation['description']}"
        for file in json.loads(ran.stdout)
        for violation in file["violations"]
    ]
    assert found == []
    assert ran.returncode == 0, ran.stderr
