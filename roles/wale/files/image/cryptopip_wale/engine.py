"""``wal-e`` as it was, made to work on PostgreSQL 17 and to keep its word."""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg

from cryptopip_wale import catalog, s3, tablespaces
from cryptopip_wale.codec import ensure_keys, pack
from cryptopip_wale.config import Config, read_config
from cryptopip_wale.deadline import start_deadline
from cryptopip_wale.durable import make_folder
from cryptopip_wale.errors import WaleError
from cryptopip_wale.hotbackup import HotBackup
from cryptopip_wale.progress import tell
from cryptopip_wale.retention import retain, sweep
from cryptopip_wale.store import BASE, FileStore, Store, open_store
from cryptopip_wale.verification import part_problems, required_segments, segment_problem

EXIT_BUSY = 75  # EX_TEMPFAIL
Part = dict[str, Any]


def adapt_store(store: Store, parts: list[Part]) -> None:
    """Have WAL-E write through ``store``, and note what it wrote."""
    from wal_e.blobstore import file, s3  # noqa: PLC0415  # after the deadline's thread: gevent patches threads

    def uri_put_file(creds: Any, uri: str, source: Any, **_: Any) -> SimpleNamespace:
        name = uri.removeprefix(f"{store.wale_prefix}/")
        size, digest = store.put(name, source)
        parts.append({"path": name, "size_bytes": size, "sha256": digest})
        tell(f"{sum(part['size_bytes'] for part in parts) >> 20} MB stored in {len(parts)} partitions")
        return SimpleNamespace(size=size)

    for module in (file, s3):
        module.uri_put_file = uri_put_file


def adapt_connection(config: Config) -> None:
    """Have WAL-E reach S3 as we do: alone it knows no credentials in a file, nor today's signatures at an endpoint."""
    if config.s3 is None:
        return
    from wal_e import cmd  # noqa: PLC0415  # see adapt_store
    from wal_e.blobstore import s3 as wale_s3  # noqa: PLC0415
    from wal_e.blobstore.s3 import calling_format  # noqa: PLC0415

    cmd.s3_explicit_creds = lambda arguments: None
    wale_s3.sigv4_check_apply = lambda: None
    calling_format.from_store_name = lambda name, region=None: SimpleNamespace(
        connect=lambda creds: s3.connect(config.s3)
    )


class Push:
    """One base backup between WAL-E's calls: start, upload, and label and manifest before WAL-E's sentinel."""

    def __init__(self, config: Config, store: Store, parts: list[Part]) -> None:
        self.config = config
        self.store = store
        self.parts = parts
        self.name = ""  # known once the upload has succeeded
        self.hot: HotBackup | None = None

    def start(self) -> dict[str, str]:
        """Open the session that holds the backup."""
        self.hot = HotBackup()
        position = self.hot.start()
        found = self.hot.facts["system_identifier"]
        if found != self.store.identifier:
            expected = f"{self.store.identifier} as in {self.config.data}"
            raise WaleError("foreign", f"the server is {found}, expected {expected}")
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
        folder = f"{BASE}/{self.name}/tar_partitions"
        path = f"{folder}/part_{len(self.store.names(folder)):08d}.tar.lzo"
        size, digest = self.store.put(path, io.BytesIO(pack(self.config, self.hot.label_partition())))
        self.parts.append({"path": path, "size_bytes": size, "sha256": digest})
        total = sum(part["size_bytes"] for part in self.parts)
        spaces = tablespaces.parse_map(self.hot.tablespace_map.decode())
        manifest = {
            "name": self.name,
            "size_bytes": total,
            "parts": self.parts,
            "tablespaces": spaces,
            "gpg_key_id": self.config.gpg_key_id,
        } | self.hot.facts
        # What the server calls archived may have gone elsewhere.
        for segment in required_segments(manifest):
            if problem := segment_problem(self.store, manifest, segment):
                raise WaleError("corrupt", f"the WAL segment {segment}, which the backup needs, {problem}")
        catalog.write_json(self.store, catalog.manifest_path(self.name), manifest)
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


def sweep_where_allowed(store: Store) -> None:
    """Remove what dead pushes left; credentials that cannot delete leave it, where it is never listed."""
    try:
        sweep(store)
    except WaleError as error:
        if error.code != "forbidden":
            raise
        sys.stderr.write(f"wal-e: what an earlier push left unfinished stays: {error}\n")


def push_backup(arguments: argparse.Namespace, config: Config, store: Store, main: Callable[[], None]) -> None:
    """``wal-e backup-push PGDATA``."""
    from wal_e.tar_partition import PARTITION_MAX_SZ  # noqa: PLC0415  # see adapt_store

    if Path(arguments.PG_CLUSTER_DIRECTORY).resolve() != config.data.resolve():
        raise WaleError("usage", f"the folder is {arguments.PG_CLUSTER_DIRECTORY}, expected the server's {config.data}")
    if arguments.while_offline:
        raise WaleError("usage", "--while-offline makes a backup without a label, expected a running server")
    tablespaces.require_visible(config.data)
    refuse_oversized(config.data, PARTITION_MAX_SZ)
    with catalog.exclusive(store):
        sweep_where_allowed(store)
        parts: list[Part] = []
        adapt_store(store, parts)
        adapt_backup(Push(config, store, parts))
        main()


def fetch_backup(arguments: argparse.Namespace, config: Config, store: Store, main: Callable[[], None]) -> None:
    """``wal-e backup-fetch FOLDER NAME`` into a new or empty folder, after the manifest has been checked."""
    name, folder = arguments.BACKUP_NAME, Path(arguments.PG_CLUSTER_DIRECTORY)
    if name == "LATEST":
        rows, _ = catalog.list_backups(store)
        if not rows:
            raise WaleError("not_found", f"{store.wale_prefix} holds no complete backup to fetch")
        name = rows[-1]["name"]
    if folder.is_dir() and any(folder.iterdir()):
        raise WaleError("usage", f"{folder} is not empty, expected a new folder: move it away")
    manifest = catalog.read_manifest(store, name)
    places = tablespaces.place(manifest["tablespaces"], folder, is_home=folder.absolute() == config.data)
    problems = part_problems(store, manifest)
    if problems:
        raise WaleError("corrupt", f"{name} is not whole, nothing was fetched", problems)
    # Whether it is encrypted is the backup's own affair, not that of the key that is set by now.
    os.environ.pop("WALE_GPG_KEY_ID", None)
    if key_id := manifest.get("gpg_key_id"):
        os.environ["WALE_GPG_KEY_ID"] = key_id
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


def delete_backups(arguments: argparse.Namespace, store: Store) -> None:
    """``wal-e delete [--confirm] retain N``; without --confirm it only tells."""
    if arguments.delete_subcommand != "retain":
        raise WaleError(
            "usage",
            f"delete {arguments.delete_subcommand} might leave nothing, expected: wal-e delete --confirm retain N",
        )
    is_dry = arguments.dry_run or not arguments.confirm
    answer = retain(store, int(arguments.NUM_TO_RETAIN), dry_run=is_dry)
    for name in answer["removed"]:
        sys.stdout.write(f"{'would remove' if is_dry else 'removed'} {name}\n")
    sys.stdout.write(f"{'would remove' if is_dry else 'removed'} {len(answer['removed_wal'])} files of WAL\n")


def run(config: Config) -> None:
    """Prepare for the operation, then hand over to WAL-E's own main."""
    ensure_keys(config)
    from wal_e import cmd  # noqa: PLC0415  # see adapt_store

    store = open_store(config)
    make_folder(config.scratch)
    if isinstance(store, FileStore):
        for folder in ("basebackups_005", "wal_005"):
            make_folder(store.root / folder)
    adapt_connection(config)
    os.environ |= {
        "WALE_S3_PREFIX" if config.s3 else "WALE_FILE_PREFIX": store.wale_prefix,
        "WALE_LOG_DESTINATION": "stderr",
        "TMPDIR": str(config.scratch),
    }
    arguments = cmd.build_parser().parse_args()
    match arguments.subcommand:
        case "backup-push":
            push_backup(arguments, config, store, cmd.main)
        case "backup-fetch":
            fetch_backup(arguments, config, store, cmd.main)
        case "delete":
            delete_backups(arguments, store)
        case "wal-push":
            raise WaleError("usage", "wal-push overwrites, expected PostgreSQL to archive through cryptopip-wal push")
        case _:
            cmd.main()


def main() -> None:
    """WAL-E's exit codes; 75 for a second push, 1 for a refusal, 124 where the deadline passed."""
    try:
        config = read_config()
        start_deadline(config.deadline_s, f"wal-e {' '.join(sys.argv[1:])}")
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
