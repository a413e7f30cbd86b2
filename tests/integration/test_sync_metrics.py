"""A pull leaves what node_exporter reads: of each ingestor whether, how much and up to when it was merged."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from collectors.decode import decoder
from collectors.load import Loader
from collectors.metrics import read_values
from tests.integration.load_harness import ROOT, Traffic, add_instrument, ask, write_journal

pytestmark = pytest.mark.database


def test_a_pull_leaves_metrics_of_each_ingestor(tmp_path: Path, ingestor_dsn: str, datalake_dsn: str) -> None:
    traffic = Traffic().add(50)
    add_instrument(ingestor_dsn)
    write_journal(tmp_path / "binance", traffic.epoch, traffic.frames)
    Loader(tmp_path / "binance", ingestor_dsn, "ing1", decoder("binance")).run(until_idle=True)
    config, metrics = tmp_path / "cryptopip.yml", tmp_path / "sync.prom"
    away = {"ingestor": "ing2", "database": "host=127.0.0.1 port=1 dbname=x"}
    sources = [{"ingestor": "ing1", "database": ingestor_dsn}, away]
    config.write_text(json.dumps({"sync": {"datalake": datalake_dsn, "sources": sources}}))
    command = [sys.executable, "-m", "collectors", "sync", "--config", str(config), "--metrics", str(metrics)]
    before = time.time()
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 1, done.stderr
    values = read_values(metrics)
    ((until,),) = ask(ingestor_dsn, "SELECT extract(epoch FROM max(alive_until)) FROM connections")
    run = values["cryptopip_sync_run_timestamp_seconds"]
    assert before < run <= time.time()
    assert {key: value for key, value in values.items() if "ing1" in key and "rows_total" not in key} == {
        'cryptopip_sync_up{ingestor="ing1"}': 1,
        'cryptopip_sync_success_timestamp_seconds{ingestor="ing1"}': run,
        'cryptopip_sync_merged_until_timestamp_seconds{ingestor="ing1"}': float(until),
        'cryptopip_sync_lag_seconds{ingestor="ing1"}': pytest.approx(run - float(until), abs=1e-3),
    }
    assert values['cryptopip_sync_pulled_rows_total{channel="quotes",ingestor="ing1"}'] == 50, "once, not at each pull"
    assert {key for key in values if "ing2" in key and "total" not in key} == {'cryptopip_sync_up{ingestor="ing2"}'}
    assert values['cryptopip_sync_up{ingestor="ing2"}'] == 0
