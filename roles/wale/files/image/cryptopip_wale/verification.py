"""Whether a backup is whole: every partition by size and SHA-256, every WAL segment by what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from cryptopip_wale.archive import archived_files, archived_name
from cryptopip_wale.catalog import Manifest, describe, read_manifest, verdict_path, write_json
from cryptopip_wale.codec import unpack
from cryptopip_wale.errors import Problem, WaleError
from cryptopip_wale.progress import tell
from cryptopip_wale.store import BASE, Store
from cryptopip_wale.wal import parse_lsn, segment_header, segment_number, segments


def part_problems(store: Store, manifest: Manifest) -> list[Problem]:
    """Partitions of a backup that are missing, of another size or other bytes, and ones it never had."""
    problems: list[Problem] = []
    expected = {part["path"]: part for part in manifest["parts"]}
    done, total = 0, sum(part["size_bytes"] for part in manifest["parts"])
    for name, part in expected.items():
        tell(f"{done >> 20} of {total >> 20} MB of partitions read")
        done += part["size_bytes"]
        size = store.size(name)
        if size is None:
            problems.append({"object": name, "problem": "missing"})
        elif size != part["size_bytes"]:
            problems.append({"object": name, "problem": f"holds {size} bytes, expected {part['size_bytes']}"})
        elif store.sha256(name) != part["sha256"]:
            problems.append({"object": name, "problem": "its SHA-256 differs from the manifest's"})
    strangers = (name for name in store.tree(f"{BASE}/{manifest['name']}") if name not in expected)
    return problems + [{"object": name, "problem": "not in the manifest"} for name in strangers]


def _required(manifest: Manifest) -> tuple[int, int]:
    """Numbers of the first and last segment that the backup needs to become consistent."""
    size = manifest["wal_segment_bytes"]
    return parse_lsn(manifest["start_lsn"]) // size, (parse_lsn(manifest["stop_lsn"]) - 1) // size


def required_segments(manifest: Manifest) -> Iterator[str]:
    """Names of the WAL segments without which the backup never becomes consistent."""
    yield from segments(manifest["timeline"], *_required(manifest), manifest["wal_segment_bytes"])


def replayable_segments(store: Store, manifest: Manifest) -> Iterator[str]:
    """Names of the segments from the backup's start to the newest archived one of its timeline."""
    size, timeline = manifest["wal_segment_bytes"], manifest["timeline"]
    first, last = _required(manifest)
    archived = (name for name in archived_files(store) if len(name) == 24 and name.startswith(f"{timeline:08X}"))
    numbers = [segment_number(name, size) for name in archived]
    yield from segments(timeline, first, max([last, *numbers]), size)


def segment_problem(store: Store, manifest: Manifest, segment: str) -> str | None:
    """What is wrong with one archived segment."""
    name, size = archived_name(segment), manifest["wal_segment_bytes"]
    try:
        content = unpack(store.read(name), name)
        identifier, address = segment_header(content)
    except FileNotFoundError:
        return "missing"
    except WaleError as error:
        if error.code != "corrupt":  # the store does not answer: that says nothing of the segment
            raise
        return str(error)
    if len(content) != size:
        return f"unpacks to {len(content)} bytes, expected {size}"
    if identifier != manifest["system_identifier"]:
        return f"is of system identifier {identifier}, expected {manifest['system_identifier']}"
    if address != segment_number(segment, size) * size:
        return f"is the segment that begins at {address >> 32:X}/{address & 0xFFFFFFFF:X}, another than its name says"
    return None


def wal_problems(store: Store, manifest: Manifest) -> list[Problem]:
    """WAL from the backup's start to the newest archived segment that is missing or not what its name says."""
    names = list(replayable_segments(store, manifest))
    problems: list[Problem] = []
    for number, name in enumerate(names):
        tell(f"{number} of {len(names)} segments of WAL read")
        if problem := segment_problem(store, manifest, name):
            problems.append({"object": archived_name(name), "problem": problem})
    return problems


def check(store: Store, name: str) -> Manifest:
    """Read every byte of a backup and of the WAL after it; raises ``corrupt`` with what is wrong, writes nothing."""
    manifest = read_manifest(store, name)
    problems = part_problems(store, manifest) + wal_problems(store, manifest)
    if problems:
        first = f"{problems[0]['object']}: {problems[0]['problem']}"
        raise WaleError("corrupt", f"{name} has {len(problems)} problems, first {first}", problems)
    return manifest


def verify(store: Store, name: str) -> dict[str, Any]:
    """Check a backup and keep the answer beside it; its row, or ``corrupt`` with what is wrong."""
    at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    try:
        manifest = check(store, name)
    except WaleError as error:
        if error.code == "corrupt":
            write_json(store, verdict_path(name), {"verified": False, "verified_at": at, "problems": error.problems})
        raise
    write_json(store, verdict_path(name), {"verified": True, "verified_at": at, "problems": []})
    return describe(store, manifest)
