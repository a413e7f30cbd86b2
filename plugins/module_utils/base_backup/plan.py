"""What a state asks for, given the backups there are: pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from .model import Backup, BackupError, Listing

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True)
class Steps:
    """What is to be done, in this order: read ``verify`` through; unless it is whole, take a backup."""

    verify: str | None = None
    take: bool = False

    @property
    def changes(self) -> bool:
        """Whether anything is to be done."""
        return self.take or self.verify is not None


def duration(text: str, option: str) -> timedelta:
    """A time with its unit, as 36h. Raises BackupError ``usage``."""
    match = re.fullmatch(r"(\d+)\s*([smhdw])", text.strip())
    if match is None:
        raise BackupError("usage", f"{option} is {text!r}, expected a number and its unit (s, m, h, d, w), as 36h.")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def newest_verified(listing: Listing) -> Backup | None:
    """The newest backup that was read through and found whole."""
    return next((backup for backup in reversed(listing.backups) if backup.verified), None)


def plan_present(listing: Listing, now: datetime, max_age: timedelta, *, verify: bool) -> Steps:
    """A new backup where the newest verified one is older than ``max_age``, or there is none.

    One that is young enough and that nobody has verified yet is verified first: its verification may have been
    interrupted, and reading costs less than taking another.
    """
    young = [backup for backup in listing.backups if now - backup.finished_at <= max_age]
    if any(backup.verified for backup in young):
        return Steps()
    unread = [backup.name for backup in young if backup.verified is None]
    if verify and unread:
        return Steps(verify=unread[-1], take=True)
    return Steps(take=True)


def plan_verified(listing: Listing, name: str | None, now: datetime, max_age: timedelta) -> Steps:
    """The named backup, else the newest, unless it was found whole less than ``max_age`` ago.

    Raises BackupError ``not_found``.
    """
    if name is None and not listing.backups:
        raise BackupError("not_found", "there is no complete backup to verify: take one with state=present.")
    backup = listing.backups[-1] if name is None else listing.named(name)
    if backup.verified and backup.verified_at is not None and now - backup.verified_at <= max_age:
        return Steps()
    return Steps(verify=backup.name)


def without(listing: Listing, removed: tuple[str, ...]) -> Listing:
    """What would be there after a removal."""
    return replace(listing, backups=tuple(backup for backup in listing.backups if backup.name not in removed))
