#!/usr/bin/python
"""Ansible module: base backups of the cluster, by whichever engine; the work is in module_utils/base_backup."""

from __future__ import annotations

DOCUMENTATION = r"""
module: base_backup
short_description: Take, verify, list and remove base backups of the database's cluster
version_added: 0.1.0
description:
  - Takes physical backups that can be recovered to any moment of the archived WAL after them, reads them through, and
    removes old ones.
  - Only a backup that was read through and found whole, with all the WAL after it, counts as verified.
  - What a verified backup holds is written to table C(protections) of the datalake. Ingestors keep what no row there
    protects.
  - What came of each backup taken and each one read through is kept in table C(base_backups) of the database C(app).
options:
  state:
    description:
      - V(present) takes a backup, and verifies it, where the newest verified one is older than O(max_age). One that is
        young enough and not verified yet is verified first.
      - V(listed) changes nothing.
      - V(verified) reads O(name), by default the newest backup, and the WAL after it to their end, and fails where
        something is missing, torn or another than it should be, naming it in RV(problems).
      - V(retained) keeps the newest O(keep) backups and the WAL they need. It reads the newest first, and removes
        nothing where that is not whole.
      - V(absent) removes O(name) and the WAL that no other needs, but never the only verified backup.
    type: str
    choices: [present, listed, verified, retained, absent]
    default: present
  engine:
    description:
      - Which engine keeps the backups. V(wal_e) is the sidecar of role C(wale), V(pgbackrest) is in the database's
        container, set up by role C(pgbackrest).
    type: str
    choices: [wal_e, pgbackrest]
    default: wal_e
    aliases: [backup_engine]
  name:
    description: Name of a backup, for O(state=verified) and O(state=absent).
    type: str
  max_age:
    description:
      - With O(state=present), how old the end of the newest verified backup may be; V(24h) where it is not given.
        V(0s) takes one in any case.
      - With O(state=verified), how long ago it may have been verified for not being read again; V(0s) where it is not
        given, so that it is read in any case.
      - A number and its unit, one of s, m, h, d and w.
    type: str
  verify:
    description: With O(state=present), whether to verify the new backup. One that is not verified does not count.
    type: bool
    default: true
  keep:
    description: With O(state=retained), how many of the newest backups stay.
    type: int
  database:
    description: The datalake, which has the table C(protections); empty to write none.
    type: str
    default: datalake
  app_database:
    description:
      - The operator's own database, whose table C(base_backups) keeps what came of each backup taken and each one read
        through; empty to keep none.
    type: str
    default: app
  container:
    description:
      - Container that the engine runs in. Where it is not given, C(cryptopip-wale) for O(engine=wal_e), and
        C(cryptopip-timescaledb) for O(engine=pgbackrest).
    type: str
  login_host:
    description: Address of the server, or the folder of its Unix socket, to write what backups protect.
    type: str
    default: /run/cryptopip/postgresql
  work_path:
    description: Folder on the managed host for the lock and the line that tells how far it is.
    type: path
    default: /var/lib/cryptopip/backup
  restore_path:
    description: The C(work_path) of module C(tuned_restore). No backup is taken while a restore is at work there.
    type: path
    default: /var/lib/cryptopip/restore
extends_documentation_fragment: [cryptopip.marketdata.postgres]
attributes:
  check_mode:
    support: full
    details: With O(state=retained) the newest backup is read all the same, as its removals depend on it.
    description: Can run in check_mode and return changed status prediction without modifying target.
  diff_mode:
    support: full
    details: The diff shows the backups before and after.
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
  idempotent:
    support: full
    details: With O(state=verified) a backup is read again, which is no change where the answer is the one before.
    description: A second run with the same arguments indicates no change.
requirements:
  - the docker command on the managed host, and root or a member of its group
notes:
  - Run by Ansible, it goes on in the background of the host where the connection breaks, and a line every few seconds
    tells how far it is.
  - One operation at a time on a host. Killed, it leaves an engine at work, which ends by itself and keeps the lock
    until then.
seealso:
  - module: cryptopip.marketdata.tuned_restore
author:
  - The CRYPTOPIP developers (@cryptopip)
"""

EXAMPLES = r"""
- name: Have a verified backup of the last day
  cryptopip.marketdata.base_backup:
    max_age: 24h

- name: Keep the newest seven
  cryptopip.marketdata.base_backup:
    state: retained
    keep: 7

- name: Read the newest one through, with all the WAL after it
  cryptopip.marketdata.base_backup:
    state: verified
    max_age: 7d

# ansible datalake -b -m cryptopip.marketdata.base_backup -a state=listed
- name: List them
  cryptopip.marketdata.base_backup:
    state: listed
  register: listed
"""

RETURN = r"""
engine:
  description: The engine.
  returned: success
  type: str
backup:
  description: The backup that was taken or verified, else the newest verified one; null where there is none (yet).
  returned: success
  type: dict
  contains:
    name: {description: Its name., type: str}
    engine: {description: The engine that made it., type: str}
    system_identifier: {description: Of the cluster., type: str}
    timeline: {description: Timeline it was made on., type: int}
    start_lsn: {description: Where in the WAL it begins., type: str}
    stop_lsn: {description: "Where in the WAL it ends; it can be recovered to no moment before.", type: str}
    started_at: {description: "When it began, UTC.", type: str}
    finished_at: {description: "When it ended, UTC.", type: str}
    duration_s: {description: Seconds from the one to the other., type: float}
    size_bytes: {description: Bytes it takes in the store., type: int}
    verified: {description: "Whether it was found whole; null where nobody has read it.", type: bool}
    verified_at: {description: "When it was read last, UTC.", type: str}
    requires: {description: Backups that it builds on., type: list, elements: str}
backups:
  description: All complete backups afterwards, the oldest first; in check mode those there would be.
  returned: success
  type: list
  elements: dict
unreadable:
  description: Names of backups whose description is lost. They and their WAL are kept, and cannot be restored.
  returned: success
  type: list
  elements: str
removed:
  description: Names of the backups that were (would be) removed.
  returned: with O(state=retained) and O(state=absent)
  type: list
  elements: str
removed_wal:
  description: Names of the files of WAL that were (would be) removed.
  returned: with O(state=retained) and O(state=absent)
  type: list
  elements: str
error:
  description: Kind of the failure, V(busy), V(corrupt), V(last_verified), V(not_found) and others.
  returned: failure
  type: str
problems:
  description: What is wrong with a backup, object by object.
  returned: failure
  type: list
  elements: dict
  contains:
    object: {description: A file of the backup or a segment of WAL., type: str}
    problem: {description: What is wrong with it., type: str}
done:
  description: What had been done when it failed.
  returned: failure
  type: list
  elements: str
"""

import contextlib
from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup.engines import ENGINES
from ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup.model import BackupError
from ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup.operate import (
    Operation,
    Request,
    told_in,
)
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
            state={
                "type": "str",
                "default": "present",
                "choices": ["present", "listed", "verified", "retained", "absent"],
            },
            engine={"type": "str", "default": "wal_e", "choices": list(ENGINES), "aliases": ["backup_engine"]},
            name={"type": "str"},
            max_age={"type": "str"},
            verify={"type": "bool", "default": True},
            keep={"type": "int"},
            database={"type": "str", "default": "datalake"},
            app_database={"type": "str", "default": "app"},
            container={"type": "str"},
            login_host={"type": "str", "default": "/run/cryptopip/postgresql"},
            work_path={"type": "path", "default": "/var/lib/cryptopip/backup"},
            restore_path={"type": "path", "default": "/var/lib/cryptopip/restore"},
        ),
        required_if=[("state", "retained", ["keep"]), ("state", "absent", ["name"])],
        supports_check_mode=True,
    )
    options = module.params
    request = Request(
        state=options["state"],
        name=options["name"],
        keep=options["keep"],
        max_age=options["max_age"],
        verify=options["verify"],
        database=options["database"],
        app_database=options["app_database"],
        work=Path(options["work_path"]),
        restore_work=Path(options["restore_path"]),
        check=module.check_mode,
        connection=options,
    )
    with told_in(request.work) as tell:
        operation = Operation(request, ENGINES[options["engine"]](options["container"]), tell)
        try:
            answer = operation.run()
        except ERRORS as error:
            module.fail_json(
                msg=str(error).strip(),
                changed=bool(operation.done),
                done=operation.done,
                error=error.code if isinstance(error, BackupError) else "server",
                problems=[asdict(each) for each in error.problems] if isinstance(error, BackupError) else [],
            )
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
