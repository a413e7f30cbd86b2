"""One restore or dump at a time for a work path, which stands for a cluster."""

from __future__ import annotations

import contextlib
import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .progress import remove_progress
from .run import RestoreError

NAME = "lock"


@contextlib.contextmanager
def locked(folder: Path, *, check: bool) -> Iterator[Path]:
    """Gives the folder to work in, a passing one in check mode where it is not there. Raises RestoreError if taken."""
    if check and not folder.is_dir():
        with tempfile.TemporaryDirectory(prefix="tuned_restore_") as scratch:
            yield Path(scratch)
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / NAME).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RestoreError(
                f"another restore or dump is at work in {folder}: wait for its end, or give each cluster a work_path."
            ) from error
        try:
            yield folder
        finally:
            remove_progress(folder)
