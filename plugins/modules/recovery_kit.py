#!/usr/bin/python
"""Ansible module: the recovery kit of a fleet; the work is in module_utils/recovery_kit."""

from __future__ import annotations

DOCUMENTATION = r"""
module: recovery_kit
short_description: Keep what of a fleet nobody could make again in one encrypted file
version_added: 0.1.0
description:
  - Packs folders, files and texts with a manifest (size and SHA-256 of every file) into one file, which
    C(ansible-vault) encrypts with a passphrase of its own. So nothing but Ansible is needed to open it again,
    C(ansible-vault decrypt --output - KIT | tar -xz).
  - Runs on the control node, where these things are; C(playbooks/recovery_kit.yml) says which they are.
options:
  path:
    description: The kit. Its folder has to exist.
    type: path
    required: true
  password_file:
    description: File with the kit's passphrase, which its owner alone may read.
    type: path
    required: true
  state:
    description:
      - V(present) makes the kit where there is none, or where what stands differs from what is in it, and reads it back
        before it takes the place of an older one.
      - V(verified) opens the kit, compares every file with the manifest, and all with what stands.
      - V(unpacked) puts the kit's files into O(folder), once all of them are found whole.
    type: str
    choices: [present, verified, unpacked]
    default: present
  sources:
    description:
      - Files and folders by the name they get in the kit. Links are followed; folders C(.git) and C(__pycache__) are
        left out.
    type: dict
    default: {}
  contents:
    description: Texts by the name of the file they become in the kit.
    type: dict
    default: {}
  current:
    description:
      - With O(state=verified), whether a kit that differs from what stands is a failure. Which files differ is told
        either way.
    type: bool
    default: true
  folder:
    description: With O(state=unpacked), a new or empty folder.
    type: path
attributes:
  check_mode:
    support: full
    description: Can run in check_mode and return changed status prediction without modifying target.
  diff_mode:
    support: full
    details: Names and SHA-256 of the files, never what is in them.
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
  idempotent:
    support: partial
    details: O(state=unpacked) refuses a folder that is not empty.
    description: A second run with the same arguments indicates no change.
requirements:
  - C(ansible-vault) on the host it runs on
notes:
  - A kit that does not open is never written over, since nobody can tell a wrong passphrase from damage.
author:
  - The CRYPTOPIP developers (@cryptopip)
"""

EXAMPLES = r"""
- name: Keep the inventory and the authority
  cryptopip.marketdata.recovery_kit:
    path: /media/stick/fleet.kit
    password_file: ~/.fleet-kit-passphrase
    sources: {inventory: "{{ inventory_dir }}", ca: "{{ inventory_dir }}/ca"}
  delegate_to: localhost

- name: Look whether it is whole and still true
  cryptopip.marketdata.recovery_kit:
    state: verified
    path: /media/stick/fleet.kit
    password_file: ~/.fleet-kit-passphrase
    sources: {inventory: "{{ inventory_dir }}", ca: "{{ inventory_dir }}/ca"}
  delegate_to: localhost
"""

RETURN = r"""
files:
  description: SHA-256 of the files in the kit, or in the kit that would be made, by their names.
  returned: success
  type: dict
changes:
  description: How what stands differs from the kit as it was found, V(added), V(removed) or V(changed) by file.
  returned: with O(state=present) and O(state=verified)
  type: dict
problems:
  description: What is wrong with the kit, file by file.
  returned: failure
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cryptopip.marketdata.plugins.module_utils.recovery_kit import (
    File,
    KitError,
    changes,
    collect,
    listing,
    put_back,
    read,
    require_private,
    write,
)

PRIVATE = 0o600


def shas(files: dict[str, File]) -> dict[str, str]:
    """As the module returns them."""
    return {name: file.sha256 for name, file in sorted(files.items())}


def diff(kit: Path, before: dict[str, File], after: dict[str, File]) -> dict[str, str]:
    """As diff mode shows it."""
    return {
        "before_header": str(kit),
        "after_header": str(kit),
        "before": listing(before),
        "after": listing(after),
    }


def present(options: dict[str, Any], kit: Path, password_file: Path, *, check: bool) -> dict[str, Any]:
    """Make the kit where it is not what it should be."""
    if not kit.parent.is_dir():
        raise KitError(f"{kit.parent} is missing, expected the folder of the kit: make it, or mount it")
    require_private(password_file)
    after = collect(options["sources"], options["contents"], kit)
    if not after:
        raise KitError("sources and contents are empty, expected something to keep")
    before = read(kit, password_file) if kit.exists() else {}
    found = changes(before, after)
    is_open = kit.exists() and kit.stat().st_mode & 0o777 != PRIVATE
    if not check:
        if found:
            write(kit, password_file, after)
        elif is_open:
            kit.chmod(PRIVATE)
    return {
        "changed": bool(found) or is_open,
        "changes": found,
        "files": shas(after),
        "diff": diff(kit, before, after),
    }


def verified(options: dict[str, Any], kit: Path, password_file: Path) -> dict[str, Any]:
    """Whether the kit is whole and, where that is asked, holds what stands."""
    before = read(kit, password_file)
    after = collect(options["sources"], options["contents"], kit)
    found = changes(before, after)
    if found and options["current"]:
        told = tuple(f"{name}: {what} since" for name, what in found.items())
        raise KitError(f"{kit} is whole, but not what stands now: {', '.join(told)}. Make it anew.", told)
    return {"changed": False, "changes": found, "files": shas(before)}


def unpacked(options: dict[str, Any], kit: Path, password_file: Path, *, check: bool) -> dict[str, Any]:
    """The kit's files into a folder."""
    files, folder = read(kit, password_file), Path(options["folder"])
    put_back(folder, files, check=check)
    return {"changed": True, "files": shas(files), "diff": diff(folder, {}, files)}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "password_file": {"type": "path", "required": True, "no_log": False},
            "state": {"type": "str", "default": "present", "choices": ["present", "verified", "unpacked"]},
            "sources": {"type": "dict", "default": {}},
            "contents": {"type": "dict", "default": {}, "no_log": True},
            "current": {"type": "bool", "default": True},
            "folder": {"type": "path"},
        },
        required_if=[("state", "unpacked", ["folder"])],
        supports_check_mode=True,
    )
    options = module.params
    kit, password_file = Path(options["path"]).absolute(), Path(options["password_file"]).absolute()
    try:
        match options["state"]:
            case "present":
                answer = present(options, kit, password_file, check=module.check_mode)
            case "verified":
                answer = verified(options, kit, password_file)
            case _:
                answer = unpacked(options, kit, password_file, check=module.check_mode)
    except KitError as error:
        module.fail_json(msg=str(error), problems=list(error.problems))
    except OSError as error:
        module.fail_json(msg=f"{type(error).__name__}: {error}", problems=[])
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
