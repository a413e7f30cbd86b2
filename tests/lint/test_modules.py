"""A module takes the options that its DOCUMENTATION tells of, with the same types, defaults, choices and names."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = "ansible_collections.cryptopip.marketdata.plugins"
MODULES = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py") if path.stem != "__init__")


class SpecificationError(Exception):
    """Ends a module where it has said what it takes."""


def specification(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The options that a module gives to Ansible."""
    module = importlib.import_module(f"{PLUGINS}.modules.{name}")

    def stop(argument_spec: dict[str, Any], **_: object) -> NoReturn:
        raise SpecificationError(argument_spec)

    monkeypatch.setattr(module, "AnsibleModule", stop)
    with pytest.raises(SpecificationError) as stopped:
        module.main()
    return dict(stopped.value.args[0])


def documentation(name: str) -> dict[str, Any]:
    """The options that a module's documentation describes, those of its fragments included."""
    said = yaml.safe_load(importlib.import_module(f"{PLUGINS}.modules.{name}").DOCUMENTATION)
    options: dict[str, Any] = {}
    for fragment in said.get("extends_documentation_fragment", []):
        part = importlib.import_module(f"{PLUGINS}.doc_fragments.{fragment.rpartition('.')[2]}").ModuleDocFragment
        options.update(yaml.safe_load(part.DOCUMENTATION)["options"])
    options.update(said.get("options", {}))  # the module's own word counts
    return options


def essence(options: dict[str, Any], below: str) -> dict[str, Any]:
    """What both must agree on, what goes without saying filled in; ``below``: the key of options within options."""
    return {
        name: {
            "type": option.get("type", "str"),
            "elements": option.get("elements"),
            "required": option.get("required", False),
            "default": repr(option.get("default")),  # repr: 1, True and "1" differ
            "choices": list(option["choices"]) if "choices" in option else None,
            "aliases": sorted(option.get("aliases", [])),
            "options": essence(option.get(below) or {}, below),
        }
        for name, option in options.items()
    }


@pytest.mark.parametrize("name", MODULES)
def test_a_module_takes_what_its_documentation_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert essence(specification(name, monkeypatch), "options") == essence(documentation(name), "suboptions")


def test_there_are_modules_to_look_at() -> None:
    assert MODULES
