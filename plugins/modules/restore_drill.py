#!/usr/bin/python
"""Ansible module: rehearse a restore beside the running server; the work is in module_utils/base_backup/drill."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restore_drill
short_description: Restore a base backup beside the running server, check it, and remove it again
version_added: 0.1.0
description:
  - Fetches the newest base backup into a folder beside the live cluster and recovers it in a container of its own,
    without network, capabilities, background workers or a way to the live files, under limits of CPU, memory and I/O.
  - Then it checks tables and indexes with C(pg_amcheck --heapallindexed), compares every row of closed days with the
    live datalake by hash, inserts a row into every hypertable, and checks every page's checksum. It fails where
    any of it is not well, naming it in RV(problems).
options:
  target:
    description: What to recover to, as of module M(cryptopip.marketdata.base_restore).
    type: str
    default: latest
  backup:
    description: Name of the backup, instead of the newest that ends before the target.
    type: str
  scope:
    description:
      - V(full) checks everything. V(sample) checks 20 tables with their indexes and one closed day of each channel, all
        by chance, and no checksums of pages.
    type: str
    choices: [full, sample]
    default: full
  engine:
    description: Which engine keeps the backups.
    type: str
    choices: [wal_e, pgbackrest]
    default: wal_e
    aliases: [backup_engine]
  container:
    description: Container that the engine runs in; by default the one of its role.
    type: str
  server:
    description: Container of the running server, whose image and settings are used.
    type: str
    default: cryptopip-timescaledb
  drill_container:
    description: Name of the container that is made for the drill.
    type: str
    default: cryptopip-restore-drill
  cpus:
    description: Cores the container may take.
    type: float
    default: 1
  memory_mb:
    description: Memory in MB the container may take.
    type: int
    default: 1024
  timeout:
    description: Seconds that recovery may take.
    type: int
    default: 86400
  database:
    description: The datalake.
    type: str
    default: datalake
  app_database:
    description: Database with the table C(restore_drills); empty to write none.
    type: str
    default: app
  login_host:
    description: Address of the running server, or the folder of its Unix socket.
    type: str
    default: /run/cryptopip/postgresql
  work_path:
    description: Folder on the managed host for the lock and the line that tells how far it is.
    type: path
    default: /var/lib/cryptopip/backup
  restore_path:
    description: The C(work_path) of module C(tuned_restore), which may not be at work.
    type: path
    default: /var/lib/cryptopip/restore
extends_documentation_fragment: [cryptopip.marketdata.postgres]
attributes:
  check_mode:
    support: full
    details: Chooses the backup and looks for room.
    description: Can run in check_mode and return changed status prediction without modifying target.
  diff_mode:
    support: full
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
  idempotent:
    support: none
    details: It is a rehearsal, made each time it is asked for.
    description: A second run with the same arguments indicates no change.
requirements:
  - the docker command on the managed host, and root or a member of its group
notes:
  - It needs as much free space beside the cluster as all databases take, and a GiB more, and looks for it first.
  - A day whose digests were changed by late rows since the recovered moment is passed over.
seealso:
  - module: cryptopip.marketdata.base_restore
author:
  - The CRYPTOPIP developers (@cryptopip)
"""

EXAMPLES = r"""
- name: Rehearse a restore of the newest backup
  cryptopip.marketdata.restore_drill:

- name: A quick one, to yesterday noon
  cryptopip.marketdata.restore_drill:
    scope: sample
    target: "2026-11-26 12:00:00"
"""

RETURN = r"""
backup:
  description: The backup that was (would be) restored, as module C(base_backup) describes it.
  returned: success
  type: dict
recovered_to:
  description: When the last transaction that was replayed had been committed, UTC.
  returned: when a drill was made
  type: str
compared_hours:
  description: Hours of instruments and channels in the days that were compared with the live datalake.
  returned: when a drill was made
  type: int
restored_bytes:
  description: Bytes of all restored databases.
  returned: when a drill was made
  type: int
problems:
  description: What was not well.
  returned: when a drill was made
  type: list
  elements: str
seconds:
  description: Seconds spent, by phase.
  returned: when a drill was made
  type: dict
duration_s:
  description: Seconds in all.
  returned: when a drill was made
  type: float
"""

import contextlib
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup.drill import Drill, DrillWish
from ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup.engines import ENGINES
from ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup.model import BackupError
from ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup.operate import told_in
from ansible_collections.cryptopip.marketdata.plugins.module_utils.postgres import (
    PostgresError,
    postgres_argument_spec,
)

ERRORS: tuple[type[Exception], ...] = (BackupError, OSError, PostgresError)
with contextlib.suppress(ImportError):
    import psycopg

    ERRORS = (*ERRORS, psycopg.Error)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec=postgres_argument_spec(
            target={"type": "str", "default": "latest"},
            backup={"type": "str"},
            scope={"type": "str", "default": "full", "choices": ["full", "sample"]},
            engine={"type": "str", "default": "wal_e", "choices": list(ENGINES), "aliases": ["backup_engine"]},
            container={"type": "str"},
            server={"type": "str", "default": "cryptopip-timescaledb"},
            drill_container={"type": "str", "default": "cryptopip-restore-drill"},
            cpus={"type": "float", "default": 1},
            memory_mb={"type": "int", "default": 1024},
            timeout={"type": "int", "default": 86400},
            database={"type": "str", "default": "datalake"},
            app_database={"type": "str", "default": "app"},
            login_host={"type": "str", "default": "/run/cryptopip/postgresql"},
            work_path={"type": "path", "default": "/var/lib/cryptopip/backup"},
            restore_path={"type": "path", "default": "/var/lib/cryptopip/restore"},
        ),
        supports_check_mode=True,
    )
    options = module.params
    wish = DrillWish(
        target=options["target"],
        backup=options["backup"],
        scope=options["scope"],
        server=options["server"],
        name=options["drill_container"],
        cpus=options["cpus"],
        memory_mb=options["memory_mb"],
        timeout_s=options["timeout"],
        database=options["database"],
        app_database=options["app_database"],
        work=Path(options["work_path"]),
        restore_work=Path(options["restore_path"]),
        connection=options,
    )
    with told_in(wish.work) as tell:
        try:
            answer = Drill(wish, ENGINES[options["engine"]](options["container"]), tell).run(check=module.check_mode)
        except ERRORS as error:
            module.fail_json(msg=str(error).strip())
    if answer.get("problems"):
        module.fail_json(msg=f"the restored backup is not well: {answer['problems'][0]}", **answer)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
