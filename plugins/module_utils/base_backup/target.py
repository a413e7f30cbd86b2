"""What to recover to, and from which backup: pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from .model import Backup, BackupError, Listing, instant, text_of

_LSN = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")
_NUMBER = re.compile(r"[1-9][0-9]{0,9}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d([ T].*)?")


@dataclass(frozen=True)
class Target:
    """``kind`` is latest, time, lsn, name (of a restore point) or backup (that one's end)."""

    kind: str
    text: str
    at: datetime | None = None


def parse_lsn(text: str) -> int:
    """Bytes of WAL before ``0/3000028``."""
    high, low = text.split("/")
    return (int(high, 16) << 32) | int(low, 16)


def parse_target(text: str, listing: Listing) -> Target:
    """``latest``, a time (UTC unless it says otherwise), an LSN, a backup's name, or a restore point's name."""
    text = text.strip()
    if not text:
        raise BackupError("usage", "the target is empty, expected latest, a time, an LSN, or a name.")
    if text == "latest":
        return Target("latest", text)
    if _LSN.fullmatch(text):
        return Target("lsn", text.upper())
    if _TIME.fullmatch(text):
        try:
            at = instant(text)
        except ValueError as error:
            raise BackupError("usage", f"the target {text!r} is no time: {error}; expected ISO 8601.") from error
        # Not with Z: at the server's start, when it reads its settings, no abbreviation of a zone is known yet.
        return Target("time", text_of(at).replace("T", " ").replace("Z", "+00:00"), at)
    if any(backup.name == text for backup in listing.backups):
        return Target("backup", text)
    if len(text.encode()) > 63:
        raise BackupError("usage", f"the target {text!r} is longer than a restore point's name (63 bytes).")
    return Target("name", text)


def parse_timeline(text: str) -> int | None:
    """The number of a timeline; None for ``latest`` and ``current`` (the backup's own)."""
    if text in ("latest", "current"):
        return None
    if not _NUMBER.fullmatch(text):
        raise BackupError("usage", f"the timeline is {text!r}, expected latest, current or a number as 2.")
    return int(text)


def choose_backup(listing: Listing, target: Target, wanted: str | None, timeline: str = "latest") -> Backup:
    """The newest backup from which the target can be reached; a corrupt one is left out unless it is ``wanted``.

    Nobody knows when a restore point was: the oldest backup reaches it if any does; name a newer one to go faster.
    A timeline with a number is reached from its own backups, else from those of a lower number.
    """
    number = parse_timeline(timeline)
    if wanted is not None or target.kind == "backup":
        backup = listing.named(target.text if wanted is None else wanted)
        _reaches(backup, target, number)
        return backup
    fit = [backup for backup in listing.backups if backup.verified is not False and _is_before(backup, target)]
    if number is not None:
        fit = [each for each in fit if each.timeline == number] or [each for each in fit if each.timeline < number]
    if not fit:
        first = listing.backups[0] if listing.backups else None
        span = f"the first ends at {text_of(first.finished_at)}, {first.stop_lsn}" if first else "there is none"
        where = "" if number is None else f" on timeline {number} or a lower one"
        raise BackupError(
            "not_found", f"no backup that is not corrupt ends before the target {target.text}{where}: {span}."
        )
    return fit[0] if target.kind == "name" else fit[-1]


def _is_before(backup: Backup, target: Target) -> bool:
    if target.kind == "time":
        assert target.at is not None
        return backup.finished_at <= target.at
    return target.kind != "lsn" or parse_lsn(backup.stop_lsn) <= parse_lsn(target.text)


def _reaches(backup: Backup, target: Target, number: int | None) -> None:
    if number is not None and (backup.timeline > number or (target.kind == "backup" and backup.timeline != number)):
        raise BackupError(
            "usage", f"{backup.name} is of timeline {backup.timeline}, expected {number}, as the timeline asked for."
        )
    if not _is_before(backup, target) or (target.kind == "backup" and target.text != backup.name):
        raise BackupError(
            "usage",
            f"{backup.name} ends at {text_of(backup.finished_at)}, {backup.stop_lsn}, after the target "
            f"{target.text}: expected an older one.",
        )


def settings(target: Target, restore_command: str, action: str, timeline: str = "latest") -> dict[str, str]:
    """PostgreSQL's settings for the recovery; nothing of it archives. ``action`` is what to do at the target."""
    found = {"restore_command": restore_command, "recovery_target_timeline": timeline, "archive_mode": "off"}
    match target.kind:
        case "latest":
            return found
        case "backup":
            found["recovery_target"] = "immediate"
            found["recovery_target_timeline"] = "current"  # a newer one may have left it before the backup's end
        case kind:
            found[f"recovery_target_{kind}"] = target.text
    return found | {"recovery_target_action": action}


RECOVERY_SETTINGS = (
    "archive_mode",
    "restore_command",
    "recovery_target",
    "recovery_target_time",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_timeline",
    "recovery_target_action",
)
"""All that ``settings`` may set; a promotion takes each back."""


def conf_text(values: dict[str, str]) -> str:
    """Lines for postgresql.auto.conf; the last line of a name counts there."""
    lines = ["", "# Of a restore, until it is promoted."]
    lines += [f"{name} = '{value.replace(chr(39), chr(39) * 2)}'" for name, value in sorted(values.items())]
    return "\n".join(lines) + "\n"
