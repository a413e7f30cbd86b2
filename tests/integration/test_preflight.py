"""Machines that do not fit are refused with a reason and a remedy, before anything on them changes."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import ROOT


class Case(NamedTuple):
    """A host: the role whose preflight looks at it, its variables, what it tells unlike this machine, what is said."""

    role: str
    variables: dict[str, Any]
    facts: dict[str, Any]
    said: str


LISTEN = "192.0.2.1"
ANOTHER_PYTHON = "3.12" if sys.version_info.minor != 12 else "3.13"
TIMESCALEDB: dict[str, Any] = {
    "timescaledb_edition": "apache",
    "timescaledb_listen_address": LISTEN,
    "timescaledb_databases": [{"name": "ingestor", "kind": "ingestor"}],
    "timescaledb_passwords": dict.fromkeys(("loader", "sync_reader", "reader"), "of-a-test-that-starts-nothing"),
    "timescaledb_memory_min_mb": 1,
    "timescaledb_disk_min_mb": 1,
}
BUSTER = {"ansible_distribution": "Debian", "ansible_distribution_major_version": "10"}
TRIXIE = {
    "ansible_distribution": "Debian",
    "ansible_distribution_major_version": "13",
    "ansible_distribution_version": "13",
}
JAMMY = {
    "ansible_distribution": "Ubuntu",
    "ansible_distribution_major_version": "22",
    "ansible_distribution_version": "22.04",
}

# Only roles that depend on no other: what they depend on would be carried out.
# fits: the same settings without the harm go through, so it is the harm that the others are refused for.
CASES = {
    "old-debian": Case(
        "base", {}, BUSTER, r"old-debian runs Debian 10, expected one of Debian 12, Debian 13, Ubuntu 24\.04"
    ),
    "old-ubuntu": Case("zfs", {}, JAMMY, r"old-ubuntu runs Ubuntu 22\.04, expected one of .* Install one of these"),
    "no-root": Case(
        "base",
        {},
        {**TRIXIE, "ansible_effective_user_id": 1000, "ansible_user_id": "alice"},
        r"the play works as alice, expected root\. Set ansible_become",
    ),
    "old-compose": Case(
        "docker",
        {"docker_source": "distribution"},
        {
            "ansible_distribution": "Debian",
            "ansible_distribution_major_version": "12",
            "ansible_distribution_version": "12",
        },
        r"no Compose 2\.18 or newer; expected auto or vendor",
    ),
    "little-memory": Case(
        "timescaledb",
        {**TIMESCALEDB, "timescaledb_memory_min_mb": 10**9},
        {},
        r"timescaledb_memory_mb is \d+ on little-memory, which has \d+ MB; expected from 1000000000 .* Give the host",
    ),
    "more-than-there-is": Case(
        "timescaledb",
        {**TIMESCALEDB, "timescaledb_memory_mb": 10**9},
        {},
        r"timescaledb_memory_mb is 1000000000 on more-than-there-is, which has \d+ MB",
    ),
    "little-disk": Case(
        "timescaledb",
        {**TIMESCALEDB, "timescaledb_disk_min_mb": 10**9},
        {},
        r"timescaledb_data_path \(.*\) on little-disk has \d+ MB free, expected at least 1000000000 .* a larger file",
    ),
    "no-release-room": Case(
        "app",
        {"app_min_free_gib": 10**9, "app_python": f"{sys.version_info.major}.{sys.version_info.minor}"},
        {},
        r"no-release-room has [0-9.]+ GiB free below /opt, expected at least 1000000000 \(app_min_free_gib\)",
    ),
    "other-python": Case(
        "app",
        {"app_python": ANOTHER_PYTHON},
        {},
        rf"other-python has Python 3\.\d+, expected {re.escape(ANOTHER_PYTHON)} \(app_python\)",
    ),
    "port-in-use": Case(
        "timescaledb",
        {**TIMESCALEDB, "timescaledb_port": "{{ taken_port }}"},
        {},
        r"timescaledb_port \d+ on port-in-use is in use by .+\. Stop that program, or set timescaledb_port",
    ),
    "fits": Case("timescaledb", {**TIMESCALEDB, "timescaledb_port": "{{ free_port }}"}, {}, ""),
}

PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.setup: {gather_subset: [hardware, network]}
    - ansible.builtin.set_fact: {cacheable: true}
      args: "{{ {'ansible_all_ipv4_addresses': [listen]} | combine(facts) }}"
    - ansible.builtin.include_role: {name: "cryptopip.marketdata.{{ role }}", tasks_from: preflight}
    - ansible.builtin.include_role: {name: cryptopip.marketdata.timescaledb, tasks_from: preflight_disk}
      when: role == "timescaledb"
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What one run of ansible-playbook over all cases said; the data folder's parent is to stay empty."""
    folder = tmp_path_factory.mktemp("preflight")
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        ports = {"taken_port": taken.getsockname()[1], "free_port": free.getsockname()[1]}
        free.close()
        hosts = {name: {"role": case.role, "facts": case.facts, **case.variables} for name, case in CASES.items()}
        common = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "listen": LISTEN,
            "fleet_address": LISTEN,
            "cryptopip_passwords": {},
            "timescaledb_data_path": str(folder / "hosts" / "data"),
            "timescaledb_wal_path": str(folder / "hosts" / "wal"),
            **ports,
        }
        (folder / "hosts").mkdir()
        (folder / "inventory.json").write_text(json.dumps({"all": {"hosts": hosts, "vars": common}}))
        (folder / "play.yml").write_text(PLAY)
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(folder / "inventory.json")]
        answer = subprocess.run(
            [*command, str(folder / "play.yml")],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert list((folder / "hosts").iterdir()) == []
    return answer.stdout + answer.stderr


@pytest.mark.parametrize("name", CASES)
def test_a_host_that_does_not_fit_is_refused_before_a_change(report: str, name: str) -> None:
    recap = re.search(rf"^{name} +: ok=\d+ +changed=(\d+) +unreachable=(\d+) +failed=(\d+)", report, re.MULTILINE)
    assert recap, report
    said = CASES[name].said
    assert recap.groups() == ("0", "0", "1" if said else "0"), report
    messages = re.findall(rf'^fatal: \[{name}\].*?"msg": "(.*?)"\n', report, re.MULTILINE | re.DOTALL)
    assert len(messages) == bool(said)
    assert not said or re.search(said, messages[0]), messages


def program_of(*lines: str) -> str:
    """Lines of bash with what the commands of bin/ share."""
    shared = ["set -euo pipefail", "source bin/lib/common.sh", "source bin/lib/setup.sh"]
    return "\n".join([*shared, *lines, "echo went on"])


def shell(*lines: str) -> subprocess.CompletedProcess[str]:
    """Run them in the checkout."""
    return subprocess.run(["bash", "-c", program_of(*lines)], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("room", "said"),
    [
        ("999999 1", r"error: \d+ GiB are free at /.*; expected at least 999999 GiB\. Free some space"),
        ("0 99999999", r"error: \d+ MiB of memory are available; expected at least 99999999 MiB\. Stop something"),
    ],
)
def test_commands_refuse_a_machine_without_room(room: str, said: str) -> None:
    answer = shell(f"require_room {room}")
    assert (answer.returncode, answer.stdout) == (3, "")
    assert re.match(said, answer.stderr)
    assert shell("require_room 0 1").stdout == "went on\n"


@pytest.mark.parametrize(
    ("release", "said"),
    [
        ("ID=ubuntu\nVERSION_ID=22.04\n", "error: this is ubuntu 22.04; expected Debian 12 or 13. Use such a machine"),
        ("ID=debian\nVERSION_ID=11\n", "error: this is debian 11; expected Debian 12 or 13."),
        ("ID=debian\n", "error: this is debian unknown; expected Debian 12 or 13."),
    ],
)
def test_commands_refuse_another_system(tmp_path: Path, release: str, said: str) -> None:
    (tmp_path / "os-release").write_text(release)
    answer = shell(f"os_release={tmp_path}/os-release", "require_debian")
    assert (answer.returncode, answer.stdout) == (3, "")
    assert answer.stderr.startswith(said)
    (tmp_path / "os-release").write_text("ID=debian\nVERSION_ID=13\n")
    assert shell(f"os_release={tmp_path}/os-release", "require_debian").stdout == "went on\n"


NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "ensure_docker",
            "error: no Docker engine answers, we are user .*, and there is no sudo to install or start one",
        ),
        (
            "ensure_packages cryptopip-no-such-package",
            "error: installing cryptopip-no-such-package with apt needs root: we are user",
        ),
        (
            "as_root touch made",
            "error: 'touch' needs root: we are user .*, and there is no sudo. Run this command as root",
        ),
    ],
)
def test_without_docker_and_without_root_commands_say_what_to_do(line: str, said: str) -> None:
    # Not tmp_path: its parents are its owner's alone, and so may the checkout's be.
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)
        shutil.copytree(ROOT / "bin" / "lib", folder / "bin" / "lib")
        (folder / "programs").mkdir()
        # Everything that the lines call, and no sudo.
        for program in ("bash", "cut", "dirname", "docker", "dpkg-query", "grep", "id", "sha256sum", "touch"):
            if found := shutil.which(program):
                (folder / "programs" / program).symlink_to(found)
        environment = {key: value for key, value in os.environ.items() if key != "DOCKER_HOST"}
        answer = subprocess.run(
            [*(NOBODY if os.geteuid() == 0 else ()), "bash", "-c", program_of(line)],
            cwd=folder,
            env={**environment, "PATH": f"{folder}/programs"},
            executable=shutil.which("setpriv") if os.geteuid() == 0 else shutil.which("bash"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (answer.returncode, answer.stdout) == (3, ""), answer.stderr
        assert re.match(said, answer.stderr)
        assert sorted(path.name for path in folder.iterdir()) == ["bin", "programs"]


@pytest.mark.parametrize(
    ("argument", "code", "said"),
    [
        ("--down", 0, "No host of the fleet demo is here: this machine has no Docker"),
        ("--summary", 3, "error: the demo is not running, as this machine has no Docker: start it with bin/demo"),
    ],
)
def test_what_removes_or_shows_the_demo_installs_no_docker(tmp_path: Path, argument: str, code: int, said: str) -> None:
    shutil.copytree(ROOT / "bin", tmp_path / "bin")
    left = tmp_path / "inventories" / "demo" / "hosts.yml"
    left.parent.mkdir(parents=True)
    left.touch()
    (tmp_path / "programs").mkdir()
    # Everything that is called on the way, and neither Docker nor apt.
    for program in ("bash", "cut", "dirname", "env", "flock", "mkdir", "readlink", "rm", "sha256sum"):
        found = shutil.which(program)
        assert found
        (tmp_path / "programs" / program).symlink_to(found)
    answer = subprocess.run(
        [tmp_path / "bin" / "demo", argument],
        env={**os.environ, "PATH": str(tmp_path / "programs")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (answer.returncode, answer.stdout) == (code, "")
    assert said in answer.stderr
    assert left.exists() == (argument == "--summary")
