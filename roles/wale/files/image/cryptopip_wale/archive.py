"""The WAL archive: WAL-E's layout (wal_005/NAME.lzo), written so that an acknowledged file survives a crash."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from cryptopip_wale.config import Config, prefix
from cryptopip_wale.durable import make_folder, sync_folder, write_durably
from cryptopip_wale.errors import WaleError
from cryptopip_wale.wal import SEGMENT, cluster_identifier, require_archivable, segment_header

LZOP_S = 60  # one WAL segment; a store that takes longer is as good as gone


def archived_path(root: Path, name: str) -> Path:
    """Where the archive keeps the file ``name``."""
    return root / "wal_005" / f"{name}.lzo"


def unpack(path: Path) -> bytes:
    """The content of one archived file; raises ``corrupt`` where lzop's checksums say so."""
    done = subprocess.run(["lzop", "-dc", str(path)], capture_output=True, check=False, timeout=LZOP_S)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise WaleError("corrupt", f"{path} does not unpack (lzop exit {done.returncode}): {said}")
    return done.stdout


def push(config: Config, name: str) -> str:
    """Archive PGDATA/pg_wal/NAME; ``stored`` or ``identical``, both durable when this returns.

    Raises ``foreign`` for another cluster's segment, ``different`` where the archive holds other bytes by that name.
    """
    require_archivable(name)
    content = (config.data / "pg_wal" / name).read_bytes()
    if SEGMENT.fullmatch(name):
        found, expected = segment_header(content)[0], cluster_identifier(config.data)
        if found != expected:
            raise WaleError(
                "foreign", f"{name} is of system identifier {found}, expected {expected}: it is another cluster's"
            )
    target = archived_path(prefix(config), name)
    if target.exists():
        if unpack(target) != content:
            raise WaleError(
                "different",
                f"{target} holds other bytes than {name} in pg_wal: a copy of this cluster archives here too; "
                "stop it, or move the store away",
            )
        sync_folder(target.parent)  # the push that wrote it may have died before its own
        return "identical"
    make_folder(config.scratch)
    with tempfile.TemporaryFile(dir=config.scratch) as packed:
        subprocess.run(["lzop", "-c"], input=content, stdout=packed, check=True, timeout=LZOP_S)
        packed.seek(0)
        write_durably(target, packed, config.scratch)
    return "stored"


def fetch(config: Config, name: str) -> bytes:
    """The archived file ``name``; ``not_found`` only where this cluster's archive is there and lacks it."""
    require_archivable(name)
    target = archived_path(prefix(config), name)
    # A store that is not mounted has no end of WAL.
    if not target.parent.is_dir():
        raise WaleError("store", f"{target.parent} does not exist: is the store of this cluster mounted?")
    if not target.exists():
        raise WaleError("not_found", f"{target} is not in the archive")
    return unpack(target)
