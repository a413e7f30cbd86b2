"""Show what flows in the demo's datalake: reads the line of JSON of summary.sql from stdin."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table


def table(rows: list[dict[str, Any]]) -> Table:
    """One line per exchange and channel; times are in seconds."""
    shown = Table(title="In the datalake", title_justify="left")
    for name in ("exchange", "channel"):
        shown.add_column(name)
    for name in ("instruments", "ingestors", "rows", "rows/s", "lag", "recorded for", "gaps"):
        shown.add_column(name, justify="right")
    for row in rows:
        gaps = "none" if not row["gaps"] else f"{row['gaps']} ({float(row['gap_seconds']):.1f} s)"
        covered = "-" if row["covered"] is None else f"{float(row['covered']):,.0f} s"
        shown.add_row(
            row["exchange"],
            row["channel"],
            str(row["instruments"]),
            str(row["ingestors"] or "-"),
            f"{int(row['total']):,}",
            f"{float(row['per_second']):,.1f}",
            f"{float(row['lag']):.1f} s",
            covered,
            gaps,
        )
    return shown


def main() -> None:
    """Print the table, how to connect, and what to try next."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--address", required=True)
    arguments.add_argument("--fleet", required=True)
    arguments.add_argument("--root", required=True, type=Path)
    given = arguments.parse_args()
    inventory = given.root / "inventories" / "demo"
    secrets = yaml.safe_load((inventory / "group_vars" / "all" / "secrets.yml").read_text())
    console = Console(highlight=False, soft_wrap=True, width=110 if not sys.stdout.isatty() else None)
    console.print()
    console.print(table(json.loads(sys.stdin.read())))
    password = secrets["cryptopip_passwords"]["reader"]
    console.print(
        f"""
[bold]Connect[/bold]
  PGPASSWORD={password} psql "host={given.address} dbname=datalake user=cryptopip_reader \
sslmode=verify-full sslrootcert={inventory / "ca" / "ca.crt"}"
  or, without a client here:
  docker exec -it {given.fleet}-db1 docker exec -it cryptopip-timescaledb psql -U postgres datalake

[bold]Try next[/bold]
  This table again:
    bin/demo --summary
  Gaps and coverage, per instrument and channel:
    .venv/bin/ansible datalake -m cryptopip.marketdata.continuity_check
  Kill a recorder; the datalake misses nothing, because the other one listens:
    docker exec {given.fleet}-ing1 systemctl kill -s KILL cryptopip-recorder@binance
  Watch one ingestor:
    docker exec {given.fleet}-ing1 journalctl -f -u 'cryptopip-*'
  Remove the fleet with its data:
    bin/demo --down
"""
    )


if __name__ == "__main__":
    main()
