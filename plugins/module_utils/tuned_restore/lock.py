"""One restore at a time for a work path, which stands for a cluster; dumps keep restores out, and one another.

Base backups keep restores out as well, by a shared lock on the same file; dumps and base backups do not disturb each
other.
"""

from __future__ import annotations

import contextlib
import fcntl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from .progress import remove_progress
from .run import AtWorkError, RestoreError

NAME, DUMPS = "lock", "dump.lock"


@contextlib.contextmanager
def locked(folder: Path, *, check: bool) -> Iterator[Path]:
    """For a restore: gives the folder to work in, a passing one in check mode where there is none yet.

    Raises AtWorkError where another restore is at work, RestoreError where a dump or a base backup is.
    """

    def taken() -> RestoreError:
        with (folder / NAME).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # as dumps and base backups have it
            except BlockingIOError:
                return AtWorkError(
                    f"another restore is at work in {folder}: wait for its end and run again, or give each cluster a "
                    "work_path."
                )
        return RestoreError(
            f"a dump or a base backup is at work in {folder} and keeps restores out: wait for its end and run again."
        )

    with _folder(folder, check=check) as work, _flocked(work / NAME, fcntl.LOCK_EX, taken):
        try:
            yield work
        finally:
            remove_progress(work)


@contextlib.contextmanager
def dumping(folder: Path, *, check: bool) -> Iterator[Path]:
    """For a dump: likewise. Raises RestoreError where another dump or a restore is at work."""

    def dump() -> RestoreError:
        return RestoreError(f"another dump is at work in {folder}: wait for its end, or give each cluster a work_path.")

    def restore() -> RestoreError:
        return AtWorkError(f"a restore is at work in {folder}: wait for its end.")

    with (
        _folder(folder, check=check) as work,
        _flocked(work / DUMPS, fcntl.LOCK_EX, dump),
        _flocked(work / NAME, fcntl.LOCK_SH, restore),
    ):
        try:
            yield work
        finally:
            remove_progress(work)


@contextlib.contextmanager
def _folder(folder: Path, *, check: bool) -> Iterator[Path]:
    if check and not folder.is_dir():
        with tempfile.TemporaryDirectory(prefix="tuned_restore_") as scratch:
            yield Path(scratch)
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    yield folder


@contextlib.contextmanager
def _flocked(path: Path, kind: int, otherwise: Callable[[], RestoreError]) -> Iterator[None]:
    with path.open("a") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise otherwise() from error
        yield
