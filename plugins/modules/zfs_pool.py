#!/usr/bin/python
"""Ansible module: a ZFS pool of mirrors; the work is in module_utils (zfs_pool_run and what it uses)."""

from __future__ import annotations

DOCUMENTATION = r"""
module: zfs_pool
short_description: Keep a ZFS pool of mirrors
version_added: 0.1.0
description:
  - Creates a pool of mirrors, adds mirrors to it, attaches sides, replaces disks, imports a pool that is on the disks
    already, and sets pool properties.
  - There is no way to destroy a pool or to remove a mirror with it. A side of a mirror or a disk is given up only where
    O(replace) or O(detach) names it; a disk that is in the pool and not in O(mirrors) is refused otherwise.
  - Refuses, before anything changes, disks that hold a file system, a partition or a part of another pool. It never
    clears a disk; that is the operator's.
  - Disks may go by any name. They are known by the ZFS label found on them and by their link in C(/dev/disk/by-id),
    so that a second run changes nothing even if kernel names such as C(sda) have changed meanwhile.
options:
  name:
    description: Name of the pool. With O(state=status) it may be left out, for all pools.
    type: str
  state:
    description:
      - V(present) brings the pool to what is asked for.
      - V(status) changes nothing and reports.
    type: str
    choices: [present, status]
    default: present
  mirrors:
    description:
      - The mirrors, each a list of two or more disks. Needed with O(state=present).
      - A disk is a path, best in C(/dev/disk/by-id), or a plain name such as V(sdb), which is resolved and shown.
      - The order of mirrors and of sides means nothing.
    type: list
    elements: list
  properties:
    description:
      - Pool properties, such as C(ashift), C(autotrim), C(autoexpand), C(comment). Given at creation, set where they
        differ, and C(ashift) also goes with every disk that comes later.
      - Properties of datasets are set with M(community.general.zfs).
    type: dict
    default: {}
  mountpoint:
    description: Where the pool's first dataset is mounted when the pool is created. It is not changed later.
    type: str
    default: none
  replace:
    description:
      - Disks to be replaced, old one to new one. The new one stands in O(mirrors) in the place of the old one.
      - A disk that is gone may be named by its old path or by the guid that C(zpool status -g) shows.
      - Where it is done already, it asks for nothing, so it may stay until the next change.
    type: dict
    default: {}
  detach:
    description:
      - Sides to be taken from their mirror. They do not stand in O(mirrors).
      - A side goes only when no resilver runs any more; the module waits for that.
    type: list
    elements: str
    default: []
  import_foreign:
    description: Import the pool even if another host used it last. See to it that none has it imported.
    type: bool
    default: false
  wait:
    description: Wait until all resilvering is done. For long ones run the task with C(async).
    type: bool
    default: false
  assume_new_without_zfs:
    description:
      - In check mode, take a host without ZFS for one without pools, with a warning. For a play that installs ZFS in
        the same run.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    details:
      - The plan is the same one that is carried out, and zpool itself is asked (C(-n)) whether it would create or add.
    description: Can run in check_mode and return changed status prediction without modifying target.
  diff_mode:
    support: full
    details: The diff shows the tree of mirrors and the properties asked for, before and after.
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
  idempotent:
    support: full
    description: A second run with the same arguments indicates no change.
notes:
  - Works with OpenZFS 2.1 and up. From 2.3 on zpool answers in JSON, before that its text is read.
  - Logs, caches and spares of a pool are reported and left alone. A pool with raidz is refused.
seealso:
  - module: community.general.zfs
author:
  - The CRYPTOPIP developers (@cryptopip)
"""

EXAMPLES = r"""
- name: Keep tank on two mirrors
  cryptopip.marketdata.zfs_pool:
    name: tank
    mirrors:
      - [/dev/disk/by-id/ata-ST4000_ZFN0A1, /dev/disk/by-id/ata-ST4000_ZFN0A2]
      - [/dev/disk/by-id/ata-ST4000_ZFN0A3, /dev/disk/by-id/ata-ST4000_ZFN0A4]
    properties:
      ashift: 12
      autotrim: true

- name: Put a new disk in the place of one that failed
  cryptopip.marketdata.zfs_pool:
    name: tank
    mirrors:
      - [/dev/disk/by-id/ata-ST4000_ZFN0A1, /dev/disk/by-id/ata-ST4000_ZFN0B7]
      - [/dev/disk/by-id/ata-ST4000_ZFN0A3, /dev/disk/by-id/ata-ST4000_ZFN0A4]
    replace:
      /dev/disk/by-id/ata-ST4000_ZFN0A2: /dev/disk/by-id/ata-ST4000_ZFN0B7

# Health, errors, scrub age and capacity, from the command line:
#   ansible databases -b -m cryptopip.marketdata.zfs_pool -a 'state=status name=tank'
"""

RETURN = r"""
commands:
  description: The commands that were run, in check mode that would be. Disks of the pool go by their guid in them.
  returned: state is present
  type: list
  elements: str
  sample: [zpool add tank mirror /dev/disk/by-id/ata-ST4000_ZFN0A3 /dev/disk/by-id/ata-ST4000_ZFN0A4]
disks:
  description: What each name that was given stands for.
  returned: state is present
  type: dict
  sample: {sdb: /dev/disk/by-id/ata-ST4000_ZFN0A1}
pools:
  description: The pool as it is afterwards, or with O(state=status) every pool asked for.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the pool.
      type: str
      sample: tank
    state:
      description: State of the pool as zpool says it.
      type: str
      sample: ONLINE
    healthy:
      description: Whether it is V(ONLINE), with no data errors and no disk that is away or has counted an error.
      type: bool
    message:
      description: What zpool says is wrong; empty where nothing is.
      type: str
    size:
      description: Size in bytes.
      type: int
    allocated:
      description: Bytes in use.
      type: int
    free:
      description: Bytes free.
      type: int
    capacity:
      description: Percent in use.
      type: int
    data_errors:
      description: Known data errors that no copy could mend.
      type: int
    scan:
      description: The last scrub or resilver (C(function), C(state), C(ended), C(errors)); null where there was none.
      type: dict
      sample: {function: scrub, state: finished, ended: "2026-11-08T00:41:10Z", errors: 0}
    scrub_age_days:
      description:
        - Days since the last scrub ended; null where the pool does not tell, since it keeps the last scan only and that
          was a resilver, or none.
      type: float
      sample: 12.4
    disks:
      description:
        - Every disk with its C(disk), C(vdev), C(group) (V(data), V(log), V(cache), V(spare), V(special), V(dedup)),
          C(state), C(read_errors), C(write_errors), C(checksum_errors), C(replacing) (part of a replacement that runs).
      type: list
      elements: dict
done:
  description: Commands that had been run when it failed.
  returned: failure
  type: list
  elements: str
"""

import time
from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cryptopip.marketdata.plugins.module_utils.zfs_pool_disks import DiskError
from ansible_collections.cryptopip.marketdata.plugins.module_utils.zfs_pool_host import (
    ENVIRONMENT,
    RunCommand,
    ZfsError,
)
from ansible_collections.cryptopip.marketdata.plugins.module_utils.zfs_pool_report import read_report
from ansible_collections.cryptopip.marketdata.plugins.module_utils.zfs_pool_run import (
    RefusedError,
    Wish,
    manage_pool,
)
from ansible_collections.cryptopip.marketdata.plugins.module_utils.zfs_pool_status import StatusError


def text_of(value: Any) -> str:
    """A pool property as zpool writes it: YAML reads on and off as booleans."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "status"], "default": "present"},
            "mirrors": {"type": "list", "elements": "list"},
            "properties": {"type": "dict", "default": {}},
            "mountpoint": {"type": "str", "default": "none"},
            "replace": {"type": "dict", "default": {}},
            "detach": {"type": "list", "elements": "str", "default": []},
            "import_foreign": {"type": "bool", "default": False},
            "wait": {"type": "bool", "default": False},
            "assume_new_without_zfs": {"type": "bool", "default": False},
        },
        required_if=[("state", "present", ("name", "mirrors"))],
        supports_check_mode=True,
    )
    options = module.params
    run = partial(module.run_command, environ_update=ENVIRONMENT)
    done: list[str] = []
    try:
        answer = {"changed": False} if options["state"] == "status" else present(module, run, done)
        report = read_report(run, options["name"], now=time.time(), absent_is_empty=module.check_mode)
    except RefusedError as error:
        module.fail_json(msg=f"Refused, nothing was changed:\n{error}", changed=False, done=[])
    except (ZfsError, DiskError, StatusError) as error:
        so_far = f" Done before: {'; '.join(done)}." if done else " Nothing was changed."
        module.fail_json(msg=f"{error}.{so_far}", changed=bool(done), done=done)
    module.exit_json(**answer, pools=report)


def present(module: AnsibleModule, run: RunCommand, done: list[str]) -> dict[str, Any]:
    """Bring the pool to what is asked for."""
    options = module.params
    outcome = manage_pool(
        run,
        Wish(
            name=options["name"],
            mirrors=[[str(disk) for disk in mirror] for mirror in options["mirrors"]],
            properties={name: text_of(value) for name, value in options["properties"].items()},
            replaced={str(old): str(new) for old, new in options["replace"].items()},
            detached=options["detach"],
            mountpoint=options["mountpoint"],
            import_foreign=options["import_foreign"],
            assume_new_without_zfs=options["assume_new_without_zfs"],
            wait=options["wait"],
        ),
        check=module.check_mode,
        done=done,
    )
    for warning in outcome.warnings:
        module.warn(warning)
    header = f"pool {options['name']}"
    return {
        "changed": bool(outcome.commands),
        "commands": list(outcome.commands),
        "disks": dict(outcome.disks),
        "diff": {
            "before_header": header,
            "after_header": header,
            "before": outcome.before,
            "after": outcome.after,
        },
    }


if __name__ == "__main__":
    main()
