"""``bin/bench backup``: base backups, restores and the WAL archive of both engines, against PostgreSQL's own and cp.

What it does not show: a network, a disk slower than the processor, a server under load. Each engine gets a cluster of
its own and is compared with what runs on that cluster in the same rounds. What was restored is compared, every file of
the largest table byte for byte, and a run that differs ends without figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.integration.harness.process import ROOT
from tests.integration.pgbackrest_harness import Server
from tests.integration.wale_harness import CONFIG, PGDATA, Pair, run

BACKUP: float = 1.0
"""How many times as fast as plain pg_basebackup a full base backup is to be, at least."""

PUSH: float = 3.0
"""How many times as long as cp and fsync the slowest hundredth of pushes may take, at most."""

OUT = "/var/lib/postgresql/data/bench"
# Ticks, as a datalake has them: a timestamp, two decimals, an id. Of no order that a compressor could use up.
_FILL = """
CREATE TABLE ticks AS
SELECT g AS id, '2026-01-01'::timestamptz + g * interval '37 ms' AS time,
       (50000 + 100 * random())::numeric(12, 2) AS price, (random() * 10)::numeric(16, 8) AS amount,
       md5(g::text) AS filler
FROM generate_series(1, {rows}) AS g;
ALTER TABLE ticks ADD PRIMARY KEY (id)
"""
_BYTES_A_ROW = 135  # heap and index, measured
_TIMED = (
    "use Time::HiRes 'time'; my @command = split / /, shift @ARGV; for my $name (@ARGV) { my $begun = time; "
    'system(map { s/%f/$name/gr } @command) == 0 or die; printf "%.6f\\n", time - $begun }'
)
_COPY = "dd if={pgdata}/pg_wal/%f of={out}/%f bs=1M conv=fsync status=none"


def inside(server: Pair, script: str, container: str | None = None) -> str:
    """A shell script in a container of the pair, for as long as it takes."""
    done = subprocess.run(
        ["docker", "exec", container or server.db, "sh", "-euc", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{script}: {done.stderr[-2000:]}"
    return done.stdout


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def newest(server: Pair) -> str:
    """Name of the newest backup."""
    return server.labels()[-1] if isinstance(server, Server) else server.names()[-1]


def take(server: Pair) -> None:
    """A full base backup by the engine."""
    if isinstance(server, Server):
        inside(server, "pgbackrest backup --type=full")
    else:
        inside(server, f"wal-e backup-push {PGDATA}", server.wale)


def restore(server: Pair, folder: str) -> None:
    """The newest backup into a new folder, by the engine."""
    if isinstance(server, Server):
        place = f"--pg1-path={folder} --tablespace-map-all={folder}.tablespaces --type=none"
        inside(server, f"install -d -m 0700 {folder}; pgbackrest restore --set={newest(server)} {place}")
    else:
        inside(server, f"wal-e backup-fetch {folder} LATEST", server.wale)


def base_backups(server: Pair, engine: str, megabytes: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of every contender in every round, in alternating order."""
    inside(server, f'psql -qU postgres -c "{_FILL.format(rows=megabytes * 1_000_000 // _BYTES_A_ROW)}" -c checkpoint')
    table = server.sql("select pg_relation_filepath('ticks')")
    contenders: dict[str, Callable[[], object]] = {
        f"{engine} backup": lambda: take(server),
        "pg_basebackup plain": lambda: inside(server, f"pg_basebackup -U postgres -c fast -X none -D {OUT}/plain"),
        "pg_basebackup lz4": lambda: inside(
            server, f"pg_basebackup -U postgres -c fast -X none -F tar -Z server-lz4 -D {OUT}/lz4"
        ),
        "cp": lambda: inside(server, f"cp -a {PGDATA} {OUT}/cp; sync -f {OUT}"),
        f"{engine} restore": lambda: restore(server, f"{OUT}/restored"),
        "cp back": lambda: inside(server, f"cp -a {OUT}/cp {OUT}/back; sync -f {OUT}"),
    }
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        inside(server, f"rm -rf {OUT}; mkdir -p {OUT}; sync -f {OUT}")
        first = list(contenders.items())[:4]
        for name, work in (first if number % 2 == 0 else first[::-1]) + list(contenders.items())[4:]:
            found[name].append(seconds(work))
        inside(server, f"cd {OUT}/restored; for f in {table}*; do cmp $f {PGDATA}/$f; done")
    inside(server, f"rm -rf {OUT}")
    return found


def pushes(server: Pair, engine: str, count: int) -> dict[str, list[float]]:
    """Seconds of each push, and of each cp with fsync, of the same full segments."""
    command = (
        "pgbackrest archive-push %f"
        if isinstance(server, Server)
        else "/etc/cryptopip/postgresql/cryptopip-wal push %f"
    )
    path = f"{PGDATA}/pg_wal/%f" if isinstance(server, Server) else "%f"
    server.sql("alter system set archive_command = 'false'")
    server.sql("alter system set max_wal_size = '8GB'")
    server.sql("select pg_reload_conf()")
    first = server.sql("select pg_walfile_name(pg_switch_wal())")
    rows = f"select g, md5(g::text) || md5((g + 1)::text) from generate_series(1, {count * 16_000_000 // 100}) as g"
    inside(server, f'psql -qU postgres -c "create table wal as {rows}"')
    waiting = inside(server, f"ls {PGDATA}/pg_wal/archive_status").split()
    names = [name.removesuffix(".ready") for name in waiting if name.endswith(".ready")]
    names = sorted(name for name in names if len(name) == 24 and name > first)[:count]
    assert len(names) >= count // 2, f"{len(names)} segments: too few"
    inside(server, f"mkdir -p {OUT}")
    found: dict[str, list[float]] = {f"{engine} push": [], "cp + fsync": []}
    half = len(names) // 4
    for start in range(0, len(names), half or 1):
        some = names[start : start + (half or 1)]
        for name, told in (
            ("cp + fsync", _COPY.format(pgdata=PGDATA, out=OUT)),
            (f"{engine} push", command.replace("%f", path)),
        ):
            said = run("docker", "exec", server.db, "perl", "-e", _TIMED, told, *some).stdout
            found[name] += [float(line) for line in said.split()]
    server.sql("alter system reset archive_command")
    server.sql("select pg_reload_conf()")
    return found


def hundredth(values: list[float]) -> float:
    """What all but the slowest hundredth take at most."""
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


def report(engine: str, backups: dict[str, list[float]], wal: dict[str, list[float]]) -> bool:
    """Print what was found; whether a target was missed."""
    best = {name: statistics.median(values) for name, values in backups.items()}
    ratio = best["pg_basebackup plain"] / best[f"{engine} backup"]
    for name, values in backups.items():
        spread = f"{min(values):.1f} to {max(values):.1f}"
        print(f"  {name:<22} {best[name]:8.2f} s   ({spread})")
    verdict = f"target {BACKUP}  {'reached' if ratio >= BACKUP else 'MISSED'}"
    print(f"  speed against pg_basebackup plain {ratio:.2f} x   {verdict}")
    slow = hundredth(wal[f"{engine} push"]) / hundredth(wal["cp + fsync"])
    for name, values in wal.items():
        middle, rate = statistics.median(values) * 1000, len(values) / sum(values)
        print(f"  {name:<22} {middle:8.1f} ms p50 {hundredth(values) * 1000:8.1f} ms p99 {rate:7.1f} segments/s")
    print(f"  p99 against cp + fsync {slow:.2f} x   target {PUSH}  {'reached' if slow <= PUSH else 'MISSED'}")
    return ratio < BACKUP or slow > PUSH


def main() -> int:
    parser = argparse.ArgumentParser(description="Base backups, restores and the WAL archive, both engines.")
    parser.add_argument("--size", type=int, default=2000, help="size of the cluster in MB (2000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--segments", type=int, default=100, help="how many segments of WAL are pushed (100)")
    parser.add_argument("--json", type=Path, help="also write all results to this file")
    options = parser.parse_args()
    run(str(ROOT / "roles/wale/files/build_image.sh"))
    print(
        f"bin/bench backup: {os.cpu_count()} CPUs, {platform.machine()}, Linux {platform.release()}, {options.size} MB"
    )
    results: dict[str, dict[str, dict[str, list[float]]]] = {}
    missed = False
    for engine, kind in (("wal_e", Pair), ("pgbackrest", Server)):
        with tempfile.TemporaryDirectory() as folder:
            server = kind(Path(folder))
            try:
                server.up()
                allow = f"echo local replication postgres peer >>{CONFIG}/pg_hba.conf"  # for pg_basebackup
                run("docker", "exec", "--user", "0", server.db, "sh", "-euc", allow)
                server.sql("select pg_reload_conf()")
                backups = base_backups(server, engine, options.size, options.rounds)
                wal = pushes(server, engine, options.segments)
            finally:
                server.down()
        print(f"\n{engine}")
        missed = report(engine, backups, wal) or missed
        results[engine] = {"backups": backups, "wal": wal}
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
