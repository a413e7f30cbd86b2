"""A datalake of two months with everything that is hard to write down, for the tests of the archive."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg

from collectors.digests import Source, Window

ROOT = Path(__file__).resolve().parents[2]
MONTHS = ("2026-10", "2026-11")
STATE = """
INSERT INTO instruments
    (id, exchange, symbol, native_id, kind, base, quote, settle, contract_size, expiry, price_tick, listed_at,
     delisted_at)
VALUES
    (1, 'binance', 'BTC/USDT', 'BTCUSDT', 'spot', 'BTC', 'USDT', NULL, NULL, NULL, 0.01, '2020-01-01', NULL),
    (2, 'deribit', 'BTC/USD:BTC', 'BTC-PERPETUAL', 'swap', 'BTC', 'USD', 'BTC', 10, NULL, 0.50, '2020-01-01',
     '2026-11-20'),
    (3, 'binance', 'OLD/USDT', 'OLDUSDT', 'spot', 'OLD', 'USDT', NULL, NULL, NULL, NULL, '2019-01-01', '2026-01-01'),
    (4, 'binance', 'NEW/USDT', 'NEWUSDT', 'spot', 'NEW', 'USDT', NULL, NULL, NULL, NULL, '2026-11-02', NULL);
INSERT INTO recording (instrument_id, channel, during) VALUES
    (1, 'trades', '[2026-09-30 00:00:00.000001+00,)'), (1, 'quotes', '[2026-10-01,2026-10-05)'),
    (2, 'book_events', '[2026-10-15,2026-11-15)');
INSERT INTO sources (incarnation, ingestor, first_seen, last_seen) VALUES
    ('00000000-0000-0000-0000-000000000001', 'ing1', '2026-09-30', '2026-11-25'),
    ('00000000-0000-0000-0000-000000000002', 'ing2', '2026-11-01', '2026-11-25'),
    ('00000000-0000-0000-0000-000000000003', 'gone', '2025-01-01', '2025-01-02');
INSERT INTO connections
    (incarnation, stream, ingestor, exchange, epoch, opened_at, alive_until, closed_at, ended_by, batch)
VALUES
    ('00000000-0000-0000-0000-000000000001', 'ing1/b', 'ing1', 'binance', 1,
     '2026-10-02', '2026-10-03 01:02:03.000004+00', '2026-10-03 01:02:03.000004+00', 'disconnect', 5),
    ('00000000-0000-0000-0000-000000000001', 'ing1/b', 'ing1', 'binance', 2,
     '2026-10-03 02:00:00+00', '2026-11-20', NULL, NULL, 9),
    ('00000000-0000-0000-0000-000000000002', 'ing2/d', 'ing2', 'deribit', 1,
     '2026-11-01', '2026-11-02', '2026-11-02', 'venue', 3);
INSERT INTO coverage
    (incarnation, id, stream, ingestor, epoch, instrument_id, channel, started_at, ended_at, first_id, last_id,
     first_time, last_time, proof, ended_by, batch)
VALUES
    ('00000000-0000-0000-0000-000000000001', 1, 'ing1/b', 'ing1', 1, 1, 'trades', '2026-10-02', '2026-10-03',
     '10', '12', '2026-10-02 00:00:00.5+00', '2026-10-02 23:00:00+00', 'sequence', 'disconnect', 5),
    ('00000000-0000-0000-0000-000000000001', 2, 'ing1/b', 'ing1', 2, 1, 'trades', '2026-10-03 02:00:00+00', NULL,
     '13', NULL, '2026-10-03 02:00:00+00', NULL, 'sequence', NULL, 6),
    ('00000000-0000-0000-0000-000000000002', 1, 'ing2/d', 'ing2', 1, 2, 'book_events', '2026-11-01', '2026-11-02',
     NULL, NULL, NULL, NULL, 'heartbeat', 'venue', 3);
INSERT INTO watermarks (incarnation, stream, batch) VALUES ('00000000-0000-0000-0000-000000000001', 'ing1/b', 9);
INSERT INTO backfills (instrument_id, gap, after_id, before_id, position, state, rows, detail, started_at, changed_at)
VALUES (1, '[2026-10-03,2026-10-03 02:00:00+00]', 12, 13, NULL, 'empty', 0, 'trade ids 12 and 13 follow each other',
    '2026-11-20', '2026-11-20 00:00:00.000001+00'),
    (1, '[2026-10-31 23:00:00+00,2026-11-01 01:00:00+00]', NULL, 99999999999999999999, 5, 'out_of_reach', 7, 'so',
    '2026-11-20', '2026-11-20 00:00:00.000001+00');
INSERT INTO sync_conflicts
    (instrument_id, channel, event_id, refused_hash, time, ingestor, epoch, kept, refused)
VALUES (1, 'trades', '11', -5, '2026-10-02', 'ing2', 1, '{"price": 1.10, "amount": null}',
    '{"price": "a\\nb, \\"c\\""}');
"""
EVENTS = """
INSERT INTO trades
    (time, received_at, epoch, trade_id, instrument_id, is_buy, price, amount, buy_order_id, sell_order_id, ingestor)
SELECT
    at, at + interval '0.000123 s', 1, 't' || n, 1, CASE n % 3 WHEN 0 THEN true WHEN 1 THEN false END,
    123456789012345.678901234567890 + n, 0.000000000000000000000000000001 * n, NULLIF(n % 5, 0)::text,
    CASE n % 4 WHEN 0 THEN '' WHEN 1 THEN E'a "quoted"\\nline, \\r\\t\\\\.' WHEN 2 THEN 'NULL' END, 'ing1'
FROM
    generate_series(1, {rows}) AS n,
    LATERAL (SELECT timestamptz '2026-10-31 23:59:50.000001+00' + n * {step} AS at) AS moment;
INSERT INTO quotes
    (time, received_at, epoch, update_id, instrument_id, bid_price, bid_amount, ask_price, ask_amount, is_derived,
     ordinal, ingestor)
SELECT
    at, at, 1, 9000000000000 + n, 1, CASE WHEN n % 7 <> 0 THEN 1.50 + n END, CASE WHEN n % 7 <> 0 THEN 2.000 END,
    1e-8, 0, false, 1 + n % 3, 'ing1'
FROM
    generate_series(1, {rows}) AS n,
    LATERAL (SELECT timestamptz '2026-10-31 23:59:50.000001+00' + n * {step} AS at) AS moment;
INSERT INTO book_events
    (time, received_at, epoch, first_id, last_id, previous_id, instrument_id, is_snapshot, bid_prices, bid_amounts,
     ask_prices, ask_amounts, ingestor)
SELECT
    at, at, 1, NULLIF(n % 3, 0), n, n - 1, 2, n % 10 = 1,
    CASE WHEN n % 2 = 0 THEN '{{}}' ELSE ARRAY[n + 0.10, 99.000] END,
    CASE WHEN n % 2 = 0 THEN '{{}}' ELSE ARRAY[1.50, 0] END,
    ARRAY[123456789012345678901234567890.12], ARRAY[1e-12], 'ing2'
FROM
    generate_series(1, {rows}) AS n,
    LATERAL (SELECT timestamptz '2026-10-31 23:59:50.000001+00' + n * {step} AS at) AS moment;
INSERT INTO derivatives
    (time, received_at, epoch, funding_time, instrument_id, funding_rate, open_interest, mark_price, ingestor)
VALUES
    ('2026-11-01 08:00:00+00', '2026-11-01 08:00:00.1+00', 1,
     '2026-11-01 16:00:00+00', 2, -0.0001, 5000000, NULL, 'ing2'),
    ('2026-11-01 08:00:01+00', '2026-11-01 08:00:01.1+00', 1, NULL, 2, NULL, NULL, 60000.5, 'ing2');
INSERT INTO liquidations
    (time, received_at, epoch, instrument_id, ordinal, is_buy, liquidation_id, price, amount, ingestor)
VALUES ('2026-11-01 09:00:00+00', '2026-11-01 09:00:00.1+00', 1, 2, 2, NULL, NULL, 60000.50, 10, 'ing2');
"""


def execute(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, client_encoding="UTF8") as connection:
        connection.execute(statement.encode())


def rows_of(dsn: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, client_encoding="UTF8") as connection:
        return connection.execute(query.encode()).fetchall()


def fill(dsn: str, rows: int = 40, step: str = "interval '0.5 s'") -> None:
    """State and events of October and November 2026, with the digests that a merge would have kept of them."""
    execute(dsn, STATE)
    execute(dsn, EVENTS.format(rows=rows, step=step))
    keep_digests(dsn)


def keep_digests(dsn: str) -> None:
    """As merges leave them."""
    found = list(Source(f"rows:{dsn}").digests(Window()))
    with psycopg.connect(dsn) as connection:
        connection.execute("DELETE FROM digests")
        connection.cursor().executemany(
            "INSERT INTO digests (instrument_id, channel, hour, rows, hash) VALUES (%s, %s, %s, %s, %s)",
            [(one.instrument_id, one.channel, one.hour, one.rows, one.hash) for one in found],
        )


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "collectors", "archive", *map(str, arguments)]


def archive(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, cwd=ROOT)


def export(dsn: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    done = archive("export", folder, "--dsn", dsn, *more)
    assert done.returncode == 0, done.stderr
    return done


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below, but the lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
