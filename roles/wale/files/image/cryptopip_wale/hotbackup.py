"""A non-exclusive base backup: PostgreSQL 15 dropped the calls that WAL-E 1.1.1 makes."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import psycopg

from cryptopip_wale.errors import WaleError

STATEMENT_S = 1800  # for one statement: the checkpoint at the start, the wait for the archive at the end
# On a SQL_ASCII database psycopg returns bytes unless told what the client speaks.
_CONNINFO = (
    "dbname=postgres client_encoding=utf8 application_name=cryptopip-wale connect_timeout=30 "
    f"options='-c statement_timeout={STATEMENT_S}s'"
)
_POSITION = "SELECT file_name, lpad(file_offset::text, 8, '0') FROM pg_walfile_name_offset(%s)"
_NOW = """SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


class HotBackup:
    """One session from start to stop; closing it without a stop makes the server forget the backup."""

    def __init__(self) -> None:
        self.session = psycopg.connect(_CONNINFO, autocommit=True)
        self.facts: dict[str, Any] = {}
        self.label = b""
        self.tablespace_map = b""

    def _one(self, query: str, *values: object) -> tuple[Any, ...]:
        row = self.session.execute(query.encode(), values or None).fetchone()
        if row is None:
            raise WaleError("server", f"the server answered nothing to {query!r}")
        return tuple(row)

    def _position(self, lsn: str) -> dict[str, str]:
        name, offset = self._one(_POSITION, lsn)
        return {"file_name": name, "file_offset": offset}

    def start(self) -> dict[str, str]:
        """Begin; WAL-E's name of the position."""
        if self._one("SELECT current_setting('archive_mode')") == ("off",):
            raise WaleError(
                "usage",
                "archive_mode is off on the server, expected on: without its WAL no base backup can be restored",
            )
        (lsn,) = self._one("SELECT pg_backup_start('cryptopip-wale', true)::text")
        position = self._position(lsn)
        self.facts = {
            "start_lsn": lsn,
            "started_at": self._one(_NOW)[0],
            "system_identifier": self._one("SELECT system_identifier::text FROM pg_control_system()")[0],
            "wal_segment_bytes": self._one("SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'")[
                0
            ],
            "timeline": int(position["file_name"][:8], 16),
        }
        return position

    def stop(self) -> dict[str, str]:
        """End; returns once the server has seen all WAL that the backup needs archived."""
        lsn, label, spaces = self._one("SELECT lsn::text, labelfile, spcmapfile FROM pg_backup_stop(true)")
        self.label, self.tablespace_map = label.encode(), (spaces or "").encode()
        self.facts |= {"stop_lsn": lsn, "finished_at": self._one(_NOW)[0]}
        return self._position(lsn)

    def version(self) -> dict[str, str]:
        """WAL-E keeps it as extended_version.txt."""
        return {"version": self._one("SELECT version()")[0]}

    def label_partition(self) -> bytes:
        """The label, and the tablespace map where there is one, as one tar."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, content in (("backup_label", self.label), ("tablespace_map", self.tablespace_map)):
                if content:
                    info = tarfile.TarInfo(name)
                    info.size, info.mode = len(content), 0o600
                    tar.addfile(info, io.BytesIO(content))
        return buffer.getvalue()
