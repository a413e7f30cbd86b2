"""Where things are, from the container's environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptopip_wale.errors import WaleError
from cryptopip_wale.wal import cluster_identifier


@dataclass(frozen=True)
class Config:
    """The folders, the socket and the deadline of one sidecar."""

    data: Path
    store: Path
    socket: Path
    token_file: Path
    deadline_s: int

    @property
    def scratch(self) -> Path:
        """For files on their way into the store: the same file system."""
        return self.store / "tmp"


def read_config(environment: Mapping[str, str] = os.environ) -> Config:
    """The configuration; what is not set is where the role puts it."""
    return Config(
        data=Path(environment.get("PGDATA", "/var/lib/postgresql/data/pg_data")),
        store=Path(environment.get("CRYPTOPIP_WALE_STORE", "/var/lib/cryptopip-wale")),
        socket=Path(environment.get("CRYPTOPIP_WALE_SOCKET", "/run/cryptopip/postgresql/wale.sock")),
        token_file=Path(environment.get("CRYPTOPIP_WALE_TOKEN_FILE", "/etc/cryptopip/postgresql/wale.token")),
        deadline_s=int(environment.get("CRYPTOPIP_WALE_DEADLINE_S", "86400")),
    )


def system_identifier(config: Config) -> str:
    """Of the cluster beside us; on a machine that lost it, of the only one in the store."""
    try:
        return cluster_identifier(config.data)
    except FileNotFoundError:
        known = sorted(path.name for path in config.store.glob("*") if path.name.isdigit())
        if len(known) != 1:
            raise WaleError(
                "store",
                f"{config.data} holds no cluster and {config.store} holds backups of {', '.join(known) or 'none'}, "
                "expected exactly one: mount the data folder, or a store with one cluster's backups",
            ) from None
        return known[0]


def prefix(config: Config) -> Path:
    """The folder of this cluster's backups and WAL: one per system identifier, so no cluster writes over another's."""
    return config.store / system_identifier(config)
