"""playbooks/recovery_kit.yml on an inventory as production has it, with Ansible's own vault."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.harness.process import ROOT

VAULT_PASSWORD = "of-the-inventory-and-not-of-the-kit"
REMOTE_KEY = "obscured-key-of-the-remote"
VAULTED = (
    "vault_offsite_remotes: {secret: {type: crypt, remote: 'gdrive:x', password: %s}}\nvault_key: top-secret-gpg\n"
)


def program(name: str) -> str:
    """One of Ansible's, of the version that the tests run with."""
    return str(Path(sys.executable).with_name(name))


class Fleet:
    """An inventory with a vault, an authority, and the kit that is made of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inventory, self.kit = folder / "production", folder / "out" / "fleet.kit"
        self.password, self.vault_password = folder / "kit-passphrase", folder / "vault-password"
        shutil.copytree(ROOT / "inventories" / "production.example", self.inventory)
        self.kit.parent.mkdir()
        self.write(self.password, "test only: forgotten nowhere\n", 0o600)
        self.write(self.vault_password, VAULT_PASSWORD, 0o600)
        self.write(self.inventory / "ca" / "ca.key", "key of the authority\n", 0o600)
        self.write(self.inventory / "ca" / "ca.crt", "its certificate\n")
        variables = "offsite_remotes: '{{ vault_offsite_remotes }}'\nwale_gpg_secret_key: '{{ vault_key }}'\n"
        self.write(self.inventory / "group_vars" / "databases.yml", variables)
        vault = self.inventory / "group_vars" / "all" / "vault.yml"
        with vault.open("a") as file:
            file.write(VAULTED % REMOTE_KEY)
        text = vault.read_text().replace("vault_offsite_remotes: {}\n", "")
        vault.write_text(text)
        self.run(program("ansible-vault"), "encrypt", "--vault-password-file", str(self.vault_password), str(vault))

    @staticmethod
    def write(path: Path, text: str, mode: int = 0o644) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def run(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "0"}
        environment |= {
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_HOME": str(self.folder / "home"),
        }
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=120)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def play(self, *options: str, check: bool = True, **variables: Any) -> subprocess.CompletedProcess[str]:
        """The playbook, as an operator runs it."""
        given = {"recovery_kit_path": self.kit, "recovery_kit_password_file": self.password} | variables
        words = [word for key, value in given.items() for word in ("-e", f"{key}={value}")]
        inventory = ["-i", str(self.inventory), "--vault-password-file", str(self.vault_password)]
        return self.run(
            program("ansible-playbook"), *inventory, "playbooks/recovery_kit.yml", *words, *options, check=check
        )


def changed(done: subprocess.CompletedProcess[str]) -> int:
    """How many tasks changed something, or would."""
    return sum(int(number) for number in re.findall(r"changed=(\d+)", done.stdout))


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def test_a_kit_is_made_once_checked_and_opened_without_this_repository(fleet: Fleet) -> None:
    foretold = fleet.play("--check", "--diff")
    assert (changed(foretold), fleet.kit.exists()) == (1, False)
    assert "+ca/ca.key  " in foretold.stdout
    made = fleet.play("--diff", "-vvv")
    assert changed(made) == 1
    for secret in (REMOTE_KEY, "top-secret-gpg", "key of the authority", VAULT_PASSWORD, "forgotten nowhere"):
        assert secret not in foretold.stdout + made.stdout + made.stderr
        assert secret.encode() not in fleet.kit.read_bytes()
    assert fleet.kit.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in fleet.kit.parent.iterdir()] == [fleet.kit.name]
    kept = fleet.kit.read_bytes()
    assert changed(fleet.play()) == 0
    assert fleet.kit.read_bytes() == kept
    assert changed(fleet.play(recovery_kit_check="current")) == 0

    tar = fleet.folder / "kit.tar.gz"
    passphrase = ("--vault-password-file", str(fleet.password))
    fleet.run(program("ansible-vault"), "decrypt", *passphrase, "--output", str(tar), str(fleet.kit))
    with tarfile.open(tar) as opened:
        names = set(opened.getnames())
        keys = yaml.safe_load(opened.extractfile("keys.yml") or b"")
    stands = {
        f"inventory/production/{path.relative_to(fleet.inventory)}"
        for path in fleet.inventory.rglob("*")
        if path.is_file()
    }
    assert stands | {"ca/ca.key", "ca/ca.crt", "universe.yml", "versions.yml", "requirements/run.txt"} <= names
    assert keys["db1"]["offsite_remotes"]["secret"]["password"] == REMOTE_KEY
    assert keys["db1"]["wale_gpg_secret_key"] == "top-secret-gpg"
    assert set(keys) == {"db1", "ing1", "ing2"}

    folder = fleet.folder / "opened"
    assert changed(fleet.play(recovery_kit_folder=folder)) == 1
    for name in names - {"manifest.json"}:
        assert (folder / name).is_file()
    vault = "group_vars/all/vault.yml"
    assert (folder / "inventory/production" / vault).read_bytes() == (fleet.inventory / vault).read_bytes()
    assert (folder / "inventory/production" / vault).read_text().startswith("$ANSIBLE_VAULT")


def test_what_has_changed_since_is_named_and_comes_into_the_next_kit(fleet: Fleet) -> None:
    fleet.play()
    kept = fleet.kit.read_bytes()
    fleet.write(fleet.inventory / "ca" / "ca.crt", "a new certificate\n")
    stale = fleet.play(recovery_kit_check="current", check=False)
    assert stale.returncode == 2
    assert "ca/ca.crt: changed since" in stale.stdout
    whole = fleet.play(recovery_kit_check="whole")
    assert "what stands differs from it in ca/ca.crt" in " ".join(whole.stdout.split())
    assert fleet.kit.read_bytes() == kept
    made = fleet.play("--diff")
    assert changed(made) == 1
    assert "-ca/ca.crt  " in made.stdout
    assert "-ca/ca.key  " not in made.stdout
    assert changed(fleet.play(recovery_kit_check="current")) == 0


def test_a_kit_that_does_not_open_is_refused_and_never_written_over(fleet: Fleet) -> None:
    missing = fleet.play(recovery_kit_check="whole", check=False)
    assert "is missing, expected a recovery kit" in " ".join(missing.stdout.split())
    fleet.play()
    whole = fleet.kit.read_bytes()
    fleet.kit.write_bytes(whole[: len(whole) // 2])
    for variables in ({}, {"recovery_kit_check": "whole"}, {"recovery_kit_folder": fleet.folder / "opened"}):
        torn = fleet.play(check=False, **variables)
        assert (torn.returncode, "does not open" in torn.stdout) == (2, True), torn.stdout
    assert fleet.kit.read_bytes() == whole[: len(whole) // 2]
    assert not (fleet.folder / "opened").exists()
    fleet.kit.write_bytes(whole)
    fleet.write(fleet.password, "another\n", 0o600)
    assert "does not open" in fleet.play(check=False).stdout
    fleet.password.chmod(0o644)
    assert "may be read by others" in fleet.play(check=False).stdout
    assert fleet.kit.read_bytes() == whole
    (fleet.inventory / "ca" / "ca.key").unlink()
    assert "an authority's key is expected in" in " ".join(fleet.play(check=False).stdout.split())
