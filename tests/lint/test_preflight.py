"""What site.yml gives a host is checked in its first play, by the roles' own checks, which bring nothing along."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if (path / "tasks" / "preflight.yml").exists())


def plays(playbook: str) -> list[dict[str, Any]]:
    """The plays of a playbook, those of the playbooks it imports included, in their order."""
    found: list[dict[str, Any]] = []
    for play in yaml.safe_load((ROOT / "playbooks" / playbook).read_text()):
        imported = play.get("ansible.builtin.import_playbook")
        found += plays(imported) if imported else [play]
    return found


def test_the_first_play_checks_for_every_role_of_the_others() -> None:
    first, *others = plays("site.yml")
    used = {role["role"].rpartition(".")[2] for play in others for role in play.get("roles", [])}
    words = set(re.findall(r"\w+", yaml.safe_dump(first["tasks"])))
    assert used
    assert first["any_errors_fatal"]
    assert used - words == set()


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_checks_alone_bring_nothing_along(role: Path) -> None:
    assert yaml.safe_load((role / "meta" / "main.yml").read_text())["dependencies"] == []  # include_role would run them


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_checks_alone_judge_the_types_of_all_arguments_too(role: Path) -> None:
    specification = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    assert specification["preflight"]["options"] == specification["main"]["options"]
