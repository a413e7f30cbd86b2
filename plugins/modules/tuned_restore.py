#!/usr/bin/python
"""Ansible module: restore a dump under temporary settings; the work is in module_utils/tuned_restore."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tuned_restore
short_description: Restore a dump into a TimescaleDB database, under temporary settings that are always taken back
version_added: 0.1.0
description:
  - Restores a dump of pg_dump (custom, directory or plain format, as it is or compressed by gzip or zstd) into a new
    database, validates it, and only then gives it its name. A database restored from the same dump is left alone.
  - Changes settings of the server for the time of the restore. What they were is written to a restore journal outside
    PGDATA before the first of them changes; a run that was killed at any point is mended by the next one, or by
    O(state=reverted).
  - Loads TimescaleDB's catalog with one job and everything else with O(jobs). A plain C(pg_restore --jobs) may lose
    rows of the catalog.
  - The dump is read to its end before anything changes, so that a damaged one is found then; so are too little disk,
    missing roles, and another version of TimescaleDB.
  - Rights on a database itself and its settings are in no dump of one database. The new one gets those of the one that
    it replaces.
  - An ingestor's database gets a new incarnation, so that sync merges it anew. What it has merged already changes
    nothing.
options:
  source:
    description:
      - Path of the dump on the managed host, a file or a folder. Its first bytes tell what it is, not its name.
      - Or the folder of one that M(cryptopip.marketdata.logical_backup) made. Its manifest says which bytes and rows to
        expect, also where the path of the dump inside is given.
      - Or a URL (http, https) or an rclone remote (C(gdrive:backups/datalake.dump)) of a file. It is fetched into
        O(work_path), going on where an earlier run broke off, and removed once it is restored. It needs a O(checksum).
      - Required with O(state=present).
    type: str
  rclone_config:
    description: File on the managed host with the remotes of rclone. By default rclone's own.
    type: path
  database:
    description: Name of the database to restore into.
    type: str
    required: true
  state:
    description:
      - V(present) restores the dump, unless O(database) was restored from it already.
      - V(reverted) takes back what an interrupted restore has left, and restores nothing.
    type: str
    choices: [present, reverted]
    default: present
  checksum:
    description:
      - SHA-256 of the dump as it lies in O(source); of a folder, that of the lines sha256sum prints for its files by
        name.
      - A dump with another one is refused. Where the database bears this one, the dump is not even read.
    type: str
  profile:
    description:
      - V(safe) keeps C(fsync), C(full_page_writes) and C(archive_mode), needs no restart, and changes for the restore's
        own sessions only what a session may set for itself.
      - V(fast) turns these off as well. They are of the whole cluster, so it is refused where the cluster holds any
        user database, unless O(accept_cluster_risk). After it a new base backup is needed where WAL was archived.
    type: str
    choices: [fast, safe]
    default: safe
  settings:
    description:
      - Settings for the time of the restore, over those of the O(profile); one that is null is left alone.
      - Of those that take a restart only C(archive_mode) may be given.
    type: dict
    default: {}
  accept_cluster_risk:
    description: With O(profile=fast), put the other databases of the cluster at risk of a crash of the host.
    type: bool
    default: false
  existing:
    description:
      - What to do with a O(database) that exists and was not restored from this dump. V(keep) renames it to
        C(<database>_replaced_<time>), V(drop) drops it once the new one is in place, V(refuse) fails.
    type: str
    choices: [refuse, keep, drop]
    default: refuse
  owner:
    description: Owner of the database. By default that of the one it replaces, else O(login_user).
    type: str
  jobs:
    description: Jobs that load data and build indexes at the same time. By default the number of cores, at most 8.
    type: int
  container:
    description:
      - Container of the server. Its image brings pg_restore, run in a container C(<container>-restore) of its own.
    type: str
    default: cryptopip-timescaledb
  restart:
    description: Whether the container may be restarted (for C(archive_mode)) or started where it stands.
    type: bool
    default: true
  work_path:
    description:
      - Folder on the managed host for the restore journal and, for its time, an unpacked dump. One for each cluster,
        outside of PGDATA.
    type: path
    default: /var/lib/cryptopip/restore
extends_documentation_fragment: [cryptopip.marketdata.postgres]
attributes:
  check_mode:
    support: full
    details: >-
      The same plan is made, so the dump is read (and unpacked for that time), and nothing changes. Where an interrupted
      restore waits to be mended, only that is told; of a dump that is yet to be fetched, only its size.
    description: Can run in check_mode and return changed status prediction without modifying target.
  diff_mode:
    support: full
    details: The diff shows database, dump and settings before and after; the settings during it are in RV(settings).
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
  idempotent:
    support: full
    details: By the checksum of the dump, which the restored database bears.
    description: A second run with the same arguments indicates no change.
requirements:
  - the docker command on the managed host; zstd for a dump compressed by it, rclone for one on a remote of its
notes:
  - Run by Ansible, it goes on in the background of the host where the connection breaks, and a line every few seconds
    tells how far it is; the same line is in the file C(progress) of O(work_path).
  - The role O(login_user) has to be a superuser, and may log in by peer authentication as root of the host, since the
    container of pg_restore runs as root.
  - Roles are of the cluster and not in a dump; those that it names have to be there.
  - The error C(tried calling catalog_get when extension isn't loaded) comes of a restore into a database whose
    extension is of another version, was not told of the restore, or was told so after the session began. None of that
    is so here. The extension is made in the dump's version and told of the restore before anything is loaded, and what
    follows has sessions of its own. Should TimescaleDB say it all the same, everything is taken back, and the message
    says what to do.
seealso:
  - module: cryptopip.marketdata.logical_backup
  - module: cryptopip.marketdata.schema_migration
author:
  - The CRYPTOPIP developers (@cryptopip)
"""

EXAMPLES = r"""
- name: Restore the datalake into a new cluster, as fast as it goes
  cryptopip.marketdata.tuned_restore:
    source: /backups/datalake_2026-11-01.dump
    database: datalake
    owner: cryptopip_owner
    profile: fast
    login_host: /run/cryptopip/postgresql

- name: Put a dump in the place of a database and keep the one before
  cryptopip.marketdata.tuned_restore:
    source: /backups/app_development.gz
    database: app
    existing: keep
    login_host: /run/cryptopip/postgresql

- name: Restore a dump from Google Drive, going on with the download where it broke off
  cryptopip.marketdata.tuned_restore:
    source: gdrive:backups/datalake_2026-11-01.dump
    rclone_config: /etc/cryptopip/rclone.conf
    checksum: "{{ datalake_dump_sha256 }}"
    database: datalake
    login_host: /run/cryptopip/postgresql

- name: Take back what an interrupted restore has left
  cryptopip.marketdata.tuned_restore:
    database: datalake
    state: reverted
    login_host: /run/cryptopip/postgresql
"""

RETURN = r"""
source:
  description: The dump.
  returned: when it was read
  type: dict
  contains:
    path: {description: Where it lies., type: str}
    format: {description: "V(custom), V(directory) or V(plain).", type: str}
    compression: {description: "V(none), V(gzip) or V(zstd) around it.", type: str}
    size: {description: Bytes as it lies there., type: int}
    sha256: {description: Its checksum., type: str}
    timescaledb: {description: "Version of TimescaleDB it was made under, null where it has none.", type: str}
    rows: {description: "Rows of all tables, without TimescaleDB's catalog.", type: int}
    copy_bytes: {description: Bytes of these rows as text., type: int}
settings:
  description: Each setting that was (would be) changed for the time of the restore.
  returned: when a restore was planned
  type: list
  elements: dict
  contains:
    name: {description: Name of the setting., type: str}
    before: {description: "Its value in postgresql.auto.conf before and after, null where absent there.", type: str}
    during: {description: Its value for the time of the restore., type: str}
    scope: {description: "V(server), or V(session) where only the restore's own sessions have it.", type: str}
    restart: {description: Whether it takes a restart., type: bool}
replaced:
  description: Name under which the database before is (would be) kept; null where there was none or it is dropped.
  returned: when a restore was planned
  type: str
validated:
  description: What was compared with the dump. All of it agreed, else the run had failed.
  returned: when a restore was made
  type: dict
  contains:
    tables: {description: Tables whose rows were counted., type: int}
    rows: {description: "Rows in them, TimescaleDB's catalog included.", type: int}
    hypertables: {description: Hypertables., type: int}
    chunks: {description: Chunks., type: int}
    test_inserts: {description: Hypertables that took a test insert, which was rolled back., type: int}
rows_checked_against:
  description:
    - Where the expected rows come from. V(manifest), counted by M(cryptopip.marketdata.logical_backup) in the snapshot
      that the dump is of, and found again in its COPY data; or V(copy), counted in that alone.
  returned: when a restore was planned
  type: str
estimated_s:
  description: Seconds the restore may take, from the size of the rows alone.
  returned: when a restore was planned
  type: int
seconds:
  description: Seconds spent, by phase.
  returned: when a restore was planned
  type: dict
base_backup_required:
  description: Whether WAL was (would be) missing from the archive, so that a new base backup has to be taken at once.
  returned: success
  type: bool
background_workers:
  description: Whether TimescaleDB's scheduler was seen running in the database; null where it has no TimescaleDB.
  returned: when a restore was made
  type: bool
mended:
  description: What was (would be) done about an interrupted restore found at the start; null where there was none.
  returned: success
  type: str
done:
  description: What had been done when it failed.
  returned: failure
  type: list
  elements: str
at_work:
  description: Whether it was refused since another restore is at work, so that what is paused for that has to stay so.
  returned: when it was refused
  type: bool
"""

import contextlib
import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cryptopip.marketdata.plugins.module_utils.postgres import (
    PostgresError,
    postgres_argument_spec,
)
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore import engine, server
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.dump import DumpError
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.fetch import (
    Remote,
    fetch,
    is_remote,
    look,
    remove_fetched,
)
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.journal import JournalError
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.lock import locked
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.mend import (
    abort,
    mend,
    pending_journal,
    remove_leftovers,
)
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.plan import (
    RATE_B_PER_S,
    Plan,
    make_plan,
)
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.restore import carry_out
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.run import (
    AtWorkError,
    RestoreError,
    Run,
    StuckError,
    Wish,
)
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.settings import SettingsError
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.source import (
    describe_source,
    remove_unpacked,
    unpack,
)
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.validate import ValidationError

NOT_LOADED = "catalog_get when extension"
"""Of TimescaleDB's error for a session that asks for the catalog while the extension is not there in full."""

ERRORS: tuple[type[Exception], ...] = (
    DumpError,
    JournalError,
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


def plan_facts(run: Run, plan: Plan) -> dict[str, Any]:
    """What a plan tells, in check mode and in a real run."""
    source, contents = plan.source, plan.contents
    changes = [
        {"name": c.name, "before": c.prior, "during": c.value, "scope": "server", "restart": c.needs_restart}
        for c in plan.settings.server
    ]
    changes += [
        {"name": name, "before": None, "during": value, "scope": "session", "restart": False}
        for name, value in plan.settings.sessions.items()
    ]
    kept = plan.replaced if run.wish.existing == "keep" else None
    before = f"database {run.wish.database}: {'another' if plan.replaced else 'none'}\n"
    after = f"database {run.wish.database}: {contents.user_rows} rows of {run.wish.source}, SHA-256 {source.sha256}\n"
    after += f"database {kept}: the one before\n" if kept else ""
    settings = "".join(
        f"{c.name}: {'not set' if c.prior is None else c.prior} ({c.value} for the time of the restore)\n"
        for c in plan.settings.server
    )
    return {
        "changed": True,
        "source": {
            "path": run.wish.source,
            "format": source.format,
            "compression": source.compression,
            "size": source.size,
            "sha256": source.sha256,
            "timescaledb": contents.timescaledb,
            "rows": contents.user_rows,
            "copy_bytes": contents.copy_bytes,
        },
        "settings": changes,
        "replaced": kept,
        "rows_checked_against": plan.rows_from,
        "estimated_s": max(1, contents.copy_bytes // RATE_B_PER_S),
        "base_backup_required": plan.archive_hole,
        "diff": {"before": before + settings, "after": after + settings},
    }


def remote_facts(run: Run, remote: Remote) -> dict[str, Any]:
    """What can be told of a dump that is yet to be fetched."""
    before = f"database {run.wish.database}: not of SHA-256 {run.wish.checksum}\n"
    after = f"database {run.wish.database}: {remote.source}, {remote.size} bytes, SHA-256 {run.wish.checksum}\n"
    return {
        "changed": True,
        "source": {"path": remote.source, "size": remote.size, "sha256": run.wish.checksum},
        "base_backup_required": False,
        "diff": {"before": before, "after": after},
    }


def present(run: Run, *, check: bool, scratch: Path) -> dict[str, Any]:
    """Restore the dump unless the database bears its checksum."""
    wish = run.wish
    with server.open_session(run.options, server.MAINTENANCE_DATABASE, read_only=check) as connection:
        marker = server.databases(connection).get(wish.database)
        unchanged = {"changed": False, "base_backup_required": False, "diff": {"before": "", "after": ""}}
        if marker is not None and marker == wish.checksum:
            return unchanged
        if not server.is_superuser(connection):
            raise RestoreError(f"login_user {run.options['login_user']} is no superuser, expected one: log in as one.")
        path = Path(wish.source).expanduser()
        if is_remote(wish.source):
            remote = look(wish.source, wish.rclone_config)
            if check:
                return remote_facts(run, remote)
            with run.timed("fetch"):
                path = fetch(remote, scratch, wish.rclone_config)
        with run.timed("checksum"):
            source = describe_source(path)
        if wish.checksum not in {None, source.sha256}:
            if is_remote(wish.source):
                remove_fetched(scratch)
            raise DumpError(
                f"{wish.source} has the SHA-256 {source.sha256}, expected {wish.checksum}: fetch it again, or mend "
                "checksum."
            )
        if marker == source.sha256:
            return unchanged
        try:
            with run.timed("unpack"):
                usable = unpack(source, scratch)
            plan = make_plan(run, connection, source, usable)
            facts = plan_facts(run, plan)
            if not check:
                facts["validated"] = vars(carry_out(run, connection, plan, usable))
                facts["background_workers"] = server.start_workers(run.options, wish.database)
        finally:
            remove_unpacked(scratch)
        if not check:
            remove_fetched(scratch)
    return {**facts, "seconds": run.seconds}


def perform(run: Run, state: str, *, check: bool, scratch: Path) -> dict[str, Any]:
    """Mend what an earlier run has left, then bring the database to its state."""
    journal = pending_journal(run.wish.work)
    mended = None
    hole = False
    if journal is not None:
        hole = journal.archive_hole
        mended = f"a restore of {journal.database} was interrupted in phase {journal.phase.value}, to be taken back"
        if not check:
            remove_unpacked(run.wish.work)
            mended = mend(run, journal)
            run.container = engine.inspect(run.wish.container)
    else:
        mended = remove_leftovers(run, check=check)
    if state == "reverted" or (journal is not None and check):
        text = f"{mended}\n" if mended else ""
        answer: dict[str, Any] = {
            "changed": mended is not None,
            "base_backup_required": False,
            "diff": {"before": text, "after": ""},
        }
    else:
        answer = present(run, check=check, scratch=scratch)
        answer["changed"] = answer["changed"] or mended is not None
    return {**answer, "mended": mended, "base_backup_required": hole or answer["base_backup_required"]}


def _interrupted(number: int, _frame: FrameType | None) -> None:
    raise RestoreError(f"ended by signal {signal.Signals(number).name}.")


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec=postgres_argument_spec(
            source={"type": "str"},
            rclone_config={"type": "path"},
            database={"type": "str", "required": True},
            state={"type": "str", "default": "present", "choices": ["present", "reverted"]},
            checksum={"type": "str"},
            profile={"type": "str", "default": "safe", "choices": ["fast", "safe"]},
            settings={"type": "dict", "default": {}},
            accept_cluster_risk={"type": "bool", "default": False},
            existing={"type": "str", "default": "refuse", "choices": ["refuse", "keep", "drop"]},
            owner={"type": "str"},
            jobs={"type": "int"},
            container={"type": "str", "default": "cryptopip-timescaledb"},
            restart={"type": "bool", "default": True},
            work_path={"type": "path", "default": "/var/lib/cryptopip/restore"},
        ),
        required_if=[("state", "present", ["source"])],
        supports_check_mode=True,
    )
    options = module.params
    wish = Wish(
        database=options["database"],
        source=options["source"] or "",
        rclone_config=options["rclone_config"],
        checksum=options["checksum"],
        profile=options["profile"],
        settings={name: None if value is None else setting_text(value) for name, value in options["settings"].items()},
        accept_cluster_risk=options["accept_cluster_risk"],
        existing=options["existing"],
        owner=options["owner"],
        jobs=min(len(os.sched_getaffinity(0)), 8) if options["jobs"] is None else options["jobs"],
        container=options["container"],
        work=Path(options["work_path"]),
        may_restart=options["restart"],
    )
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _interrupted)
    done: list[str] = []
    try:
        container = engine.inspect(wish.container)
        wish.check(container)
        if is_remote(wish.source) and wish.checksum is None:
            raise DumpError(
                f"source {wish.source} is fetched and has no checksum, expected its SHA-256: else nobody knows whether "
                "what came is what was sent. Set checksum."
            )
        with locked(wish.work, check=module.check_mode) as scratch:
            run = Run(options, wish, container, done=done)
            try:
                answer = perform(run, options["state"], check=module.check_mode, scratch=scratch)
            except StuckError as error:
                module.fail_json(msg=str(error), changed=bool(done), done=done)
            except ERRORS as error:
                for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                    signal.signal(number, signal.SIG_IGN)  # the way back is not to be cut short
                after = "" if module.check_mode else take_back(run)
                module.fail_json(msg=f"{explained(str(error))} {after}".strip(), changed=bool(done), done=done)
    except ERRORS as error:
        module.fail_json(
            msg=f"{error} Nothing was changed.", changed=False, done=done, at_work=isinstance(error, AtWorkError)
        )
    if answer["base_backup_required"]:
        module.warn("WAL is missing from the archive since archive_mode was off: take a new base backup at once.")
    if answer.get("background_workers") is False:
        module.warn(
            f"no TimescaleDB scheduler was seen in {wish.database}: raise timescaledb.max_background_workers, its jobs "
            "do not run."
        )
    module.exit_json(**answer)


def setting_text(value: object) -> str:
    """A value as YAML gives it -> as PostgreSQL writes it."""
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def explained(said: str) -> str:
    """An error with the way out, where it is the one of TimescaleDB that does not say it."""
    if NOT_LOADED not in said:
        return said
    return (
        f"{said} TimescaleDB's catalog was asked for in a session that had not loaded the extension in full: another "
        "program made, updated or dropped it in the new database meanwhile, or the server runs another library than "
        "its image has. Restart the server, keep other programs from the database until it is restored, and run again."
    )


def take_back(run: Run) -> str:
    """After a failure: what was taken back, or what is left and how it is mended."""
    try:
        return abort(run)
    except ERRORS as error:
        return (
            f"It was not all taken back: {error} Run again, or with state=reverted; until then settings of the server "
            "may be those of the restore."
        )


if __name__ == "__main__":
    main()
