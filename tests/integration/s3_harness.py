"""A real S3 service on this machine's loopback: moto's server, over HTTP, with signatures and policies checked."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from typing import Any
from urllib.request import Request, urlopen

import boto3
from botocore.config import Config

from tests.integration.harness.process import until

# All that the sidecar does, but for removal.
_NO_DELETE = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "s3:ListBucket"], "Resource": "*"},
    ],
}
_ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["s3:*"], "Resource": "*"}]}


class S3Service:
    """The service, one bucket in it, and two users: ``owner`` may do everything, ``keeper`` cannot delete."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.bucket = "backups"
        self.endpoint = f"http://127.0.0.1:{port}"
        # Authorization is off until everything that is needed has been made.
        environment = os.environ | {"INITIAL_NO_AUTH_ACTION_COUNT": "1000000"}
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._answers, "the S3 service", 60, pause=0.2)
        self._client("s3", "none", "none").create_bucket(Bucket=self.bucket)
        self.keys = {"owner": self._user("owner", _ALL), "keeper": self._user("keeper", _NO_DELETE)}
        self._http("/moto-api/reset-auth", b"0")
        self.user = "owner"
        self.client = self._client("s3", *self.keys["owner"])

    def _client(self, kind: str, access_key: str, secret_key: str) -> Any:
        return boto3.client(
            kind,
            endpoint_url=self.endpoint,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 0}),
        )

    def _user(self, name: str, policy: dict[str, Any]) -> tuple[str, str]:
        iam = self._client("iam", "none", "none")
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="s3", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return key["AccessKeyId"], key["SecretAccessKey"]

    def _http(self, path: str, body: bytes | None = None) -> None:
        with urlopen(Request(self.endpoint + path, body, {"Content-Type": "text/plain"}), timeout=10):
            pass

    def _answers(self) -> bool:
        try:
            self._http("/moto-api/")
        except OSError:
            return False
        return True

    def credentials_text(self) -> str:
        """A credentials file of the present user."""
        access_key, secret_key = self.keys[self.user]
        return f"[default]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n"

    def names(self, prefix: str = "") -> list[str]:
        """Names of all objects below a prefix."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def read(self, name: str) -> bytes:
        """The content of an object."""
        content: bytes = self.client.get_object(Bucket=self.bucket, Key=name)["Body"].read()
        return content

    def write(self, name: str, content: bytes) -> None:
        """Put, or put over, an object."""
        self.client.put_object(Bucket=self.bucket, Key=name, Body=content)

    def remove(self, name: str) -> None:
        """Delete an object."""
        self.client.delete_object(Bucket=self.bucket, Key=name)

    def hang(self) -> None:
        """From now on connections are taken, and nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End ``hang``."""
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it; what it held is gone."""
        self.process.kill()
        self.process.wait(10)
