"""A bucket of an S3 service, by boto 2.49, which WAL-E stores with too. Nothing here touches the network on import."""

from __future__ import annotations

import configparser
import functools
import hashlib
import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from cryptopip_wale.config import S3
from cryptopip_wale.durable import BLOCK
from cryptopip_wale.errors import WaleError

RETRIES = 1  # of a request; the archiver, and WAL-E around it, try again themselves


def read_credentials(path: Path) -> tuple[str, str]:
    """Access key and secret key, from a file as the tools of AWS keep it."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text())
        section = parser["default"]
        return section["aws_access_key_id"], section["aws_secret_access_key"]
    except (OSError, configparser.Error, KeyError) as error:
        raise WaleError(
            "usage",
            f"{path} gives no credentials ({type(error).__name__}), expected [default] with aws_access_key_id and "
            "aws_secret_access_key: run the wale role again",
        ) from error


def adapt_signing(handler: Any, scheme: str, host: str, port: int | None) -> None:
    """Sign what arrives: boto names the port twice, and signs headers that proxies change and AWS's tools leave out."""
    is_usual = port in (None, {"http": 80, "https": 443}[scheme])
    sent = host if is_usual else f"{host}:{port}"
    chosen = handler.headers_to_sign
    handler.host_header = lambda *_: sent
    handler.headers_to_sign = lambda request: {
        name: value for name, value in chosen(request).items() if name.lower() not in ("user-agent", "expect")
    }


@functools.cache
def connect(s3: S3) -> Any:
    """A connection, kept for the life of the process; boto lends its sockets to one thread at a time."""
    import boto  # noqa: PLC0415  # in wal-e only after gevent has replaced the sockets
    from boto.s3.bucket import Bucket  # noqa: PLC0415
    from boto.s3.connection import OrdinaryCallingFormat, S3Connection  # noqa: PLC0415

    class EscapedBucket(Bucket):  # type: ignore[misc]
        """Asks for what it signs: boto signs a prefix's slashes escaped, and sends them plain."""

        def _get_all_query_args(self, *args: Any, **kwargs: Any) -> str:
            return str(super()._get_all_query_args(*args, **kwargs)).replace("/", "%2F")

    for section, option, value in (
        ("Boto", "http_socket_timeout", str(s3.timeout_s)),
        ("Boto", "num_retries", str(RETRIES)),
        ("Boto", "ca_certificates_file", str(s3.ca_file)),  # its own are of 2015
        ("s3", "use-sigv4", "True"),
    ):
        if not boto.config.has_section(section):
            boto.config.add_section(section)
        boto.config.set(section, option, value)
    access_key, secret_key = read_credentials(s3.credentials_file)
    endpoint = urlsplit(s3.endpoint)
    if endpoint.scheme not in ("http", "https") or not endpoint.hostname or endpoint.path.strip("/"):
        raise WaleError("usage", f"the S3 endpoint is {s3.endpoint!r}, expected as https://HOST:PORT")
    connection = S3Connection(
        access_key,
        secret_key,
        is_secure=endpoint.scheme == "https",
        host=endpoint.hostname,
        port=endpoint.port,
        calling_format=OrdinaryCallingFormat(),
    )
    connection.auth_region_name = s3.region
    connection.set_bucket_class(EscapedBucket)
    adapt_signing(connection._auth_handler, endpoint.scheme, endpoint.hostname, endpoint.port)
    return connection


@contextmanager
def _told(s3: S3, name: str) -> Iterator[None]:
    """What the service or the way to it said, as our errors."""
    from boto.exception import BotoClientError, BotoServerError  # noqa: PLC0415  # see connect

    where = f"s3://{s3.bucket}/{name} at {s3.endpoint}"
    try:
        yield
    except BotoServerError as error:
        if error.status == http.HTTPStatus.NOT_FOUND and error.error_code == "NoSuchKey":
            raise FileNotFoundError(where) from error
        if error.status == http.HTTPStatus.PRECONDITION_FAILED:
            raise FileExistsError(where) from error
        if error.status == http.HTTPStatus.FORBIDDEN:
            raise WaleError("forbidden", f"{where}: refused to these credentials ({error.error_code})") from error
        raise WaleError("store", f"{where}: status {error.status} {error.error_code}: {error.message}") from error
    except FileNotFoundError:
        raise
    except (OSError, http.client.HTTPException, BotoClientError) as error:
        raise WaleError("store", f"{where}: {type(error).__name__}: {error}") from error


def list_clusters(s3: S3) -> list[str]:
    """Names of the folders below the prefix, one a cluster."""
    with _told(s3, s3.prefix):
        listed = connect(s3).get_bucket(s3.bucket, validate=False).list(s3.prefix, "/")
        return [entry.name.removeprefix(s3.prefix).rstrip("/") for entry in listed if entry.name.endswith("/")]


class S3Store:
    """The part of a bucket that is one cluster's; see Store. The service shows and keeps whole objects only."""

    def __init__(self, s3: S3, identifier: str, spool: Path) -> None:
        self.s3 = s3
        self.identifier = identifier
        self.url = f"s3://{s3.bucket}/{s3.prefix}".rstrip("/")
        self.wale_prefix = f"{self.url}/{identifier}"
        self.lock = spool / f"{identifier}.lock"
        self._prefix = f"{s3.prefix}{identifier}/"

    @functools.cached_property
    def _bucket(self) -> Any:
        return connect(self.s3).get_bucket(self.s3.bucket, validate=False)

    def _key(self, name: str) -> Any:
        return self._bucket.new_key(self._prefix + name)

    def _list(self, folder: str, delimiter: str) -> list[Any]:
        with _told(self.s3, self._prefix + folder):
            return list(self._bucket.list(f"{self._prefix}{folder}/", delimiter))

    def names(self, folder: str) -> list[str]:
        """See Store."""
        found = (key.name for key in self._list(folder, "/") if not key.name.endswith("/"))
        return sorted(name.rsplit("/", 1)[1] for name in found)

    def folders(self, folder: str) -> list[str]:
        """See Store."""
        found = (entry.name for entry in self._list(folder, "/") if entry.name.endswith("/"))
        return sorted(name.rstrip("/").rsplit("/", 1)[1] for name in found)

    def tree(self, folder: str) -> list[str]:
        """See Store."""
        return sorted(key.name.removeprefix(self._prefix) for key in self._list(folder, ""))

    def has_archive(self) -> bool:
        """See Store."""
        with _told(self.s3, self._prefix):
            return bool(self._bucket.get_all_keys(prefix=f"{self._prefix}wal_005/", max_keys=1))

    def size(self, name: str) -> int | None:
        """See Store."""
        with _told(self.s3, self._prefix + name):
            key = self._bucket.get_key(self._prefix + name)
        return None if key is None else int(key.size)

    def read(self, name: str) -> bytes:
        """See Store."""
        with _told(self.s3, self._prefix + name):
            content: bytes = self._key(name).get_contents_as_string()
        return content

    def sha256(self, name: str) -> str:
        """See Store."""
        digest = hashlib.sha256()
        with _told(self.s3, self._prefix + name):
            key = self._key(name)
            key.open_read()
            while block := key.read(BLOCK):
                digest.update(block)
            key.close()
        return digest.hexdigest()

    def put(self, name: str, source: BinaryIO, *, is_new: bool = False) -> tuple[int, str]:
        """See Store. boto sends the content's MD5 along, and compares the one that the service answers."""
        source.seek(0)
        digest = hashlib.file_digest(source, "sha256").hexdigest()  # type: ignore[arg-type]  # a file, typed too narrowly
        source.seek(0)
        headers = {"If-None-Match": "*"} if is_new else {}
        with _told(self.s3, self._prefix + name):
            return int(self._key(name).set_contents_from_file(source, headers=headers)), digest

    def settle(self, name: str) -> None:
        """See Store: what the service shows is durable."""

    def remove(self, name: str) -> None:
        """See Store."""
        with _told(self.s3, self._prefix + name):
            self._bucket.delete_key(self._prefix + name)

    def remove_all(self, names: list[str]) -> None:
        """See Store."""
        with _told(self.s3, self._prefix):
            result = self._bucket.delete_keys([self._prefix + name for name in names])
        if result.errors:
            first = result.errors[0]
            code = "forbidden" if first.code == "AccessDenied" else "store"
            raise WaleError(
                code, f"{len(result.errors)} of {len(names)} were not removed, first {first.key}: {first.code}"
            )

    def remove_folder(self, folder: str) -> None:
        """See Store."""
        self.remove_all(self.tree(folder))
