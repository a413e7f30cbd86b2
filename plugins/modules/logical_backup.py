#!/usr/bin/python
"""Ansible module: dumps that are known to be whole; the work is in module_utils/logical_backup."""

from __future__ import annotations

DOCUMENTATION = r"""
module: logical_backup
short_description: Dump databases, verify the dumps, and keep as many as wanted
version_added: 0.1.0
description:
  - Dumps one, several or all databases, and the cluster's roles with each. What the manifest tells (rows of every
    table, digests of a datalake's hypertables, versions) is counted in the very snapshot that pg_dump dumps, while
    others write.
  - A dump is made under a name that begins with a point. It gets its final name only once all of it is on disk and was
    read to its end and found to hold the rows that were counted. Whatever is killed, no half dump has a final name; the
    next run takes away what it finds of one.
  - A verified dump of a datalake is noted in its table C(protections), with the receive time up to which everything had
    been merged when the snapshot was taken, so that ingestors may prune. The note goes before the dump does.
  - M(cryptopip.marketdata.tuned_restore) restores such a dump and compares the database with the manifest.
options:
  databases:
    description: Databases to dump or to look at; by default all but C(postgres) and the templates.
    type: list
    elements: str
    default: []
  path:
    description:
      - Folder of the dumps on the managed host; each is a folder in it, C(<database>_<UTC time>), with the dump,
        C(globals.sql) (roles with their password hashes), C(manifest.json) and C(verified.json).
    type: path
    default: /var/lib/cryptopip/dumps
  state:
    description:
      - V(present) makes a dump of each database, unless a verified one is younger than O(max_age), and removes those
        beyond O(keep).
      - V(listed) tells which dumps there are.
      - V(verified) reads the dump O(name), or the newest of each database, again. One that is not as it was written
        makes the module fail, counts as verified no longer, and no longer protects anything.
      - V(absent) removes the dump O(name).
    type: str
    choices: [present, listed, verified, absent]
    default: present
  name:
    description: Name of one dump, a folder in O(path). Required with O(state=absent).
    type: str
  format:
    description:
      - V(directory) is pg_dump's directory format, written by O(jobs) at the same time and compressed by zstd.
      - V(custom) is one file, pg_dump's custom format through C(pigz --rsyncable), so that rsync finds what it knows.
    type: str
    choices: [directory, custom]
    default: directory
  jobs:
    description: Tables dumped, or blocks compressed, at the same time. By default the number of cores, at most 8.
    type: int
  max_age:
    description: >-
      With O(state=present), how old the newest verified dump of a database may be, as in V(90min), V(24h) or V(7d). By
      default every run makes a dump.
    type: str
  keep:
    description: >-
      With O(state=present), how many verified dumps of each database to keep. By default all. Damaged ones are not
      counted, and are left for somebody to look at.
    type: int
  verify:
    description:
      - V(contents) reads the dump to its end and compares the rows of every table with those counted.
      - V(restore) also restores it into a database C(<database>_dump_check_restoring) of the same server, validates
        that, and drops it. It needs room there, changes no setting of the server, and writes WAL.
    type: str
    choices: [contents, restore]
    default: contents
  force:
    description: With O(state=absent), remove a dump even if it is the last verified one of its database.
    type: bool
    default: false
  container:
    description:
      - Container of the server. Its image brings pg_dump and pigz, run in a container C(<container>-dump) of its own.
    type: str
    default: cryptopip-timescaledb
  work_path:
    description:
      - The folder that M(cryptopip.marketdata.tuned_restore) works in. One dump or restore at a time is at work there;
        base backups do not mind dumps.
    type: path
    default: /var/lib/cryptopip/restore
extends_documentation_fragment: [cryptopip.marketdata.postgres]
attributes:
  check_mode:
    support: full
    details: The time in the name of a dump that would be made is not known. A dump is read, but not restored.
    description: Can run in check_mode and return changed status prediction without modifying target.
  diff_mode:
    support: full
    details: The diff shows the dumps before and after.
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
  idempotent:
    support: partial
    details: With O(max_age), a second run within it changes nothing; without, every run makes a dump.
    description: A second run with the same arguments indicates no change.
requirements:
  - the docker command on the managed host
notes:
  - Run by Ansible, it goes on in the background of the host where the connection breaks, and a line every few seconds
    tells how far it is; the same line is in the file C(progress) of O(work_path).
  - The role O(login_user) has to be a superuser, and may log in by peer authentication as root of the host, since the
    container of pg_dump runs as root.
  - Roles are of the cluster and not of a snapshot; they are dumped a moment after it was taken.
  - Rights on a database itself and its settings are in no dump of one database; what its tables, functions and schemas
    allow is.
  - The folder of a dump may be copied anywhere as it is. The manifest names each file with its SHA-256.
  - A stream that has merged nothing for 30 days no longer holds back what a datalake's dump protects.
seealso:
  - module: cryptopip.marketdata.tuned_restore
author:
  - The CRYPTOPIP developers (@cryptopip)
"""

EXAMPLES = r"""
- name: A dump of every database a day, a week of them
  cryptopip.marketdata.logical_backup:
    max_age: 20h
    keep: 7
    login_host: /run/cryptopip/postgresql

- name: Dump the datalake now and see that it can be restored
  cryptopip.marketdata.logical_backup:
    databases: [datalake]
    verify: restore
    login_host: /run/cryptopip/postgresql

- name: One file that rsync transfers well
  cryptopip.marketdata.logical_backup:
    databases: [app]
    format: custom
    path: /backups/app
    login_host: /run/cryptopip/postgresql

- name: Read the newest dump of each database again
  cryptopip.marketdata.logical_backup:
    state: verified
    login_host: /run/cryptopip/postgresql
"""

RETURN = r"""
dumps:
  description: The dumps there are afterwards; with O(state=verified) those looked at.
  returned: success
  type: list
  elements: dict
  contains:
    name: {description: Its name, type: str}
    path: {description: Its folder., type: str}
    database: {description: Of which database it is., type: str}
    snapshot_at: {description: "When its snapshot was taken, in UTC.", type: str}
    format: {description: "V(directory) or V(custom).", type: str}
    size: {description: Bytes of all its files., type: int}
    sha256: {description: "Checksum of the dump in it, as M(cryptopip.marketdata.tuned_restore) takes it.", type: str}
    rows: {description: "Rows of all tables, TimescaleDB's catalog included.", type: int}
    postgresql: {description: Version of the server., type: str}
    timescaledb: {description: "Version of TimescaleDB, null where the database has none.", type: str}
    migration: {description: "The newest migration of its schema, null where it has no ledger.", type: str}
    merged_until: {description: "What was received before is in it; null for what is no datalake.", type: str}
    verified: {description: Whether it was whole when it was last looked at., type: bool}
    verified_at: {description: When that was., type: str}
    verified_by: {description: "V(contents) or V(restore).", type: str}
    problem: {description: "What was wrong with it, null where nothing.", type: str}
made:
  description: Names of the dumps that were (would be) made.
  returned: with O(state=present)
  type: list
  elements: str
removed:
  description: Names of the dumps that were (would be) removed.
  returned: with O(state=present) and O(state=absent)
  type: list
  elements: str
protections:
  description: What changed (would change) in the datalake's table C(protections), but for dumps yet to be made.
  returned: with O(state=present) and O(state=verified)
  type: list
  elements: str
estimated_bytes:
  description: Bytes that each dump due was expected to take.
  returned: with O(state=present)
  type: dict
mended:
  description: What an interrupted run had left and was (would be) taken away.
  returned: success, but for O(state=listed)
  type: list
  elements: str
seconds:
  description: Seconds spent, by step.
  returned: success
  type: dict
done:
  description: What had been done when it failed.
  returned: failure
  type: list
  elements: str
"""

import contextlib
import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cryptopip.marketdata.plugins.module_utils.dump_manifest import ManifestError
from ansible_collections.cryptopip.marketdata.plugins.module_utils.logical_backup import states
from ansible_collections.cryptopip.marketdata.plugins.module_utils.logical_backup.run import (
    BackupError,
    Run,
    Wish,
    duration,
)
from ansible_collections.cryptopip.marketdata.plugins.module_utils.logical_backup.store import only_one
from ansible_collections.cryptopip.marketdata.plugins.module_utils.postgres import (
    PostgresError,
    postgres_argument_spec,
)
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore import engine, server
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.dump import DumpError
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.journal import JournalError
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.lock import dumping
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.run import RestoreError
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.settings import SettingsError
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.validate import ValidationError

ERRORS: tuple[type[Exception], ...] = (
    BackupError,
    DumpError,
    JournalError,
    ManifestError,
    OSError,
    PostgresError,
    RestoreError,
    SettingsError,
    ValidationError,
    engine.EngineError,
    server.ServerError,
)
with contextlib.suppress(ImportError):
    import psycopg

    ERRORS = (*ERRORS, psycopg.Error)

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def perform(run: Run, state: str, *, check: bool) -> dict[str, Any]:
    """Bring the folder to its state, or tell what would be done."""
    match state:
        case "listed":
            answer = states.listed(run)
        case "verified":
            answer = states.verified(run, check=check)
        case "absent":
            answer = states.absent(run, check=check)
        case _:
            answer = states.present(run, check=check)
    return {**answer, "seconds": run.seconds}


def _interrupted(number: int, _frame: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # what is taken away now is not to be cut short
    raise BackupError(f"ended by signal {signal.Signals(number).name}.")


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec=postgres_argument_spec(
            databases={"type": "list", "elements": "str", "default": []},
            path={"type": "path", "default": "/var/lib/cryptopip/dumps"},
            state={"type": "str", "default": "present", "choices": ["present", "listed", "verified", "absent"]},
            name={"type": "str"},
            format={"type": "str", "default": "directory", "choices": ["directory", "custom"]},
            jobs={"type": "int"},
            max_age={"type": "str"},
            keep={"type": "int"},
            verify={"type": "str", "default": "contents", "choices": ["contents", "restore"]},
            force={"type": "bool", "default": False},
            container={"type": "str", "default": "cryptopip-timescaledb"},
            work_path={"type": "path", "default": "/var/lib/cryptopip/restore"},
        ),
        required_if=[("state", "absent", ["name"])],
        supports_check_mode=True,
    )
    options, check = module.params, module.check_mode
    for number in SIGNALS:
        signal.signal(number, _interrupted)
    done: list[str] = []
    try:
        wish = Wish(
            databases=tuple(options["databases"]),
            path=Path(options["path"]),
            name=options["name"],
            format=options["format"],
            jobs=min(len(os.sched_getaffinity(0)), 8) if options["jobs"] is None else options["jobs"],
            max_age=None if options["max_age"] is None else duration(options["max_age"]),
            keep=options["keep"],
            verify=options["verify"],
            force=options["force"],
            container=options["container"],
            work=Path(options["work_path"]),
        )
        container = engine.inspect(wish.container)
        wish.check(container)
        run = Run(options, wish, container, wish.work, done=done)
        if options["state"] == "listed":
            answer = perform(run, "listed", check=check)
        else:
            with dumping(wish.work, check=check) as run.scratch, only_one(wish.path, check=check):
                answer = perform(run, options["state"], check=check)
    except ERRORS as error:
        module.fail_json(msg=" ".join(str(error).split()), changed=bool(done), done=done)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
