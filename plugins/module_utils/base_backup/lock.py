"""One operation on base backups at a time, and none is taken while a restore has changed the server's settings."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .model import BackupError

LOCK = "lock"
RESTORE_JOURNAL = "journal.json"  # of module tuned_restore


@contextlib.contextmanager
def only_one(work: Path, *, check: bool) -> Iterator[None]:
    """Held by one operation of a host; freed once it and the programs it started are gone. Raises ``busy``."""
    if check and not work.is_dir():
        yield
        return
    work.mkdir(mode=0o755, parents=True, exist_ok=True)
    with _flocked(
        work / LOCK, fcntl.LOCK_EX, f"another operation on base backups is at work ({work}): wait for its end."
    ):
        yield


@contextlib.contextmanager
def no_restore(folder: Path, *, check: bool) -> Iterator[None]:
    """No tuned restore runs meanwhile, nor waits to be mended. Raises ``busy``.

    A restore may have fsync and archiving off: a backup of that moment could be torn, and lack its WAL.
    """
    if (folder / RESTORE_JOURNAL).exists():
        raise BackupError(
            "busy",
            f"{folder / RESTORE_JOURNAL} tells of a restore that runs or was interrupted, so the server may have "
            "the settings of the restore: wait for its end, or run tuned_restore with state=reverted.",
        )
    if check and not folder.is_dir():
        yield
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _flocked(folder / LOCK, fcntl.LOCK_SH, f"a restore is at work in {folder}: wait for its end."):
        yield


@contextlib.contextmanager
def _flocked(path: Path, kind: int, otherwise: str) -> Iterator[None]:
    with path.open("a") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BackupError("busy", otherwise) from error
        _inherit(file)
        yield


def _inherit(file: IO[str]) -> None:
    """Programs started under the lock keep it: killed, we leave a push at work that must not be met by another."""
    os.set_inheritable(file.fileno(), True)
