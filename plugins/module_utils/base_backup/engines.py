"""The engines by name, and what each needs of the module's options."""

from __future__ import annotations

from collections.abc import Callable

from .contract import Engine
from .pgbackrest import PgBackRest
from .wal_e import WalE

ENGINES: dict[str, Callable[[str | None], Engine]] = {
    "wal_e": WalE.on,
    "pgbackrest": PgBackRest.on,
}
"""Option ``engine`` -> what makes it of the option ``container`` (None: the engine's own default)."""
