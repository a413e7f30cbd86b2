#!/usr/bin/python
"""Ansible module: put a base backup back and recover to a target; the work is in module_utils/base_backup."""

from __future__ import annotations

DOCUMENTATION = r"""
module: base_restore
short_description: Restore the database's cluster from a base backup, to any moment of the archived WAL
version_added: 0.1.0
description:
  - Chooses the newest base backup from which the target can be reached, puts it in the place of the cluster, recovers,
    and waits until the target is reached. What it cannot reach is an error, never an earlier state.
  - The restored cluster archives nothing and, but for the target V(latest), stands read-only at its target until
    O(state=promoted). So it can be looked at, and restored again to another moment.
  - Where the backup cannot be fetched, what was in its place is put back.
options:
  state:
    description:
      - V(recovered) restores and recovers, each time it is asked.
      - V(promoted) ends the recovery on a timeline of its own, takes back the settings of the restore and restarts the
        server, which archives again. Take a base backup then.
    type: str
    choices: [recovered, promoted]
    default: recovered
  target:
    description:
      - V(latest), for all there is; a time in ISO 8601, UTC unless it says otherwise; an LSN; a backup's name, for its
        end; or the name of a restore point.
      - Required with O(state=recovered).
    type: str
  backup:
    description: Name of the backup to begin from, instead of the newest that ends before the target.
    type: str
  timeline:
    description:
      - Timeline to recover along. V(latest), the newest one that the backup leads to; V(current), that of the backup;
        or a number, as V(1) for what the cluster did after a moment to which it was later restored.
      - Where the WAL of the newest timeline branches off before the chosen backup, recovery fails; name an older
        O(backup), or the O(timeline).
    type: str
    default: latest
  system_identifier:
    description:
      - The cluster whose backup is wanted, where the store holds those of several. By default that in the server's
        place, or where there is none the only one that has backups.
      - A host that was provisioned anew has a new cluster; then name the lost one. What the store holds is told by
        C(docker exec cryptopip-wale cryptopip-wale clusters), and by the failure.
    type: str
  existing:
    description:
      - What to do with a cluster in the place. V(refuse) fails, V(keep) leaves it beside under a name that ends in
        C(.replaced_<time>), V(remove) removes it once the target is reached.
    type: str
    choices: [refuse, keep, remove]
    default: refuse
  stop:
    description: Whether a running server may be stopped for it.
    type: bool
    default: false
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
    description: Container of the server. It has to exist, running or not.
    type: str
    default: cryptopip-timescaledb
  timeout:
    description: Seconds that recovery, and a restart, may take.
    type: int
    default: 86400
  login_host:
    description: Address of the server, or the folder of its Unix socket.
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
    description: Can run in check_mode and return changed status prediction without modifying target.
  diff_mode:
    support: full
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
  idempotent:
    support: partial
    details: O(state=promoted) is. O(state=recovered) restores each time; by default it refuses to where a cluster is.
    description: A second run with the same arguments indicates no change.
requirements:
  - the docker command on the managed host, and root or a member of its group
notes:
  - Run by Ansible, it goes on in the background of the host where the connection breaks.
  - Whatever writes into the cluster has to be stopped before, as C(playbooks/restore.yml) does.
seealso:
  - module: cryptopip.marketdata.base_backup
author:
  - The CRYPTOPIP developers (@cryptopip)
"""

EXAMPLES = r"""
- name: Go back to this morning, and keep the cluster of now beside it
  cryptopip.marketdata.base_restore:
    target: "2026-11-27 04:00:00"
    existing: keep
    stop: true

- name: Let it live
  cryptopip.marketdata.base_restore:
    state: promoted
"""

RETURN = r"""
backup:
  description: The backup it begins from, as module C(base_backup) describes it.
  returned: with O(state=recovered)
  type: dict
target:
  description: The target, as C(kind) (V(latest), V(time), V(lsn), V(name) or V(backup)) and C(text).
  returned: with O(state=recovered)
  type: dict
kept_as:
  description: What the name of the cluster that was there ends in now; null where there was none or it is removed.
  returned: with O(state=recovered)
  type: str
lsn:
  description: Where in the WAL the cluster stands.
  returned: when a restore was made
  type: str
recovered_to:
  description: When the last transaction that was replayed had been committed, UTC; null where none was.
  returned: when a restore was made
  type: str
is_paused:
  description: Whether the cluster stands read-only at its target, until it is promoted.
  returned: when a restore was made
  type: bool
timeline:
  description: Number of the timeline that is written; null while the server is in recovery.
  returned: with O(state=promoted)
  type: int
archive_mode:
  description: Setting C(archive_mode) of the server after its restart.
  returned: when a server was promoted
  type: str
seconds:
  description: Seconds from the stop to the target.
  returned: when a restore was made
  type: float
done:
  description: What had been done when it failed.
  returned: failure
  type: list
  elements: str
"""

import contextlib
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup.engines import ENGINES
from ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup.model import BackupError
from ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup.operate import told_in
from ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup.recover import (
    Recovery,
    Wish,
    promote,
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
            state={"type": "str", "default": "recovered", "choices": ["recovered", "promoted"]},
            target={"type": "str"},
            backup={"type": "str"},
            timeline={"type": "str", "default": "latest"},
            system_identifier={"type": "str"},
            existing={"type": "str", "default": "refuse", "choices": ["refuse", "keep", "remove"]},
            stop={"type": "bool", "default": False},
            engine={"type": "str", "default": "wal_e", "choices": list(ENGINES), "aliases": ["backup_engine"]},
            container={"type": "str"},
            server={"type": "str", "default": "cryptopip-timescaledb"},
            timeout={"type": "int", "default": 86400},
            login_host={"type": "str", "default": "/run/cryptopip/postgresql"},
            work_path={"type": "path", "default": "/var/lib/cryptopip/backup"},
            restore_path={"type": "path", "default": "/var/lib/cryptopip/restore"},
        ),
        required_if=[("state", "recovered", ["target"])],
        supports_check_mode=True,
    )
    options = module.params
    wish = Wish(
        target=options["target"] or "",
        backup=options["backup"],
        existing=options["existing"],
        stop=options["stop"],
        server=options["server"],
        timeout_s=options["timeout"],
        work=Path(options["work_path"]),
        restore_work=Path(options["restore_path"]),
        connection=options,
        system_identifier=options["system_identifier"],
        timeline=options["timeline"],
    )
    with told_in(wish.work) as tell:
        recovery = Recovery(wish, ENGINES[options["engine"]](options["container"]), tell)
        try:
            if options["state"] == "promoted":
                answer = promote(wish, check=module.check_mode)
            else:
                answer = recovery.run(check=module.check_mode)
        except ERRORS as error:
            module.fail_json(msg=str(error).strip(), changed=bool(recovery.done), done=recovery.done)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
