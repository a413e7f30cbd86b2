"""pgBackRest 2.55 in the database's container: what its commands answer, as backups."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from .contract import Tell
from .model import Backup, BackupError, Cluster, Listing, Problem, Removal, instant, text_of
from .process import Finished, run_in

SERVER = "cryptopip-timescaledb"
FULL_EVERY = timedelta(days=7)
"""A backup is full where the newest full one is older, else it holds what changed since the backup before it."""
BUSY_CODE = 50
NOT_EMPTY_CODE = 40
# pgBackRest keeps such notes with the backup, in a repository that may be anywhere.
VERDICT = "cryptopip-verified"
_SEGMENT = re.compile(r"[0-9A-F]{24}")
_ARCHIVED = re.compile(r"([0-9A-F]{24})(?:-[0-9a-f]{40}|\.partial|\.[0-9A-F]{8}\.backup)")
_PERCENT = re.compile(r"([0-9.]+)%\)")
_FOUND = re.compile(r"INFO: ((?:invalid|file) [a-z]+) '?([^':]+)'?(.*)")
_BACKUP_STATUS = re.compile(r"^ *backup: ([^,]+), status: ([^,]+)", re.MULTILINE)
_WAL_STATUS = re.compile(r"^ *archiveId: [^,]+, total WAL checked: (\d+), total valid WAL: (\d+)", re.MULTILINE)


def parse_backup(row: dict[str, Any], identifiers: dict[int, str]) -> Backup:
    """One backup of ``pgbackrest info``; ``identifiers`` are the clusters of the stanza by pgBackRest's number."""
    verdict, _, at = row.get("annotation", {}).get(VERDICT, "").partition(" ")
    return Backup(
        name=row["label"],
        engine="pgbackrest",
        system_identifier=identifiers[row["database"]["id"]],
        timeline=int(row["archive"]["start"][:8], 16),
        start_lsn=row["lsn"]["start"],
        stop_lsn=row["lsn"]["stop"],
        started_at=datetime.fromtimestamp(row["timestamp"]["start"], UTC),
        finished_at=datetime.fromtimestamp(row["timestamp"]["stop"], UTC),
        size_bytes=row["info"]["repository"]["delta"],
        verified={"yes": True, "no": False}.get(verdict),
        verified_at=instant(at) if at else None,
        requires=tuple(row["reference"] or ()),
    )


@dataclass(frozen=True)
class Stanza:
    """What ``pgbackrest info`` says: the backups, the first and last segment each needs, and which met bad pages."""

    listing: Listing
    segments: dict[str, tuple[str, str]]
    with_bad_pages: frozenset[str]


def parse_info(text: str) -> Stanza:
    """The answer of ``pgbackrest info --output=json``. Raises ``store`` where the repository is not this cluster's."""
    try:
        (stanza,) = json.loads(text)
        code, message = stanza["status"]["code"], stanza["status"]["message"]
        identifiers = {row["id"]: str(row["system-id"]) for row in stanza["db"]}
    except (ValueError, KeyError, TypeError) as error:
        raise BackupError("engine", f"pgbackrest info answered {text[:200]!r}, expected JSON of 2.55.") from error
    if code not in (0, 2):  # 2: no backup yet
        raise BackupError("store", f"pgbackrest info: {message}. Is the repository mounted? Run the role pgbackrest.")
    rows = sorted(stanza["backup"], key=lambda row: (row["timestamp"]["stop"], row["label"]))
    return Stanza(
        Listing(tuple(parse_backup(row, identifiers) for row in rows)),
        {row["label"]: (row["archive"]["start"], row["archive"]["stop"]) for row in rows},
        frozenset(row["label"] for row in rows if row["error"]),
    )


def parse_archive(text: str) -> list[str]:
    """Names of archived files of WAL, from ``pgbackrest repo-ls --recurse --output=json``, but for history files."""
    found = (match for path in json.loads(text) if (match := _ARCHIVED.match(path.rsplit("/", 1)[-1])))
    return sorted({match[0].split("-")[0] for match in found})


def segments_between(first: str, last: str, segment_bytes: int) -> list[str]:
    """Names of all segments from ``first`` to ``last`` on the timeline of ``first``, both included."""
    per_file = (1 << 32) // segment_bytes
    begin, end = (int(name[8:16], 16) * per_file + int(name[16:], 16) for name in (first, last))
    return [f"{first[:8]}{number // per_file:08X}{number % per_file:08X}" for number in range(begin, end + 1)]


def gaps(archived: Iterable[str], first: str, last: str, segment_bytes: int) -> list[str]:
    """Segments that are missing from the backup's first to the newest archived one of its timeline.

    ``verify`` of 2.55 does not look for them: with one taken away it says "ok" and exits 0.
    """
    there = {name for name in archived if _SEGMENT.fullmatch(name) and name[:8] == first[:8]}
    return [name for name in segments_between(first, max({last, *there}), segment_bytes) if name not in there]


def parse_verify(done: Finished, names: Sequence[str], first: str) -> list[Problem]:
    """What ``pgbackrest verify`` found wrong with these backups, or with WAL from the segment ``first`` on.

    Judged by its words, all of which must be there: it exits with 0 whatever it finds.
    """
    statuses = dict(_BACKUP_STATUS.findall(done.stdout))
    wal = _WAL_STATUS.findall(done.stdout)
    if done.code != 0 or not wal or any(name not in statuses for name in names):
        raise BackupError("engine", f"pgbackrest verify: exit code {done.code}: {done.said()}.")
    problems = []
    for what, path, more in dict.fromkeys(_FOUND.findall(done.stderr)):
        segment = _ARCHIVED.match(path.rsplit("/", 1)[-1])
        if path.split("/")[0] in names or (segment is not None and segment[1][8:] >= first[8:]):
            problems.append(Problem(path, f"{what}{more}"))
    named = {problem.object.split("/")[0] for problem in problems}
    return problems + [
        Problem(name, statuses[name]) for name in names if statuses[name] != "valid" and name not in named
    ]


def closure(listing: Listing, names: Iterable[str]) -> list[str]:
    """These backups and all that they require, oldest first."""
    wanted = set(names)
    for backup in listing.backups:
        if backup.name in wanted:
            wanted |= set(backup.requires)
    return [backup.name for backup in listing.backups if backup.name in wanted]


def is_full_due(listing: Listing, now: datetime) -> bool:
    """Whether the next backup is full: by age, or because it would build on one that was found corrupt."""
    fulls = [backup for backup in listing.backups if not backup.requires]
    if not fulls or now - fulls[-1].finished_at > FULL_EVERY:
        return True
    base = closure(listing, [listing.backups[-1].name])
    return any(listing.named(name).verified is False for name in base)


def plan_removal(stanza: Stanza, kept: Sequence[str], archived: Iterable[str]) -> Removal:
    """What goes where these backups stay: the others, and WAL older than each of these needs.

    Positions in the WAL only grow, across timelines too, so the position alone decides. History files stay.
    """
    first = min(stanza.segments[name][0][8:] for name in kept)
    removed = tuple(backup.name for backup in stanza.listing.backups if backup.name not in kept)
    return Removal(tuple(kept), removed, tuple(name for name in archived if name[8:24] < first))


def _silent(_: str) -> None:
    """For what is quick."""


@dataclass(frozen=True)
class PgBackRest:
    """The repository of one cluster, asked in the container of its server."""

    container: str
    name: str = "pgbackrest"
    system_identifier: str = ""  # empty: every cluster of the stanza

    @classmethod
    def on(cls, container: str | None) -> PgBackRest:
        """The server the role timescaledb runs, or the one named."""
        return cls(container or SERVER)

    def clusters(self) -> tuple[Cluster, ...]:
        backups = self._stanza().listing.backups
        newest = {backup.system_identifier: backup for backup in backups}  # the oldest come first
        counts = Counter(backup.system_identifier for backup in backups)
        return tuple(Cluster(key, counts[key], each.finished_at, is_here=False) for key, each in newest.items())

    def of_cluster(self, system_identifier: str) -> PgBackRest:
        return replace(self, system_identifier=system_identifier)

    def listing(self) -> Listing:
        listing = self._stanza().listing
        wanted = self.system_identifier
        return replace(
            listing, backups=tuple(each for each in listing.backups if wanted in ("", each.system_identifier))
        )

    def take(self, tell: Tell) -> Backup:
        before = self.listing()
        self._ask(["backup", f"--type={'full' if is_full_due(before, datetime.now(UTC)) else 'incr'}"], tell)
        known = {backup.name for backup in before.backups}
        new = [backup for backup in self.listing().backups if backup.name not in known]
        if len(new) != 1:
            raise BackupError("engine", f"pgbackrest backup made {len(new)} backups, expected one: see its list.")
        return new[0]

    def verify(self, name: str, tell: Tell) -> Backup:
        stanza = self._stanza()
        stanza.listing.named(name)
        problems = self._problems(stanza, name, tell)
        at = text_of(datetime.now(UTC))
        self._ask(["annotate", f"--set={name}", f"--annotation={VERDICT}={'no' if problems else 'yes'} {at}"])
        if problems:
            first = f"{problems[0].object}: {problems[0].problem}"
            raise BackupError("corrupt", f"{name} has {len(problems)} problems, first {first}.", problems)
        return self.listing().named(name)

    def plan_retain(self, keep: int) -> Removal:
        stanza = self._stanza()
        self._require_whole(stanza, self._newest(stanza))
        return self._plan(stanza, keep)

    def retain(self, keep: int, tell: Tell) -> Removal:
        self.verify(self._newest(self._stanza()), tell)
        stanza = self._stanza()
        return self._remove(stanza, self._plan(stanza, keep), tell)

    def plan_delete(self, name: str) -> Removal:
        stanza = self._stanza()
        stanza.listing.named(name)
        kept = [each.name for each in stanza.listing.backups if each.name != name and name not in each.requires]
        if not any(stanza.listing.named(each).verified for each in kept):
            raise BackupError(
                "last_verified",
                f"no verified backup would be left that does without {name}, expected one: verify another first.",
            )
        return plan_removal(stanza, kept, self._archived())

    def delete(self, name: str, tell: Tell) -> Removal:
        removal = self.plan_delete(name)
        return self._remove(self._stanza(), removal, tell)

    def fetch(self, name: str, folder: str, tell: Tell) -> None:
        stanza = self._stanza()
        stanza.listing.named(name)
        self._require_whole(stanza, name)
        # Without a map the tablespaces would go to where the live cluster's are.
        place = [f"--pg1-path={folder}", f"--tablespace-map-all={folder}.tablespaces", "--type=none"]
        made = run_in(self.container, ["install", "-d", "-m", "0700", folder])
        if made.code != 0:
            raise BackupError("usage", f"{folder}: {made.said()}.")
        self._ask(["restore", f"--set={name}", *place], tell)

    @property
    def restore_command(self) -> str:
        return "cryptopip-archive-get %f %p"

    def _newest(self, stanza: Stanza) -> str:
        if not stanza.listing.backups:
            raise BackupError("not_found", "there is no complete backup, so nothing may be removed.")
        return stanza.listing.backups[-1].name

    def _plan(self, stanza: Stanza, keep: int) -> Removal:
        newest = [backup.name for backup in stanza.listing.backups[-keep:]]
        return plan_removal(stanza, closure(stanza.listing, newest), self._archived())

    def _remove(self, stanza: Stanza, removal: Removal, tell: Tell) -> Removal:
        left = {backup.name: backup for backup in stanza.listing.backups}
        for name in removal.removed:
            if name in left:  # not gone with one that it requires
                tell(f"removing {name}")
                self._ask(["expire", f"--set={name}"])
                left = {key: each for key, each in left.items() if key != name and name not in each.requires}
        # Of the WAL pgBackRest keeps what this many full backups need: all that are left.
        fulls = sum(1 for backup in left.values() if not backup.requires)
        self._ask(["expire", f"--repo1-retention-full={fulls}", f"--repo1-retention-archive={fulls}"])
        archived = set(self._archived())
        return Removal(
            removal.kept, removal.removed, tuple(each for each in removal.removed_wal if each not in archived)
        )

    def _require_whole(self, stanza: Stanza, name: str) -> None:
        problems = self._problems(stanza, name, _silent)
        if problems:
            raise BackupError("corrupt", f"{name} is not whole, nothing was done.", problems)

    def _problems(self, stanza: Stanza, name: str, tell: Tell) -> list[Problem]:
        first, last = stanza.segments[name]
        names = closure(stanza.listing, [name])
        archived = self._archived()
        missing = [Problem(each, "missing") for each in gaps(archived, first, last, self._segment_bytes())]
        pages = [Problem(each, "has pages with a wrong checksum") for each in names if each in stanza.with_bad_pages]
        tell(f"reading {len(names)} backups and {len(archived)} files of WAL")
        options = ["--output=text", "--verbose"]
        return parse_verify(self._run(["verify", *options], tell, level="info"), names, first) + missing + pages

    def _stanza(self) -> Stanza:
        return parse_info(self._ask(["info", "--output=json"]).stdout)

    def _archived(self) -> list[str]:
        return parse_archive(self._ask(["repo-ls", "--recurse", "--output=json", "archive/cryptopip"]).stdout)

    def _segment_bytes(self) -> int:
        done = run_in(self.container, ["sh", "-c", 'exec pg_controldata "$PGDATA"'])
        match = re.search(r"^Bytes per WAL segment: +(\d+)$", done.stdout, re.MULTILINE)
        if match is None:
            raise BackupError("server", f"pg_controldata: {done.said()}, expected the size of a WAL segment.")
        return int(match[1])

    def _ask(self, arguments: Sequence[str], tell: Tell = _silent) -> Finished:
        done = self._run(arguments, tell)
        if done.code != 0:
            code = {BUSY_CODE: "busy", NOT_EMPTY_CODE: "usage"}.get(done.code, "engine")
            raise BackupError(code, f"pgbackrest {' '.join(arguments)}: exit code {done.code}: {done.said()}.")
        return done

    def _run(self, arguments: Sequence[str], tell: Tell, level: str = "detail") -> Finished:
        def on_line(line: str) -> None:
            if match := _PERCENT.search(line):
                tell(f"{match[1]} % of the bytes")

        logging = ["--log-level-console=off", f"--log-level-stderr={level}", "--no-log-timestamp"]
        return run_in(self.container, ["pgbackrest", *logging, *arguments], on_line=on_line)
