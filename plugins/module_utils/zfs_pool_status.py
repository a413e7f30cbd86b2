"""What ``zpool`` says of pools, as values: from its JSON (OpenZFS 2.3 and up), or from its text where it has no JSON.

Pure. Both readings of one pool are equal. Neither tells of every disk whether it is being resilvered: the one
under a ``replacing`` vdev is, and of others only the scan of the whole pool is known.
"""

from __future__ import annotations

import calendar
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

GROUPS = {
    "logs": "log",
    "cache": "cache",
    "l2cache": "cache",
    "spares": "spare",
    "special": "special",
    "dedup": "dedup",
}
"""The headings of ``zpool status`` over vdevs that hold no data of their own, and our word for each."""

DISK = "disk"
INTERIOR = re.compile(r"(mirror|raidz[123]?|draid[123]?|replacing|spare|indirect)-")
HEALTHY = frozenset({"ONLINE", "DEGRADED"})
STATES = {"CANT_OPEN": "UNAVAIL"}
"""JSON shows the name that the code has for a state where text has the operator's."""


class StatusError(Exception):
    """What zpool printed is not what any release we know prints; the text says where."""


@dataclass(frozen=True)
class Vdev:
    """A vdev with its children. ``path`` is what zpool last knew of a disk; ``errors`` are read, write, checksum."""

    name: str
    kind: str
    state: str
    guid: str = ""
    path: str = ""
    group: str = "data"
    errors: tuple[int, int, int] = (0, 0, 0)
    children: tuple[Vdev, ...] = ()

    def leaves(self) -> Iterator[Vdev]:
        """The disks below, or itself where it is one."""
        if self.children:
            yield from chain.from_iterable(child.leaves() for child in self.children)
        else:
            yield self


@dataclass(frozen=True)
class Scan:
    """The last scrub or resilver that the pool tells of; ``ended`` is None while it runs or where it was cancelled."""

    function: str
    state: str
    ended: int | None
    errors: int


@dataclass(frozen=True)
class PoolStatus:
    """A pool as ``zpool status`` shows it; ``message`` is what it says is wrong, empty where nothing is."""

    name: str
    state: str
    vdevs: tuple[Vdev, ...]
    scan: Scan | None = None
    data_errors: int = 0
    message: str = ""

    def leaves(self) -> list[Vdev]:
        """All its disks, those of logs, caches and spares too."""
        return [leaf for vdev in self.vdevs for leaf in vdev.leaves()]


@dataclass(frozen=True)
class Importable:
    """A pool that ``zpool import`` found on disks; ``message`` is why it would not come in as it is, or empty."""

    name: str
    guid: str
    state: str
    vdevs: tuple[Vdev, ...]
    message: str = ""


def parse_version(text: str) -> tuple[int, int]:
    """Major and minor of the tools, from ``zpool version``."""
    found = re.match(r"zfs-(\d+)\.(\d+)", text)
    if found is None:
        raise StatusError(f"zpool version printed {text[:80]!r}, expected zfs- and a number: is this OpenZFS 2?")
    return int(found[1]), int(found[2])


# --- JSON ---------------------------------------------------------------------------------------------------------


def parse_status_json(text: str) -> list[PoolStatus]:
    """Every pool of ``zpool status -j --json-int -P``."""
    return [_pool_of(name, pool) for name, pool in _pools(text, "zpool status").items()]


def parse_list_json(text: str) -> dict[str, dict[str, str]]:
    """Pool name -> property -> value of ``zpool list -j -p``."""
    return {
        name: {key: str(entry["value"]) for key, entry in pool["properties"].items()}
        for name, pool in _pools(text, "zpool list").items()
    }


def _pools(text: str, command: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
        found, pools = document["output_version"]["command"], document["pools"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise StatusError(f"{command} -j printed {text[:80]!r}, expected JSON with pools ({error})") from error
    if found != command:
        raise StatusError(f"expected the output of {command}, found that of {found}")
    return dict(pools)


def _pool_of(name: str, pool: Mapping[str, Any]) -> PoolStatus:
    tops = [
        _vdev_of(vdev, group)
        for key, group in (("vdevs", "data"), *GROUPS.items())
        for vdev in pool.get(key, {}).values()
    ]
    # The data's vdevs hang below one root of the pool's own name; the groups have none.
    vdevs = [child for top in tops for child in (top.children if top.kind == "root" else (top,))]
    scan = pool.get("scan_stats")
    return PoolStatus(
        name=name,
        state=pool["state"],
        vdevs=tuple(vdevs),
        scan=None if scan is None or scan["function"] == "NONE" else _scan_of(scan),
        data_errors=int(pool.get("error_count", 0)),
        message=" ".join(pool.get("status", "").split()),
    )


def _vdev_of(vdev: Mapping[str, Any], group: str) -> Vdev:
    kind = vdev["vdev_type"]
    return Vdev(
        name=vdev["name"],
        kind=kind,
        state=STATES.get(vdev["state"], vdev["state"]),
        guid=str(vdev["guid"]),
        path=vdev.get("path", "") if kind == DISK else "",
        group=group,
        errors=(
            int(vdev.get("read_errors", 0)),
            int(vdev.get("write_errors", 0)),
            int(vdev.get("checksum_errors", 0)),
        ),
        children=tuple(_vdev_of(child, group) for child in vdev.get("vdevs", {}).values()),
    )


def _scan_of(scan: Mapping[str, Any]) -> Scan:
    finished = scan["state"] == "FINISHED"
    return Scan(
        function=scan["function"].lower(),
        state=scan["state"].lower(),
        ended=int(scan["end_time"]) if finished else None,
        errors=int(scan["errors"]),
    )


# --- text ---------------------------------------------------------------------------------------------------------


def parse_status_text(text: str, guids: str = "") -> list[PoolStatus]:
    """Every pool of ``zpool status -p -P``; ``guids`` is the same with ``-g`` for ``-P``, which names vdevs by guid.

    Times are read as UTC, so ask with TZ=UTC and LC_ALL=C.
    """
    numbers = {section["pool"]: _tree(section) for section in _sections(guids)}
    pools = []
    for section in _sections(text):
        name = section["pool"]
        vdevs = _tree(section)
        if name in numbers:
            vdevs = _with_guids(vdevs, numbers[name], name)
        pools.append(
            PoolStatus(
                name=name,
                state=section["state"],
                vdevs=vdevs,
                scan=_scan_of_text(section.get("scan", "")),
                data_errors=_data_errors(section.get("errors", "")),
                message=" ".join(section.get("status", "").split()),
            )
        )
    return pools


def parse_importable(text: str, folder: str) -> list[Importable]:
    """The pools of ``zpool import -d folder``, which names a disk by its file in the folder."""
    pools = []
    for section in _sections(text):
        vdevs = _tree(section)
        pools.append(
            Importable(
                name=section["pool"],
                guid=section["id"],
                state=section["state"],
                vdevs=tuple(_in_folder(vdev, folder) for vdev in vdevs),
                message=" ".join(section.get("status", "").split()),
            )
        )
    return pools


def parse_list_text(text: str, columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """Pool name -> property -> value of ``zpool list -H -p -o name,columns``."""
    rows = [line.split("\t") for line in text.splitlines()]
    return {name: dict(zip(columns, values, strict=True)) for name, *values in rows}


def _sections(text: str) -> Iterator[dict[str, str]]:
    """Each pool's paragraphs by their heading; lines that go on are kept with their breaks."""
    section: dict[str, str] = {}
    heading = ""
    for line in text.splitlines():
        found = re.match(
            r" {0,8}(pool|id|state|status|action|see|scan|config|errors|comment|remove|checkpoint|scrub): ?(.*)", line
        )
        if found is None:
            if heading:
                section[heading] += f"\n{line}"
            continue
        heading = found[1]
        if heading == "pool" and section:
            yield {key: value.strip("\n ") for key, value in section.items()}
            section = {}
        section[heading] = found[2]
    if section:
        yield {key: value.strip("\n ") for key, value in section.items()}


def _tree(section: Mapping[str, str]) -> tuple[Vdev, ...]:
    """The pool's vdevs, from the indented lines of its config below the one with its own name."""
    rows: list[tuple[int, Vdev]] = []
    group = "data"
    for line in section.get("config", "").splitlines():
        words = line.split()
        if not words or words[:2] == ["NAME", "STATE"]:
            continue
        depth = (len(line.lstrip("\t")) - len(line.strip())) // 2
        if depth == 0 and rows:
            group = GROUPS.get(words[0], "")
            if not group:
                raise StatusError(f"zpool printed {line!r} among the vdevs, expected one of {', '.join(GROUPS)}")
            continue
        rows.append((depth, _vdev_of_words(words, group)))
    if not rows:
        raise StatusError(f"zpool printed no vdevs for pool {section.get('pool')!r}")
    # The groups' disks stand one level below their heading, as the data's vdevs below the pool.
    return tuple(_nest(rows[1:], 1))


def _nest(rows: Sequence[tuple[int, Vdev]], depth: int) -> Iterator[Vdev]:
    at = 0
    while at < len(rows):
        end = next((later for later in range(at + 1, len(rows)) if rows[later][0] <= depth), len(rows))
        children = tuple(_nest(rows[at + 1 : end], depth + 1))
        yield replace(rows[at][1], children=children)
        at = end


def _vdev_of_words(words: Sequence[str], group: str) -> Vdev:
    name, state = words[0], words[1] if len(words) > 1 else ""
    counted = len(words) >= 5 and all(word.isdigit() for word in words[2:5])
    note = " ".join(words[5:] if counted else words[2:])
    interior = INTERIOR.match(name)
    is_file = name.startswith("/") and not name.startswith("/dev/")
    # A disk that is away goes by its guid, and the path that it had is told behind.
    path = note.partition("was ")[2].split()[0] if name.isdigit() and "was " in note else name
    return Vdev(
        name=name,
        kind=interior[1] if interior else "file" if is_file else DISK,
        state=state,
        path="" if interior or is_file else path,
        group=group,
        errors=(int(words[2]), int(words[3]), int(words[4])) if counted else (0, 0, 0),
    )


def _with_guids(vdevs: Iterable[Vdev], numbered: Sequence[Vdev], pool: str) -> tuple[Vdev, ...]:
    """The vdevs with the guids of a tree of the same shape."""
    vdevs = tuple(vdevs)
    if len(vdevs) != len(numbered):
        raise StatusError(f"pool {pool} changed while it was asked, expected {len(vdevs)} vdevs, found {len(numbered)}")
    return tuple(
        replace(vdev, guid=number.name, children=_with_guids(vdev.children, number.children, pool))
        for vdev, number in zip(vdevs, numbered, strict=True)
    )


def _in_folder(vdev: Vdev, folder: str) -> Vdev:
    path = f"{folder}/{vdev.path}" if vdev.path and not vdev.path.startswith("/") else vdev.path
    return replace(vdev, path=path, children=tuple(_in_folder(child, folder) for child in vdev.children))


def _scan_of_text(text: str) -> Scan | None:
    if not text or text.startswith("none requested"):
        return None
    words = " ".join(text.split())
    function = "resilver" if words.startswith("resilver") else "scrub"
    if found := re.match(r"(?:scrub repaired|resilvered) .* with (\d+) errors on (.*)", words):
        return Scan(function, "finished", calendar.timegm(time.strptime(found[2])), int(found[1]))
    return Scan(function, "canceled" if "canceled" in words else "scanning", None, 0)


def _data_errors(text: str) -> int:
    found = re.match(r"(\d+) data errors", text)
    return int(found[1]) if found else 0
