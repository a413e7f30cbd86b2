#!/usr/bin/python
"""Ansible module: the schema of a CRYPTOPIP database; the work is in module_utils (migrate, migrations)."""

from __future__ import annotations

DOCUMENTATION = r"""
module: schema_migration
short_description: Bring a database to a version of its schema
version_added: 0.1.0
description:
  - Applies numbered SQL migrations to a PostgreSQL database with TimescaleDB, each in a transaction together with its
    row in the ledger C(public.schema_migrations), so that a failure leaves nothing half done.
  - Creates the role that owns the database, the database and the extension C(timescaledb) where they are missing.
  - Refuses, before anything changes, when an applied file was edited or is missing, when numbers repeat or leave
    holes, or when a way back is missing.
  - One runner at a time; a second one waits for a minute.
options:
  database:
    description: Name of the database.
    type: str
    required: true
  kind:
    description:
      - What the database is for. It decides which of the collection's folders is the default of O(src).
      - A database of kind V(app) gets no TimescaleDB.
    type: str
    choices: [ingestor, datalake, app]
    required: true
  src:
    description:
      - Folder with the migrations on the control node, files named C(NNNN_name.up.sql) and C(NNNN_name.down.sql).
      - Without it, the folder C(files/sql/) of this collection for the O(kind).
    type: path
  path:
    description:
      - The same folder, or a tar file of it, on the managed host. Given instead of O(src), so nothing is carried there.
    type: path
  state:
    description:
      - V(latest) applies what is missing, or goes to O(version).
      - V(absent) goes all the way down. The database, its extension and the empty ledger stay.
      - V(status) changes nothing and tells what is applied and what is pending.
    type: str
    choices: [latest, absent, status]
    default: latest
  version:
    description:
      - Number of the migration to go to, up or down, with O(state=latest). V(0) takes all of them down.
      - Write it without leading zeros; YAML takes those for octal.
    type: int
  edition:
    description:
      - The edition of TimescaleDB that the server runs. It is stated here, never guessed, and compared with the server.
      - With V(apache), migrations that need the community edition are recorded as skipped. They are applied once this
        is V(community).
      - Back to V(apache), they are taken down, while the server still runs the community edition. This is refused as
        long as compressed chunks or continuous aggregates exist, which the apache edition could not read.
    type: str
    choices: [apache, community]
    default: apache
  owner:
    description: Role that owns the database and runs the migrations; created without login where it is missing.
    type: str
    default: cryptopip_owner
  assume_new_when_unreachable:
    description:
      - In check mode, take a server that cannot be reached, or a missing psycopg, for a database yet to be made, with a
        warning.
      - For a play that installs the server in the same run. A server that answers with a refusal is still an error.
    type: bool
    default: false
extends_documentation_fragment: [cryptopip.marketdata.postgres]
attributes:
  check_mode:
    support: full
    details: The plan is the same one that is carried out. The session is read-only, so the server itself holds to it.
    description: Can run in check_mode and return changed status prediction without modifying target.
  diff_mode:
    support: full
    details: The diff shows the ledger before and after.
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
  idempotent:
    support: full
    description: A second run with the same arguments indicates no change.
notes:
  - "Each file opens with comment lines that hold settings, set apart by two spaces or more: C(-- edition: any) or
    C(community), C(-- role: superuser) where the owner may not do it, C(-- transaction: none) where a statement cannot
    run in one, C(-- needs: 0001_name)."
  - "A migration with C(transaction: none) is first recorded as running. Where it does not finish, the next run refuses
    and says what to do."
  - The role O(login_user) has to be a superuser, or may create roles and databases and set role to O(owner).
seealso:
  - module: community.postgresql.postgresql_query
author:
  - The CRYPTOPIP developers (@cryptopip)
"""

EXAMPLES = r"""
- name: Bring the datalake to its newest schema
  cryptopip.marketdata.schema_migration:
    database: datalake
    kind: datalake
    login_host: /run/cryptopip/postgresql

- name: Go back to version 4
  cryptopip.marketdata.schema_migration:
    database: datalake
    kind: datalake
    version: 4
    login_host: /run/cryptopip/postgresql

- name: Keep migrations of your own in a database beside the datalake
  cryptopip.marketdata.schema_migration:
    database: research
    kind: app
    src: files/research
    login_host: db1.example.org
    login_user: admin
    login_password: "{{ vault_admin_password }}"
    ssl_mode: verify-full
    ca_cert: /etc/cryptopip/tls/ca.crt

# What is pending, on every ingestor, from the command line:
#   ansible ingestors -b -m cryptopip.marketdata.schema_migration \
#     -a 'database=ingestor kind=ingestor state=status login_host=/run/cryptopip/postgresql'
"""

RETURN = r"""
migrations:
  description: Every migration, with what was (in check mode - would be) done to it and its state after that.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the migration.
      type: str
      sample: 0004_events
    action:
      description:
        - V(none); V(up); V(down); V(skip), recorded as needing the community edition; V(withdraw), taken down and
          recorded as skipped because the edition went back; V(forget), a skipped one is no longer recorded.
      type: str
      sample: up
    state:
      description: V(applied), V(skipped) or V(absent).
      type: str
      sample: applied
    edition:
      description: V(any), or V(community) where it needs that edition.
      type: str
      sample: any
    sha256:
      description: Checksum of the up file.
      type: str
pending:
  description: Names of the migrations that O(state=latest) would still have run on the database as this run found it.
  returned: success
  type: list
  elements: str
  sample: [0004_events]
version:
  description: Number of the newest migration in the ledger afterwards, 0 where there is none.
  returned: success
  type: int
  sample: 4
database_created:
  description: Whether the database was (would be) created.
  returned: success
  type: bool
extension_created:
  description: Whether the extension timescaledb was (would be) created.
  returned: success
  type: bool
owner_created:
  description: Whether the role O(owner) was (would be) created.
  returned: success
  type: bool
done:
  description: What had been changed when it failed.
  returned: failure
  type: list
  elements: str
  sample: [database datalake created, 0001_roles up]
"""

import tarfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cryptopip.marketdata.plugins.module_utils.migrate import Found, Wish, migrate, outcome
from ansible_collections.cryptopip.marketdata.plugins.module_utils.migrations import MigrationError, read_migrations
from ansible_collections.cryptopip.marketdata.plugins.module_utils.postgres import (
    PostgresError,
    UnreachableError,
    postgres_argument_spec,
)


def read_folder(path: str) -> dict[str, bytes]:
    """File name -> bytes of a folder, or of a tar file of one. Raises MigrationError where it cannot be read."""
    try:
        if Path(path).is_dir():
            return {file.name: file.read_bytes() for file in Path(path).iterdir() if file.is_file()}
        with tarfile.open(path) as archive:
            return {
                Path(member.name).name: file.read()
                for member in archive
                if (file := archive.extractfile(member)) is not None
            }
    except (OSError, tarfile.TarError) as error:
        raise MigrationError(
            f"{path}: {error}: expected a folder with migrations, or a tar file of one; check path."
        ) from error


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec=postgres_argument_spec(
            database={"type": "str", "required": True},
            kind={"type": "str", "required": True, "choices": ["ingestor", "datalake", "app"]},
            src={"type": "path"},
            path={"type": "path"},
            state={"type": "str", "default": "latest", "choices": ["latest", "absent", "status"]},
            version={"type": "int"},
            edition={"type": "str", "default": "apache", "choices": ["apache", "community"]},
            owner={"type": "str", "default": "cryptopip_owner"},
            assume_new_when_unreachable={"type": "bool", "default": False},
        ),
        required_one_of=[("path", "src")],
        supports_check_mode=True,
    )
    options = module.params
    if options["version"] is not None and options["state"] != "latest":
        module.fail_json(
            msg=f"version is given with state={options['state']}: it goes with state=latest only; leave one of them "
            "out."
        )
    wish = Wish(
        database=options["database"],
        state=options["state"],
        target=0 if options["state"] == "absent" else options["version"],
        community=options["edition"] == "community",
        timescaledb=options["kind"] != "app",
        owner=options["owner"],
    )
    done: list[str] = []
    try:
        migrations = read_migrations(read_folder(options["path"] or options["src"]))
        try:
            answer = migrate(options, wish, migrations, check=module.check_mode, done=done)
        except UnreachableError as error:
            if not (module.check_mode and options["assume_new_when_unreachable"]):
                raise
            answer = outcome(wish, migrations, Found(ledger=None))
            answer["warnings"].append(f"taken for a new database, since nothing could be asked: {error}")
    except (MigrationError, PostgresError) as error:
        so_far = f" Done before: {', '.join(done)}." if done else " Nothing was changed."
        module.fail_json(msg=f"{error}{so_far}", changed=bool(done), done=done)
    for warning in answer.pop("warnings"):
        module.warn(warning)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
