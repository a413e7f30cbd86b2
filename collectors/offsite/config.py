"""``/etc/cryptopip/offsite.yml``: which folders are copied where; strict, like the configuration of the host.

An example::

    rclone_config: /etc/cryptopip/rclone.conf
    state: /var/lib/cryptopip/offsite
    bandwidth: 8M
    copies:
      archive: {source: /var/lib/cryptopip/archive, remote: "secret:archive", versions: true, exclude: ["tardis/*"]}
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from collectors.config import ConfigError, Name, explain, read_yaml, to_path, unknown_keys
from collectors.errors import UsageError

DEFAULT_OFFSITE = Path("/etc/cryptopip/offsite.yml")


class Copy(Struct, frozen=True, kw_only=True):
    """A folder and where it goes; patterns of ``exclude`` are those of a shell, over the path below ``source``."""

    source: Path
    remote: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_ -]*:.*[^/]$")]
    versions: bool = False
    """Its files are written again: keep every content of each under a name of its own."""
    exclude: list[str] = []
    verify: Literal["download", "hashes"] = "download"
    """How objects are compared: read back whole, or by the hashes that the remote keeps."""


class Offsite(Struct, frozen=True, kw_only=True):
    """All copies of a host."""

    rclone_config: Path
    state: Path
    copies: dict[Name, Copy]
    bandwidth: str = ""
    """As rclone's --bwlimit has it; empty: no limit."""
    transfers: Annotated[int, Meta(ge=1, le=64)] = 4

    def copy(self, name: str) -> Copy:
        """That of a name; raises UsageError."""
        if name not in self.copies:
            known = ", ".join(self.copies) or "none"
            raise UsageError(f"{name!r} is no off-site copy of this host: it has {known}")
        return self.copies[name]


def load_offsite(path: Path) -> Offsite:
    """Read and check the file; raises ConfigError naming every unknown key and wrong value."""
    data = read_yaml(path)
    if problems := unknown_keys(Offsite, data):
        raise ConfigError(path, problems)
    try:
        return msgspec.convert(data, Offsite, dec_hook=to_path)
    except msgspec.ValidationError as error:
        raise ConfigError(path, [explain(error)]) from error
