"""A role's defaults and argument specification say the same, names and values; its README tells of a second run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())


def drift(defaults: dict[str, Any], options: dict[str, dict[str, Any]]) -> list[str]:
    """Where the two differ, a line each: what was found, what was expected."""
    said: list[str] = []
    for name in sorted(defaults.keys() | options.keys()):
        option = options.get(name)
        if option is None:
            said.append(f"{name}: in defaults, not in the specification: describe it there")
        elif name not in defaults:
            if not option.get("required") and "default" in option:
                said.append(
                    f"{name}: the specification has the default {option['default']!r}, defaults/main.yml has none"
                )
            elif not option.get("required"):
                said.append(f"{name}: neither required nor in defaults/main.yml: give it a default or mark it required")
        elif option.get("required"):
            said.append(f"{name}: required, yet in defaults/main.yml: leave one of them out")
        elif "default" not in option and defaults[name] is not None:
            said.append(f"{name}: the specification states no default, defaults/main.yml has {defaults[name]!r}")
        elif repr(option.get("default")) != repr(defaults[name]):  # repr: 1, 1.0, true and "1" differ
            said.append(
                f"{name}: the specification says {option.get('default')!r}, defaults/main.yml {defaults[name]!r}"
            )
    return said


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_and_specification_agree_in_names_and_values(role: Path) -> None:
    defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text()) or {}
    specification = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())
    assert drift(defaults, specification["argument_specs"]["main"].get("options", {})) == []


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_variable_of_a_role_carries_its_name(role: Path) -> None:
    defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text()) or {}
    assert [name for name in defaults if not name.startswith((f"{role.name}_", f"__{role.name}_", "cryptopip_"))] == []


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_the_readme_says_what_a_second_run_does(role: Path) -> None:
    assert "\n## Idempotence\n" in (role / "README.md").read_text()


def test_there_are_roles_to_look_at() -> None:
    assert ROLES


DRIFTS: list[tuple[dict[str, Any], dict[str, dict[str, Any]], str]] = [
    ({"r_a": 1}, {}, "r_a: in defaults, not in the specification"),
    ({}, {"r_a": {"default": 1}}, "r_a: the specification has the default 1"),
    ({}, {"r_a": {"type": "str"}}, "r_a: neither required nor in defaults"),
    ({"r_a": 1}, {"r_a": {"required": True}}, "r_a: required, yet in defaults"),
    ({"r_a": 1}, {"r_a": {"type": "int"}}, "r_a: the specification states no default"),
    ({"r_a": "exporter"}, {"r_a": {"default": ""}}, "r_a: the specification says ''"),
    ({"r_a": True}, {"r_a": {"default": 1}}, "r_a: the specification says 1, defaults/main.yml True"),
]


@pytest.mark.parametrize(("defaults", "options", "said"), DRIFTS, ids=[said for _, _, said in DRIFTS])
def test_each_kind_of_drift_is_found(defaults: dict[str, Any], options: dict[str, dict[str, Any]], said: str) -> None:
    assert drift(defaults, options)[0].startswith(said)


def test_what_agrees_is_no_drift() -> None:
    options: dict[str, dict[str, Any]] = {"r_a": {"default": [1]}, "r_b": {"required": True}, "r_c": {"type": "str"}}
    assert drift({"r_a": [1], "r_c": None}, options) == []
