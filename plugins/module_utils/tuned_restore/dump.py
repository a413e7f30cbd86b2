"""What a dump holds, told from the SQL that it stands for: rows of each table, extensions, roles. Pure.

``INSPECT`` reads the whole dump once, so that one that is truncated or corrupt is found before anything has changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

# Runs in a container of the database image: $1 is the dump, $2 its format, $3 gzip where it is read through that. One
# line for what matters, with a letter (INSERT where a table's data are told, as bodies of functions have it too):
# C and N a table and its rows and bytes, M a row of TimescaleDB's metadata, S a statement, E the dump's last line.
INSPECT = r"""
set -euo pipefail
sql() {
    case $2-$3 in
    plain-gzip) gzip --decompress --stdout -- "$1" ;;
    *-gzip) gzip --decompress --stdout -- "$1" | pg_restore --file=- ;;
    plain-*) cat -- "$1" ;;
    *) pg_restore --file=- "$1" ;;
    esac
}
sql "$@" | LC_ALL=C awk '
copying && $0 == "\\." { printf "N\t%.0f\t%.0f\n", rows, bytes; copying = 0; next }
copying { rows++; bytes += length($0) + 1; if (metadata) print "M\t" $0; next }
/^COPY .* FROM stdin;$/ {
    print "C\t" $0; copying = 1; rows = 0; bytes = 0; metadata = index($0, "COPY _timescaledb_catalog.metadata ") == 1
    next
}
/^-- (Data for )?Name: .*; Type: / { data = index($0, "-- Data for ") == 1; next }
/^INSERT INTO / { inserts = inserts || data; next }
/^(ALTER [^;]* OWNER TO |GRANT |ALTER DEFAULT PRIVILEGES |CREATE EXTENSION )/ { print "S\t" $0 }
/^-- PostgreSQL database dump complete/ { print "E" }
END { if (inserts) print "I" }'
"""

_NAME = r'(?:"(?:[^"]|"")+"|[a-z_\u0080-\uffff][a-z0-9_$\u0080-\uffff]*)'
_COPY = re.compile(rf"COPY ({_NAME}\.{_NAME}) ")
_OWNER = re.compile(rf" OWNER TO ({_NAME});$")
_GRANTEE = re.compile(rf" TO (?:GROUP )?({_NAME}|PUBLIC)(?: WITH GRANT OPTION)?(?: GRANTED BY {_NAME})?;$")
_DEFAULTS_OF = re.compile(rf"^ALTER DEFAULT PRIVILEGES FOR ROLE ({_NAME}) ")
_EXTENSION = re.compile(rf"^CREATE EXTENSION (?:IF NOT EXISTS )?({_NAME})(?: WITH SCHEMA ({_NAME}))?")
_ENTRIES = re.compile(r"^;\s+TOC Entries: (\d+)$", re.MULTILINE)
_ENTRY = re.compile(r"^\d+; \d+ \d+ ", re.MULTILINE)

CATALOG_SCHEMAS = ("_timescaledb_catalog", "_timescaledb_config", "_timescaledb_cache")
"""Schemas whose rows refer to one another, so that they are loaded with one job."""


class DumpError(Exception):
    """The dump cannot be restored: what was found, what was expected, what to do."""


@dataclass(frozen=True)
class Contents:
    """``rows``: table as SQL names it -> own rows; ``copy_bytes``: of their text; ``extensions``: name -> schema."""

    rows: Mapping[str, int]
    copy_bytes: int
    extensions: Mapping[str, str | None]
    roles: frozenset[str]
    timescaledb: str | None

    @property
    def user_rows(self) -> int:
        """Rows outside of TimescaleDB's catalog."""
        return sum(n for table, n in self.rows.items() if table.split(".")[0] not in CATALOG_SCHEMAS)


def unquote(name: str) -> str:
    """An identifier as SQL writes it -> as it is called."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def read_contents(output: str) -> Contents:
    """The answer of ``INSPECT``. Raises DumpError where the dump ends early, or holds rows as INSERT statements."""
    rows: dict[str, int] = {}
    extensions: dict[str, str | None] = {}
    roles: set[str] = set()
    copy_bytes = 0
    version = table = None
    complete = False
    for line in output.splitlines():
        letter, _, rest = line.partition("\t")
        match letter:
            case "C":
                named = _COPY.match(rest)
                if not named:
                    raise DumpError(f"the dump copies into a table named in no known way: {rest[:120]}")
                table = named[1]
            case "N":
                count, size = rest.split("\t")
                assert table is not None
                rows[table] = rows.get(table, 0) + int(count)
                copy_bytes += int(size)
                table = None
            case "M":
                key, value, *_ = rest.split("\t")
                version = value if key == "timescaledb_version" else version
            case "S":
                roles |= _roles_in(rest)
                if created := _EXTENSION.match(rest):
                    extensions[unquote(created[1])] = unquote(created[2]) if created[2] else None
            case "E":
                complete = True
            case "I":
                raise DumpError(
                    "the dump holds rows as INSERT statements, expected COPY: dump again without --inserts, or restore "
                    "it with psql by hand."
                )
            case _:
                raise DumpError(f"reading the dump gave a line of no known kind: {line[:120]}")
    if table is not None or not complete:
        where = f"in the rows of {table}" if table else "before its last line"
        raise DumpError(f"the dump ends {where}: it is truncated; fetch or make it again.")
    if "timescaledb" in extensions and version is None:
        raise DumpError(
            "the dump has the extension timescaledb but not its version (timescaledb_version in "
            "_timescaledb_catalog.metadata): it was made without the catalog; dump the whole database again."
        )
    return Contents(rows, copy_bytes, extensions, frozenset(roles), version)


def _roles_in(statement: str) -> set[str]:
    if statement.startswith("CREATE EXTENSION"):
        return set()
    found = [match[1] for pattern in (_OWNER, _GRANTEE, _DEFAULTS_OF) if (match := pattern.search(statement))]
    return {unquote(name) for name in found if name != "PUBLIC"}


def check_contents_list(text: str) -> int:
    """How many entries ``pg_restore --list`` tells; raises DumpError where it is not a whole list."""
    told = _ENTRIES.search(text)
    listed = len(_ENTRY.findall(text))
    if not told or not listed:
        raise DumpError("pg_restore --list shows no contents: the dump is empty or damaged; fetch or make it again.")
    return listed


def check_versions(contents: Contents, available: Mapping[str, frozenset[str]]) -> None:
    """Raise DumpError where the server lacks an extension of the dump, or TimescaleDB in its version.

    ``available``: name -> versions that the server can create.
    """
    missing = sorted(name for name in contents.extensions if name not in available)
    if missing:
        raise DumpError(
            f"the dump needs the extensions {', '.join(missing)}, which the server does not have: install their "
            "packages in the database image."
        )
    if contents.timescaledb is None:
        return
    versions = available["timescaledb"]
    if contents.timescaledb not in versions:
        raise DumpError(
            f"the dump was made under TimescaleDB {contents.timescaledb}, the server has "
            f"{', '.join(sorted(versions)) or 'none'}; a dump is only whole in its own version. Restore it on a server "
            f"with {contents.timescaledb} of the same PostgreSQL, run ALTER EXTENSION timescaledb UPDATE there under "
            "an image that has both versions, and dump that."
        )


def check_roles(contents: Contents, present: frozenset[str]) -> None:
    """Raise DumpError where roles that own or may use what is in the dump are not on the server."""
    missing = sorted(contents.roles - present)
    if missing:
        raise DumpError(
            f"the dump gives objects or rights to roles that the server does not have: {', '.join(missing)}. Create "
            "them (the role timescaledb and schema_migration make the fleet's), or restore the dump of the globals."
        )
