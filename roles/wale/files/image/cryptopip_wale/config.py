"""Where things are, from the container's environment; secrets are in files that it names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cryptopip_wale.errors import WaleError

SECRETS = "/etc/cryptopip/wale"


@dataclass(frozen=True)
class S3:
    """A bucket of an S3 service, and how it is reached."""

    bucket: str
    prefix: str  # below which the clusters lie; "" or ends with /
    endpoint: str
    region: str
    credentials_file: Path
    ca_file: Path
    timeout_s: int  # without a byte from the service


@dataclass(frozen=True)
class Config:
    """The folders, the socket, the store and the deadline of one sidecar."""

    data: Path
    store: Path  # the store itself, or, where that is a bucket, what is on its way there
    socket: Path
    token_file: Path
    deadline_s: int
    s3: S3 | None = None
    gpg_key_id: str = ""  # empty: not encrypted
    gpg_key_file: Path = Path(SECRETS, "gpg.key")
    system_identifier: str = ""  # of the cluster that is asked for; empty: the one in ``data``

    @property
    def scratch(self) -> Path:
        """For files on their way into the store: the same file system where that is a folder."""
        return self.store / "tmp"


def read_s3(environment: Mapping[str, str]) -> S3 | None:
    """The bucket that CRYPTOPIP_WALE_STORE_URL names; None where it names a folder."""
    url = environment.get("CRYPTOPIP_WALE_STORE_URL", "")
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        return None
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
        raise WaleError("usage", f"the store is {url!r}, expected file:///FOLDER or s3://BUCKET/PREFIX")
    region = environment.get("CRYPTOPIP_WALE_S3_REGION", "us-east-1")
    prefix = parts.path.strip("/")
    return S3(
        bucket=parts.netloc,
        prefix=f"{prefix}/" if prefix else "",
        endpoint=environment.get("CRYPTOPIP_WALE_S3_ENDPOINT") or f"https://s3.{region}.amazonaws.com",
        region=region,
        credentials_file=Path(environment.get("CRYPTOPIP_WALE_S3_CREDENTIALS_FILE", f"{SECRETS}/s3.ini")),
        ca_file=Path(environment.get("CRYPTOPIP_WALE_S3_CA_FILE", "/etc/ssl/certs/ca-certificates.crt")),
        timeout_s=int(environment.get("CRYPTOPIP_WALE_S3_TIMEOUT_S", "30")),
    )


def read_config(environment: Mapping[str, str] = os.environ) -> Config:
    """The configuration; what is not set is where the role puts it."""
    return Config(
        data=Path(environment.get("PGDATA", "/var/lib/postgresql/data/pg_data")),
        store=Path(environment.get("CRYPTOPIP_WALE_STORE", "/var/lib/cryptopip-wale")),
        socket=Path(environment.get("CRYPTOPIP_WALE_SOCKET", "/run/cryptopip/postgresql/wale.sock")),
        token_file=Path(environment.get("CRYPTOPIP_WALE_TOKEN_FILE", "/etc/cryptopip/postgresql/wale.token")),
        deadline_s=int(environment.get("CRYPTOPIP_WALE_DEADLINE_S", "86400")),
        s3=read_s3(environment),
        gpg_key_id=environment.get("WALE_GPG_KEY_ID", ""),
        gpg_key_file=Path(environment.get("CRYPTOPIP_WALE_GPG_KEY_FILE", f"{SECRETS}/gpg.key")),
        system_identifier=environment.get("CRYPTOPIP_WALE_SYSTEM_IDENTIFIER", ""),
    )
