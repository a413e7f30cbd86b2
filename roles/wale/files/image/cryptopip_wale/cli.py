"""``cryptopip-wale list|verify NAME|delete NAME|retain N|status|clusters``: answers with one JSON document."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

from cryptopip_wale.archive import archived_files
from cryptopip_wale.catalog import list_backups
from cryptopip_wale.codec import ensure_keys
from cryptopip_wale.config import Config, read_config
from cryptopip_wale.deadline import start_deadline
from cryptopip_wale.errors import WaleError
from cryptopip_wale.retention import delete, retain
from cryptopip_wale.store import Store, clusters, open_store
from cryptopip_wale.verification import verify
from cryptopip_wale.wal import cluster_identifier


def status(store: Store) -> dict[str, Any]:
    """What the store holds of this cluster."""
    archived = sorted(name for name in archived_files(store) if len(name) == 24)
    return {
        "system_identifier": store.identifier,
        "store": store.url,
        "last_archived": archived[-1] if archived else None,
        "backups": len(list_backups(store)[0]),
    }


def all_clusters(config: Config) -> dict[str, Any]:
    """The clusters that the store holds anything of; ``here`` is the one beside us, null where there is none."""
    try:
        here = cluster_identifier(config.data)
    except FileNotFoundError:
        here = None
    rows = []
    for store in clusters(config):
        backups, unreadable = list_backups(store)
        rows.append(
            {
                "system_identifier": store.identifier,
                "backups": len(backups) + len(unreadable),
                "newest": backups[-1]["finished_at"] if backups else None,
            }
        )
    return {"here": here, "clusters": rows}


def run(arguments: argparse.Namespace, config: Config) -> dict[str, Any]:
    """Carry out one command."""
    if arguments.command == "clusters":
        return all_clusters(config)
    store = open_store(config)
    match arguments.command:
        case "list":
            rows, unreadable = list_backups(store)
            return {"backups": rows, "unreadable": unreadable}
        case "verify":
            return {"backup": verify(store, arguments.name), "problems": []}
        case "delete":
            return delete(store, arguments.name, dry_run=arguments.dry_run)
        case "retain":
            return retain(store, arguments.keep, dry_run=arguments.dry_run)
        case _:
            return status(store)


def parser() -> argparse.ArgumentParser:
    """The commands and their arguments."""
    parser = argparse.ArgumentParser(prog="cryptopip-wale", description=__doc__)
    parser.add_argument("--json", action="store_true", help="accepted for clarity: the answer is always JSON")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("list", "verify", "delete", "retain", "status", "clusters"):
        command = commands.add_parser(name)
        if name in ("verify", "delete"):
            command.add_argument("name", help="of the backup, as base_000000010000000000000003_00000040")
        if name == "retain":
            command.add_argument("keep", type=int, help="how many of the newest backups stay")
        if name in ("delete", "retain"):
            command.add_argument("--dry-run", action="store_true", help="only say what would be removed")
        command.add_argument("--json", action="store_true", help=argparse.SUPPRESS)
    return parser


def main() -> None:
    """Exit 0 with the answer, 1 with {error, msg, problems}, 2 for wrong usage, 124 where the deadline passed."""
    arguments = parser().parse_args()
    exit_code = 1
    try:
        config = read_config()
        start_deadline(config.deadline_s, f"cryptopip-wale {arguments.command}")
        ensure_keys(config)
        answer = run(arguments, config)
        exit_code = 0
    except WaleError as error:
        answer = {"error": error.code, "msg": str(error), "problems": error.problems}
    except (OSError, subprocess.SubprocessError) as error:
        answer = {"error": "store", "msg": f"{type(error).__name__}: {error}", "problems": []}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
