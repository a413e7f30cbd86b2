"""Whether a backup is whole: every partition by size and SHA-256, every WAL segment by what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptopip_wale.archive import archived_path, unpack
from cryptopip_wale.catalog import Manifest, describe, read_manifest, verdict_path, write_json
from cryptopip_wale.durable import hash_file
from cryptopip_wale.errors import Problem, WaleError
from cryptopip_wale.progress import tell
from cryptopip_wale.wal import parse_lsn, segment_header, segment_number, segments


def part_problems(root: Path, manifest: Manifest) -> list[Problem]:
    """Partitions of a backup that are missing, of another size or other bytes, and ones it never had."""
    problems: list[Problem] = []
    expected = {part["path"]: part for part in manifest["parts"]}
    done, total = 0, sum(part["size_bytes"] for part in manifest["parts"])
    for name, part in expected.items():
        path = root / name
        tell(f"{done >> 20} of {total >> 20} MB of partitions read")
        done += part["size_bytes"]
        if not path.exists():
            problems.append({"object": name, "problem": "missing"})
        elif (size := path.stat().st_size) != part["size_bytes"]:
            problems.append({"object": name, "problem": f"holds {size} bytes, expected {part['size_bytes']}"})
        elif hash_file(path) != part["sha256"]:
            problems.append({"object": name, "problem": "its SHA-256 differs from the manifest's"})
    found = (path for path in sorted((root / "basebackups_005" / manifest["name"]).rglob("*")) if path.is_file())
    strangers = (name for path in found if (name := str(path.relative_to(root))) not in expected)
    return problems + [{"object": name, "problem": "not in the manifest"} for name in strangers]


def _required(manifest: Manifest) -> tuple[int, int]:
    """Numbers of the first and last segment that the backup needs to become consistent."""
    size = manifest["wal_segment_bytes"]
    return parse_lsn(manifest["start_lsn"]) // size, (parse_lsn(manifest["stop_lsn"]) - 1) // size


def required_segments(manifest: Manifest) -> Iterator[str]:
    """Names of the WAL segments without which the backup never becomes consistent."""
    yield from segments(manifest["timeline"], *_required(manifest), manifest["wal_segment_bytes"])


def replayable_segments(root: Path, manifest: Manifest) -> Iterator[str]:
    """Names of the segments from the backup's start to the newest archived one of its timeline."""
    size, timeline = manifest["wal_segment_bytes"], manifest["timeline"]
    first, last = _required(manifest)
    archived = (path.name.removesuffix(".lzo") for path in (root / "wal_005").glob(f"{timeline:08X}*.lzo"))
    numbers = [segment_number(name, size) for name in archived if len(name) == 24]
    yield from segments(timeline, first, max([last, *numbers]), size)


def segment_problem(root: Path, manifest: Manifest, segment: str) -> str | None:
    """What is wrong with one archived segment."""
    path, size = archived_path(root, segment), manifest["wal_segment_bytes"]
    if not path.exists():
        return "missing"
    try:
        content = unpack(path)
        identifier, address = segment_header(content)
    except WaleError as error:
        return str(error)
    if len(content) != size:
        return f"unpacks to {len(content)} bytes, expected {size}"
    if identifier != manifest["system_identifier"]:
        return f"is of system identifier {identifier}, expected {manifest['system_identifier']}"
    if address != segment_number(segment, size) * size:
        return f"is the segment that begins at {address >> 32:X}/{address & 0xFFFFFFFF:X}, another than its name says"
    return None


def wal_problems(root: Path, manifest: Manifest) -> list[Problem]:
    """WAL from the backup's start to the newest archived segment that is missing or not what its name says."""
    names = list(replayable_segments(root, manifest))
    problems: list[Problem] = []
    for number, name in enumerate(names):
        tell(f"{number} of {len(names)} segments of WAL read")
        if problem := segment_problem(root, manifest, name):
            problems.append({"object": str(archived_path(root, name).relative_to(root)), "problem": problem})
    return problems


def check(root: Path, name: str) -> Manifest:
    """Read every byte of a backup and of the WAL after it; raises ``corrupt`` with what is wrong, writes nothing."""
    manifest = read_manifest(root, name)
    problems = part_problems(root, manifest) + wal_problems(root, manifest)
    if problems:
        first = f"{problems[0]['object']}: {problems[0]['problem']}"
        raise WaleError("corrupt", f"{name} has {len(problems)} problems, first {first}", problems)
    return manifest


def verify(root: Path, name: str) -> dict[str, Any]:
    """Check a backup and keep the answer beside it; its row, or ``corrupt`` with what is wrong."""
    at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    try:
        manifest = check(root, name)
    except WaleError as error:
        if error.code == "corrupt":
            write_json(
                root, verdict_path(root, name), {"verified": False, "verified_at": at, "problems": error.problems}
            )
        raise
    write_json(root, verdict_path(root, name), {"verified": True, "verified_at": at, "problems": []})
    return describe(root, manifest)
