"""``bin/bench restore``: how long a dump takes to be a database again, by hand and by ``tuned_restore``.

What it does not show: disks slower than this machine's, data larger than its memory, many chunks. Every contender
restores the same dump into the same server (which archives nothing, so that none restarts it), in turns, and ends with
everything on disk; its rows and chunks are counted before its time counts. Ours also reads the dump before it begins,
counts every row and inserts a row for a test, which the others do not; the second column leaves that out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.settings import SEED
from psycopg.conninfo import conninfo_to_dict

from bench.ingest import machine
from tests.integration.tuned_restore_harness import RestoreServer, Site, docker

TARGET = 1.8
"""How many times as fast as the seed's procedure by hand the profile fast is to be."""

DAYS = 30
ONLY_OURS = ("checksum", "inspect", "validate", "swap")
"""Steps of ours that nobody does by hand: the dump is read before anything changes, and compared with afterwards."""

_TABLE = """
CREATE TABLE ticks (
    time timestamptz NOT NULL, instrument_id integer NOT NULL, trade_id bigint NOT NULL, is_buy boolean,
    price numeric NOT NULL, amount numeric NOT NULL
)
"""
_INDEX = "CREATE UNIQUE INDEX {name} ON {table} (instrument_id, time, trade_id)"
_FILL = """
INSERT INTO ticks SELECT
    '2026-01-01'::timestamptz + i * (interval '{days} days' / {rows}), i % 50, i, i % 3 = 0,
    (30000 + (i * 7919 % 100000) / 100.0)::numeric(12, 2), ((i * 104729 % 1000000) / 100000.0)::numeric(12, 5)
FROM generate_series(0::bigint, {rows} - 1) AS i
"""


@dataclass
class Runs:
    """Seconds of one contender, a figure a round; ``parts`` are of the last one."""

    seconds: list[float] = field(default_factory=list)
    like_by_hand: list[float] = field(default_factory=list)
    parts: Mapping[str, float] = field(default_factory=dict)


@contextmanager
def site_with_dump(image: str, folder: Path, rows: int) -> Iterator[tuple[Site, Path]]:
    """A server with its defaults, fsync on, and a dump on this machine's disk of a hypertable of so many rows."""
    server = RestoreServer(image, folder)
    try:
        site = Site(server.container, server.dsn, folder)
        site.query("CREATE DATABASE origin")
        for statement in (
            "CREATE EXTENSION timescaledb",
            _TABLE,
            "SELECT create_hypertable('ticks', 'time', chunk_time_interval => interval '1 day', "
            "create_default_indexes => false)",
            _INDEX.format(name="ticks_identity", table="ticks"),
            _FILL.format(days=DAYS, rows=rows),
            "VACUUM ANALYZE ticks",
        ):
            site.query(statement, "origin")
        yield site, site.dump("origin", "origin.dump", "--format=custom", "--compress=0")
    finally:
        docker("rm", "--force", f"{server.container}-restore", check=False)
        server.remove()


def tool(site: Site, dump: Path, *command: str) -> None:
    """A program of the image beside the server, as ours runs it."""
    port = str(conninfo_to_dict(site.dsn)["port"])
    connect = ("--env", f"PGPORT={port}", "--env", "PGHOST=127.0.0.1", "--env", "PGUSER=postgres")
    mount = ("--mount", f"type=bind,source={dump},target=/dump,readonly", "--user", "0:0", "--network", "host")
    image = docker("container", "inspect", "--format", "{{.Image}}", site.container).strip()
    one_shot = ("docker", "run", "--rm", *mount, *connect, "--name", f"{site.container}-restore", image, *command)
    done = subprocess.run(one_shot, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def by_hand(site: Site, dump: Path, settings: Mapping[str, str]) -> None:
    """As the seed's documents have it: settings, pre_restore, pg_restore with one job, post_restore, settings back."""
    for name, value in settings.items():
        site.query(f"ALTER SYSTEM SET {name} = '{value}'")
    if settings:
        site.query("SELECT pg_reload_conf()")
    site.query("CREATE DATABASE lake")
    site.query("CREATE EXTENSION timescaledb", "lake")
    site.query("SELECT timescaledb_pre_restore()", "lake")
    tool(site, dump, "pg_restore", "--dbname=lake", "/dump")
    site.query("SELECT timescaledb_post_restore()", "lake")
    site.query("ANALYZE", "lake")
    if settings:
        site.query("ALTER SYSTEM RESET ALL")
        site.query("SELECT pg_reload_conf()")
    durable(site)


def durable(site: Site) -> None:
    """Everything on disk, also what was written while fsync was off."""
    site.query("CHECKPOINT")
    os.sync()


def plain(site: Site, dump: Path) -> Mapping[str, float]:
    """pg_restore as one would type it, with the server's own settings."""
    by_hand(site, dump, {})
    return {}


def seed(site: Site, dump: Path) -> Mapping[str, float]:
    """The seed's ten settings, and one job."""
    by_hand(site, dump, SEED)
    return {}


def ours(profile: str) -> Callable[[Site, Path], Mapping[str, float]]:
    """The module, with its own jobs."""

    def restore(site: Site, dump: Path) -> Mapping[str, float]:
        process = site.start(source=str(dump), profile=profile, accept_cluster_risk=True, jobs=None)
        answer = json.loads(process.communicate()[0])
        assert not answer.get("failed"), answer["msg"]
        durable(site)
        seconds: dict[str, float] = answer["seconds"]
        return seconds

    return restore


CONTENDERS: Mapping[str, Callable[[Site, Path], Mapping[str, float]]] = {
    "plain pg_restore": plain,
    "the seed's procedure": seed,
    "ours, safe": ours("safe"),
    "ours, fast": ours("fast"),
}


def measure(site: Site, dump: Path, rows: int, rounds: int) -> dict[str, Runs]:
    """Every contender in each round, in turns; what it restored is looked at first."""
    found = {name: Runs() for name in CONTENDERS}
    for turn in range(rounds):
        order = list(CONTENDERS.items())
        for name, restore in order if turn % 2 == 0 else reversed(order):
            begun = time.perf_counter()
            parts = restore(site, dump)
            spent = time.perf_counter() - begun
            assert site.query("SELECT count(*), max(trade_id) FROM ticks", "lake") == [(rows, rows - 1)], name
            chunks = site.query("SELECT count(*) FROM _timescaledb_catalog.chunk", "lake")
            assert chunks == [(DAYS,)], (name, chunks)
            runs = found[name]
            runs.seconds.append(spent)
            runs.like_by_hand.append(spent - sum(parts.get(part, 0.0) for part in ONLY_OURS))
            runs.parts = parts
            site.drop("lake")
            durable(site)
            print(f"  round {turn + 1}: {name:<22} {spent:8.2f} s", flush=True)
    return found


def floors(site: Site) -> dict[str, float]:
    """COPY of the same rows into one table and its index; and a mere copy of the database's files."""
    file = "/tmp/ticks.copy"
    site.query(f"COPY (SELECT * FROM ticks) TO '{file}'", "origin")
    site.query("CREATE DATABASE lake")
    site.query(_TABLE, "lake")
    durable(site)
    begun = time.perf_counter()
    site.query(f"COPY ticks FROM '{file}'", "lake")
    site.query(_INDEX.format(name="ticks_identity", table="ticks"), "lake")
    durable(site)
    copy = time.perf_counter() - begun
    site.drop("lake")
    docker("exec", site.container, "rm", file)
    oid = site.query("SELECT oid FROM pg_database WHERE datname = 'origin'")[0][0]
    base = "/var/lib/postgresql/data/pg_data/base"
    durable(site)
    begun = time.perf_counter()
    docker("exec", site.container, "cp", "-r", f"{base}/{oid}", "/var/lib/postgresql/copy")
    os.sync()
    files = time.perf_counter() - begun
    docker("exec", site.container, "rm", "-r", "/var/lib/postgresql/copy")
    return {"COPY and index": copy, "copy of the files": files}


def report(runs: Mapping[str, Runs], floor: Mapping[str, float], rows: int) -> bool:
    """Print it; whether the target is missed."""
    against = statistics.median(runs["the seed's procedure"].seconds)
    print(f"\n  {'':<22} {'seconds':>9} {'without':>9} {'krows/s':>8} {'x seed':>7}   spread")
    ratio = 0.0
    for name, each in runs.items():
        middle = statistics.median(each.seconds)
        ratio = against / middle
        spread = f"{min(each.seconds):.2f} to {max(each.seconds):.2f}"
        less = statistics.median(each.like_by_hand)
        print(f"  {name:<22} {middle:9.2f} {less:9.2f} {rows / middle / 1000:8.0f} {ratio:7.2f}   {spread}")
    for name, seconds in floor.items():
        print(f"  floor: {name:<15} {seconds:9.2f} {'':>9} {rows / seconds / 1000:8.0f} {against / seconds:7.2f}")
    for name in ("ours, safe", "ours, fast"):
        parts = ", ".join(f"{part} {seconds:.2f}" for part, seconds in runs[name].parts.items() if seconds >= 0.005)
        print(f"  {name}, last round: {parts}")
    bare = against / statistics.median(runs["ours, fast"].like_by_hand)
    missed = ratio < TARGET  # the last of the contenders is ours, fast
    print(f"  without: less {', '.join(ONLY_OURS)}, which nobody does by hand; fast is then {bare:.2f} x the seed's")
    print(f"\n  fast against the seed's procedure {ratio:.2f} x   target {TARGET}  {'MISSED' if missed else 'reached'}")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description="How long a dump takes to be a database again.")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=2, help="rounds, in alternating order")
    parser.add_argument("--json", type=Path, help="also write all results to this file")
    options = parser.parse_args()
    if options.rows < DAYS or options.rounds < 1:
        parser.error(f"expected {DAYS} rows or more and a round or more")
    image = os.environ.get("CRYPTOPIP_TEST_IMAGE", "cryptopip-timescaledb:apache")
    with (
        tempfile.TemporaryDirectory(prefix="cryptopip-bench-", dir="/var/tmp") as folder,
        site_with_dump(image, Path(folder), options.rows) as (site, dump),
    ):
        os.environ["CRYPTOPIP_TEST_DSN"] = site.dsn
        size = dump.stat().st_size >> 20
        print(machine("restore", f"{options.rows:,} rows in {DAYS} chunks, a dump of {size} MB"))
        runs = measure(site, dump, options.rows, options.rounds)
        floor = floors(site)
    missed = report(runs, floor, options.rows)
    if options.json:
        results = {name: {"seconds": each.seconds, "parts": dict(each.parts)} for name, each in runs.items()}
        options.json.write_text(json.dumps({"rows": options.rows, "runs": results, "floors": floor}, indent=1))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
