"""``wal-e`` as it was, made to work on PostgreSQL 17 and to keep its word."""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from cryptopip_wale import catalog, tablespaces
from cryptopip_wale.config import Config, prefix, read_config
from cryptopip_wale.deadline import start_deadline
from cryptopip_wale.durable import adopt_durably, make_folder, write_durably
from cryptopip_wale.errors import WaleError
from cryptopip_wale.hotbackup import HotBackup
from cryptopip_wale.progress import tell
from cryptopip_wale.retention import retain, sweep
from cryptopip_wale.verification import part_problems, required_segments, segment_problem

EXIT_BUSY = 75  # EX_TEMPFAIL
Part = dict[str, Any]


def adapt_store(config: Config, parts: list[Part]) -> None:
    """Have WAL-E's file store write durably, and note what it wrote."""
    from wal_e.blobstore.file import calling_format  # noqa: PLC0415  # after the deadline's thread: gevent patches threads

    root = prefix(config)

    def set_contents_from_file(key: Any, source: Any) -> None:
        path = Path(key.path)
        if isinstance(getattr(source, "name", None), str):
            size, digest = adopt_durably(path, source)
        else:
            size, digest = write_durably(path, source, config.scratch)
        key.size = size
        parts.append({"path": str(path.relative_to(root)), "size_bytes": size, "sha256": digest})
        tell(f"{sum(part['size_bytes'] for part in parts) >> 20} MB stored in {len(parts)} partitions")

    calling_format.FileKey.set_contents_from_file = set_contents_from_file


class Push:
    """One base backup between WAL-E's calls: start, upload, and label and manifest before WAL-E's sentinel."""

    def __init__(self, config: Config, parts: list[Part]) -> None:
        self.root = prefix(config)
        self.config = config
        self.parts = parts
        self.name = ""  # known once the upload has succeeded
        self.hot: HotBackup | None = None

    def start(self) -> dict[str, str]:
        """Open the session that holds the backup."""
        self.hot = HotBackup()
        position = self.hot.start()
        found = self.hot.facts["system_identifier"]
        if found != self.root.name:
            raise WaleError("foreign", f"the server is {found}, expected {self.root.name} as in {self.config.data}")
        return position

    def version(self) -> dict[str, str]:
        """Of the server."""
        if self.hot is None:
            raise WaleError("server", "the backup has not been started")
        return self.hot.version()

    def stop(self) -> dict[str, str]:
        """End the backup on the server; then the label, then the manifest. Called by WAL-E after failures too."""
        if self.hot is None or not self.name:
            if self.hot is not None:
                self.hot.session.close()  # which ends the backup without one
            # WAL-E calls this while the upload's error is on its way.
            raise WaleError("store", f"the backup is given up, what it wrote is not listed: {sys.exc_info()[1]!r}")
        position = self.hot.stop()
        folder = self.root / "basebackups_005" / self.name
        number = len(list((folder / "tar_partitions").iterdir()))
        path = folder / "tar_partitions" / f"part_{number:08d}.tar.lzo"
        size, digest = write_durably(path, io.BytesIO(self.hot.label_partition()), self.config.scratch)
        self.parts.append({"path": str(path.relative_to(self.root)), "size_bytes": size, "sha256": digest})
        total = sum(part["size_bytes"] for part in self.parts)
        spaces = tablespaces.parse_map(self.hot.tablespace_map.decode())
        manifest = {"name": self.name, "size_bytes": total, "parts": self.parts, "tablespaces": spaces} | self.hot.facts
        # What the server calls archived may have gone elsewhere.
        for segment in required_segments(manifest):
            if problem := segment_problem(self.root, manifest, segment):
                raise WaleError("corrupt", f"the WAL segment {segment}, which the backup needs, {problem}")
        catalog.write_json(self.root, catalog.manifest_path(self.root, self.name), manifest)
        return position


def adapt_backup(push: Push) -> None:
    """Put ``push`` where WAL-E calls PostgreSQL 14's functions through psql."""
    from wal_e import exception  # noqa: PLC0415  # see adapt_store
    from wal_e.operator import backup as operator  # noqa: PLC0415

    upload = operator.Backup._upload_pg_cluster_dir

    def upload_and_note(self: Any, start: dict[str, str], *args: Any, **kwargs: Any) -> Any:
        result = upload(self, start, *args, **kwargs)
        push.name = Path(result[1]).name
        return result

    def told(step: Callable[[], dict[str, str]]) -> Callable[[], dict[str, str]]:
        """The step, its failures as the kind that WAL-E tells in one line instead of a traceback."""

        def run() -> dict[str, str]:
            try:
                return step()
            except (WaleError, psycopg.Error, OSError, subprocess.SubprocessError) as error:
                raise exception.UserException(msg=f"{type(error).__name__}: {str(error).strip()}") from error

        return run

    class Statements:
        run_start_backup = staticmethod(told(push.start))
        run_stop_backup = staticmethod(told(push.stop))
        pg_version = staticmethod(told(push.version))

    operator.Backup._upload_pg_cluster_dir = upload_and_note
    operator.PgBackupStatements = Statements


def _cluster_files(data: Path) -> Iterator[Path]:
    """Every file of the cluster, those in its tablespaces too, but for the WAL."""
    for top in (data, *(data / "pg_tblspc").iterdir()):
        for folder, folders, files in os.walk(top):
            if Path(folder) == data and "pg_wal" in folders:
                folders.remove("pg_wal")
            yield from (Path(folder, name) for name in files)


def refuse_oversized(data: Path, limit: int) -> None:
    """Refuse a file that fits no partition before anything is uploaded; PostgreSQL's own end at 1 GiB."""
    for path in _cluster_files(data):
        if path.exists() and (size := path.stat().st_size) > limit:
            raise WaleError(
                "usage", f"{path} has {size} bytes, expected at most {limit}: it is not PostgreSQL's, move it out"
            )


def push_backup(arguments: argparse.Namespace, config: Config, main: Callable[[], None]) -> None:
    """``wal-e backup-push PGDATA``."""
    from wal_e.tar_partition import PARTITION_MAX_SZ  # noqa: PLC0415  # see adapt_store

    root = prefix(config)
    if Path(arguments.PG_CLUSTER_DIRECTORY).resolve() != config.data.resolve():
        raise WaleError("usage", f"the folder is {arguments.PG_CLUSTER_DIRECTORY}, expected the server's {config.data}")
    if arguments.while_offline:
        raise WaleError("usage", "--while-offline makes a backup without a label, expected a running server")
    tablespaces.require_visible(config.data)
    refuse_oversized(config.data, PARTITION_MAX_SZ)
    with catalog.exclusive(root):
        sweep(root)
        parts: list[Part] = []
        adapt_store(config, parts)
        adapt_backup(Push(config, parts))
        main()


def fetch_backup(arguments: argparse.Namespace, config: Config, main: Callable[[], None]) -> None:
    """``wal-e backup-fetch FOLDER NAME`` into a new or empty folder, after the manifest has been checked."""
    root, name, folder = prefix(config), arguments.BACKUP_NAME, Path(arguments.PG_CLUSTER_DIRECTORY)
    if name == "LATEST":
        rows, _ = catalog.list_backups(root)
        if not rows:
            raise WaleError("not_found", f"{root} holds no complete backup to fetch")
        name = rows[-1]["name"]
    if folder.is_dir() and any(folder.iterdir()):
        raise WaleError("usage", f"{folder} is not empty, expected a new folder: move it away")
    manifest = catalog.read_manifest(root, name)
    places = tablespaces.place(manifest["tablespaces"], folder, is_home=folder.absolute() == config.data)
    problems = part_problems(root, manifest)
    if problems:
        raise WaleError("corrupt", f"{name} is not whole, nothing was fetched", problems)
    sys.argv = [name if word == arguments.BACKUP_NAME else word for word in sys.argv]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    tablespaces.link(places, folder)
    main()
    if not (folder / "backup_label").is_file():
        raise WaleError("corrupt", f"{name} gave no backup_label, so {folder} must not be started: remove it")
    if places:
        tablespaces.write_map(places, folder)
    give_own_wal(folder)


def give_own_wal(folder: Path) -> None:
    """Give the restored cluster a WAL folder of its own: the one in the backup is a link to the live cluster's."""
    wal = folder / "pg_wal"
    if wal.is_symlink():
        wal.unlink()
    make_folder(wal / "archive_status")


def delete_backups(arguments: argparse.Namespace, config: Config) -> None:
    """``wal-e delete [--confirm] retain N``; without --confirm it only tells."""
    if arguments.delete_subcommand != "retain":
        raise WaleError(
            "usage",
            f"delete {arguments.delete_subcommand} might leave nothing, expected: wal-e delete --confirm retain N",
        )
    is_dry = arguments.dry_run or not arguments.confirm
    answer = retain(prefix(config), int(arguments.NUM_TO_RETAIN), dry_run=is_dry)
    for name in answer["removed"]:
        sys.stdout.write(f"{'would remove' if is_dry else 'removed'} {name}\n")
    sys.stdout.write(f"{'would remove' if is_dry else 'removed'} {len(answer['removed_wal'])} files of WAL\n")


def run(config: Config) -> None:
    """Prepare for the operation, then hand over to WAL-E's own main."""
    root = prefix(config)
    for folder in (config.scratch, root / "basebackups_005", root / "wal_005"):
        make_folder(folder)
    os.environ |= {
        "WALE_FILE_PREFIX": f"file://localhost{root}",
        "WALE_LOG_DESTINATION": "stderr",
        "TMPDIR": str(config.scratch),
    }
    from wal_e import cmd  # noqa: PLC0415  # see adapt_store

    arguments = cmd.build_parser().parse_args()
    match arguments.subcommand:
        case "backup-push":
            push_backup(arguments, config, cmd.main)
        case "backup-fetch":
            fetch_backup(arguments, config, cmd.main)
        case "delete":
            delete_backups(arguments, config)
        case "wal-push":
            raise WaleError("usage", "wal-push overwrites, expected PostgreSQL to archive through cryptopip-wal push")
        case _:
            cmd.main()


def main() -> None:
    """WAL-E's exit codes; 75 for a second push, 1 for a refusal, 124 where the deadline passed."""
    config = read_config()
    start_deadline(config.deadline_s, f"wal-e {' '.join(sys.argv[1:])}")
    try:
        run(config)
    except WaleError as error:
        lines = [f"wal-e: {error}", *(f"  {problem['object']}: {problem['problem']}" for problem in error.problems)]
        sys.stderr.write("\n".join(lines) + "\n")
        sys.exit(EXIT_BUSY if error.code == "busy" else 1)
    except (OSError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"wal-e: {type(error).__name__}: {error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
