"""What scenarios of the whole chain are made of."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import psycopg

from collectors.simulator import Truth
from tests.integration.harness.fleet import Fleet, Ingestor
from tests.integration.harness.rows import held_rows, true_rows

SYMBOLS = ["BTCUSDT", "ETHUSDT"]
MakeFleet = Callable[..., Fleet]


def trade_for(seconds: float) -> None:
    """Let the exchange trade: time is what a scenario is made of, and no outcome depends on its length."""
    time.sleep(seconds)


def last_moment() -> int:
    """A moment up to which every listener must have received something, ns since 1970."""
    return time.time_ns() - 1_000_000_000


def missing_on(fleet: Fleet, ingestor: Ingestor, since_ns: int) -> dict[str, int]:
    """How many true events of each channel this ingestor has not: the harm that the other one makes good."""
    truth = Truth.read(fleet.exchange.truth_folder)
    missing = dict.fromkeys(map(str, fleet.channels), 0)
    with psycopg.connect(ingestor.dsn, client_encoding="UTF8") as connection:
        for symbol, instrument in fleet.instruments.items():
            for channel in fleet.channels:
                true = true_rows(truth.symbols[symbol], channel, fleet.wire)
                wanted = Counter(sent.row for sent in true if sent.sent_ns >= since_ns)
                missing[channel] += (wanted - Counter(held_rows(connection, instrument, channel, fleet.wire))).total()
    return missing
