"""What the tests of the whole chain share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import fresh_database
from tests.integration.harness.fleet import Fleet
from tests.integration.harness.scenario import SYMBOLS, MakeFleet


@pytest.fixture
def make_fleet(tmp_path: Path, server_dsn: str, datalake_dsn: str) -> Iterator[MakeFleet]:
    """Builds a fleet of so many ingestors with fresh databases, and clears it away."""
    with ExitStack() as stack:

        def make(ingestors: int = 2, **options: Any) -> Fleet:
            database = contextmanager(fresh_database)
            dsns = [stack.enter_context(database(server_dsn, "ingestor")) for _ in range(ingestors)]
            fleet = Fleet(tmp_path, dsns, datalake_dsn, symbols=SYMBOLS, **options)
            stack.callback(fleet.close)
            return fleet

        yield make
