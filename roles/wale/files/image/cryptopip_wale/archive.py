"""The WAL archive: WAL-E's layout (wal_005/NAME.lzo), written so that an acknowledged file survives a crash."""

from __future__ import annotations

import io

from cryptopip_wale.codec import pack, unpack
from cryptopip_wale.config import Config
from cryptopip_wale.errors import WaleError
from cryptopip_wale.store import Store
from cryptopip_wale.wal import SEGMENT, require_archivable, segment_header

FOLDER = "wal_005"


def archived_name(name: str) -> str:
    """Where the store keeps the archived file ``name``."""
    return f"{FOLDER}/{name}.lzo"


def archived_files(store: Store) -> list[str]:
    """Names of all archived files."""
    return [name.removesuffix(".lzo") for name in store.names(FOLDER) if name.endswith(".lzo")]


def push(config: Config, store: Store, name: str) -> str:
    """Archive PGDATA/pg_wal/NAME; ``stored`` or ``identical``, both durable when this returns.

    Raises ``foreign`` for another cluster's segment, ``different`` where the archive holds other bytes by that name.
    """
    require_archivable(name)
    content = (config.data / "pg_wal" / name).read_bytes()
    if SEGMENT.fullmatch(name):
        found = segment_header(content)[0]
        if found != store.identifier:
            raise WaleError(
                "foreign",
                f"{name} is of system identifier {found}, expected {store.identifier}: it is another cluster's",
            )
    target = archived_name(name)
    if store.size(target) is None:
        try:
            store.put(target, io.BytesIO(pack(config, content)), is_new=True)
        except FileExistsError:
            pass  # another was faster, or our own write arrived and its answer did not
        else:
            return "stored"
    if unpack(store.read(target), target) != content:
        raise WaleError(
            "different",
            f"{target} in {store.wale_prefix} holds other bytes than {name} in pg_wal: a copy of this cluster archives "
            "here too; stop it, or move the store away",
        )
    store.settle(target)  # the push that wrote it may have died before its own
    return "identical"


def fetch(store: Store, name: str) -> bytes:
    """The archived file ``name``; ``not_found`` only where this cluster's archive is there and lacks it."""
    require_archivable(name)
    target = archived_name(name)
    try:
        packed = store.read(target)
    except FileNotFoundError:
        # A store that is not mounted has no end of WAL.
        if not store.has_archive():
            raise WaleError(
                "store", f"{store.wale_prefix} holds no archive: is it this cluster's, and mounted?"
            ) from None
        raise WaleError("not_found", f"{target} is not in the archive {store.wale_prefix}") from None
    return unpack(packed, target)
