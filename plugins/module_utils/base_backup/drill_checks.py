"""What a drill asks of a restored cluster, through its own psql and pg_amcheck, and of the live datalake."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from .model import BackupError
from .process import Finished

if TYPE_CHECKING:
    from psycopg import Connection

SAMPLE_TABLES = 20
_RELATIONS = """
SELECT format('%I.%I', nspname, relname) FROM pg_class AS c INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE relkind = 'r' AND relpages > 0 AND relpersistence = 'p' ORDER BY 1
"""
# Hours that are kept with count and hash; a day is closed once recovery has passed it.
_KEPT = """
SELECT coalesce(json_agg(json_build_array(channel, day, hours, kept) ORDER BY 1, 2), '[]') FROM (
    SELECT channel, (hour AT TIME ZONE 'UTC')::date AS day, count(*) AS hours,
        sum(rows)::text || ' ' || sum(hash * (instrument_id + extract(hour FROM hour AT TIME ZONE 'UTC')))::text AS kept
    FROM digests GROUP BY 1, 2
) AS days WHERE day < {until}
"""
# Every column of every row; the same function of the same version on both sides, in whatever order.
_ROWS = """
SELECT count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) FROM {channel} AS t
WHERE time >= '{day} 00:00:00+00' AND time < '{day} 00:00:00+00'::timestamptz + INTERVAL '1 day'
"""
_INSERTS = """
DO $$
DECLARE
    each record;
    names text;
BEGIN
    FOR each IN
        SELECT format('%I.%I', schema_name, table_name) AS name, d.column_name
        FROM _timescaledb_catalog.hypertable AS h
        INNER JOIN _timescaledb_catalog.dimension AS d ON d.hypertable_id = h.id AND d.interval_length IS NOT NULL
        WHERE h.compression_state <> 2 AND schema_name = 'public'
    LOOP
        SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO names FROM pg_attribute
        WHERE attrelid = each.name::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '';
        BEGIN
            EXECUTE format('INSERT INTO %s (%s) SELECT %s FROM %s ORDER BY %I DESC LIMIT 1',
                each.name, names, names, each.name, each.column_name);
        EXCEPTION WHEN unique_violation THEN NULL;  -- asked in the chunk that the row was routed to
        END;
    END LOOP;
END $$
"""


@dataclass(frozen=True)
class Inside:
    """The restored server: programs run in its container; ``database`` is the datalake's name."""

    run: Callable[[list[str]], Finished]
    database: str

    def ask(self, query: str, *, alone: bool = True) -> str:
        """What psql prints of a query. Raises BackupError ``server``."""
        argv = ["psql", "-U", "postgres", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.database]
        # hashtextextended() takes the text of a row, so what text looks like has to be the same on both sides.
        done = self.run([*argv, "-c", "SET timezone = 'UTC'", "-c", query] if alone else [*argv, "-c", query])
        if done.code != 0:
            raise BackupError("server", f"the restored datalake does not answer: {done.said()}")
        return done.stdout.strip()


def amcheck(inside: Inside, scope: str, chance: Random) -> list[str]:
    """Whether every B-tree index and heap page agrees: of all databases, or of some tables of the datalake."""
    command = ["pg_amcheck", "-U", "postgres", "--install-missing", "--jobs", "2"]
    if scope == "full":
        command += ["--all", "--heapallindexed"]
    else:
        tables = inside.ask(_RELATIONS).splitlines()
        chosen = chance.sample(tables, min(SAMPLE_TABLES, len(tables)))
        command += ["--heapallindexed", *(f"--table={table}" for table in chosen), inside.database]
    done = inside.run(command)
    return [] if done.code == 0 else [f"pg_amcheck: {done.said()} {' / '.join(done.stdout.splitlines()[:4])}".strip()]


def _dropped(live: Connection[tuple[Any, ...]]) -> set[tuple[str, str]]:
    """Channel and day of what the live datalake no longer has; UTC."""
    row = live.execute("SELECT to_regclass('public.dropped_chunks') IS NOT NULL").fetchone()
    if row != (True,):
        return set()
    query = (
        "SELECT channel, to_char(day AT TIME ZONE 'UTC', 'YYYY-MM-DD') FROM public.dropped_chunks, "
        "generate_series(date_trunc('day', lower(during), 'UTC'), upper(during) - interval '1 us', interval '1 day')"
        " AS day"
    )
    return {(channel, day) for channel, day in live.execute(query).fetchall()}


def compare_days(
    inside: Inside, live: Connection[tuple[Any, ...]], recovered_to: str | None, scope: str, chance: Random
) -> tuple[int, list[str]]:
    """Each table's rows of each closed day, or of one, against the live datalake; hours compared, and what differs.

    A day whose kept digests were changed in the live datalake since, by late rows, is passed over, and so is one that
    was dropped there.
    """
    if recovered_to is None:
        return 0, []
    until = f"(timestamptz '{recovered_to}' AT TIME ZONE 'UTC')::date"
    live.execute("SET timezone = 'UTC'")
    restored = json.loads(inside.ask(_KEPT.format(until=until)))
    row = live.execute(_KEPT.format(until=until).encode()).fetchone()
    assert row is not None
    today = {(channel, day): kept for channel, day, _, kept in row[0]}
    dropped = _dropped(live)
    closed = [
        (channel, day, hours)
        for channel, day, hours, kept in restored
        if today.get((channel, day)) == kept and (channel, day) not in dropped
    ]
    if scope == "sample":
        channels = sorted({channel for channel, _, _ in closed})
        closed = [chance.choice([each for each in closed if each[0] == channel]) for channel in channels]
    hours, differing = 0, []
    for channel, day, count in closed:
        query = _ROWS.format(channel=channel, day=day)
        found = inside.ask(query)
        wanted = live.execute(query.encode()).fetchone()
        hours += count
        if (found,) != wanted:
            differing.append(f"{channel} of {day}: restored {found} (rows, hash), live {(wanted or ('nothing',))[0]}")
    return hours, differing


def try_inserts(inside: Inside) -> list[str]:
    """Whether every hypertable takes a row."""
    try:
        inside.ask(_INSERTS, alone=False)
    except BackupError as error:
        return [f"a test insert failed: {error}"]
    return []
