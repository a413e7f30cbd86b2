"""The collections of requirements.yml are those inside the pinned package ansible: nothing is fetched."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_versions_are_those_inside_the_pinned_ansible() -> None:
    wanted = {
        entry["name"]: entry["version"]
        for entry in yaml.safe_load((ROOT / "requirements.yml").read_text())["collections"]
    }
    found = {}
    for name in wanted:
        manifest = Path("ansible_collections", *name.split("."), "MANIFEST.json")
        path = metadata.distribution("ansible").locate_file(manifest)
        found[name] = json.loads(Path(str(path)).read_text())["collection_info"]["version"]
    assert wanted == found


def test_the_named_ansible_is_the_pinned_and_the_installed_one() -> None:
    version = metadata.version("ansible")
    assert f"package ansible {version}," in (ROOT / "requirements.yml").read_text()
    assert f"\nansible=={version} " in (ROOT / "requirements" / "dev.txt").read_text()
