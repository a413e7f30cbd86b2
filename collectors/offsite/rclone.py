"""rclone, run and understood: what it is asked comes from lists, what it says from its JSON log."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from collectors.offsite.config import Offsite
from collectors.offsite.errors import OffsiteError

_NO_SUCH_FOLDER = 3
_SHOWN = 10
_QUIET = ("Can't retry any of the errors", "Attempt ")


class Line(Struct, frozen=True):
    """A line of rclone's log; ``stats`` comes once a minute."""

    level: str
    msg: str
    object: str = ""
    stats: dict[str, Any] | None = None


class Said(Struct, frozen=True):
    """How a run ended: its exit code, what it answered, and the errors it told."""

    code: int
    answer: str
    errors: list[str]


class Rclone:
    """A private copy of the configuration, in which rclone may keep the tokens it renews, and what all runs share."""

    def __init__(self, config: Path, *, bandwidth: str = "", transfers: int = 4, lock: int | None = None) -> None:
        self._config = config
        self._options = ["--transfers", str(transfers), *(["--bwlimit", bandwidth] if bandwidth else [])]
        # Whoever is killed leaves rclone at work: it holds the lock until it ends too.
        self._lock = [] if lock is None else [lock]

    def run(self, *arguments: str) -> Said:
        """Run it to its end, whatever that is; errors are in the answer. Raises OffsiteError where it cannot start."""
        argv = ["rclone", *arguments, "--config", str(self._config), "--ask-password=false", "--use-json-log"]
        argv += ["--stats", "1m", "--stats-log-level", "NOTICE", *self._options]
        # Where it copies is said by its configuration alone; and the S3 of rclone 1.60 stumbles over AWS_CA_BUNDLE.
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("RCLONE_", "AWS_"))}
        with tempfile.TemporaryFile("w+") as answer:
            try:
                process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=answer, stderr=subprocess.PIPE, text=True,
                    env=environment, pass_fds=self._lock,
                )  # fmt: skip
            except FileNotFoundError as error:
                raise OffsiteError(
                    "the command rclone is not installed here: the role offsite brings it (apt install rclone)"
                ) from error
            assert process.stderr is not None
            with process:
                errors = list(_errors(_lines(process.stderr)))
            answer.seek(0)
            return Said(process.returncode, answer.read(), errors)

    def do(self, *arguments: str) -> str:
        """Run it; returns its answer. Raises OffsiteError where it did not succeed."""
        said = self.run(*arguments)
        if said.code != 0:
            raise failure(arguments[0], said)
        return said.answer

    def sizes(self, remote: str) -> dict[str, int]:
        """Every object below, with its size as it was before encryption; none where the folder is not there."""
        said = self.run("lsjson", remote, "--recursive", "--files-only", "--no-modtime", "--no-mimetype", "--fast-list")
        if said.code == _NO_SUCH_FOLDER:
            return {}
        if said.code != 0:
            raise failure("lsjson", said)
        return {entry["Path"]: entry["Size"] for entry in msgspec.json.decode(said.answer)}

    def kinds(self) -> dict[str, dict[str, str]]:
        """The configured remotes and their options."""
        found: dict[str, dict[str, str]] = msgspec.json.decode(self.do("config", "dump"))
        return found


@contextmanager
def rclone_of(offsite: Offsite, lock: int | None = None) -> Iterator[Rclone]:
    """rclone with this host's remotes, for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="cryptopip-offsite-") as folder:
        config = Path(folder) / "rclone.conf"
        config.touch(mode=0o600)
        shutil.copyfile(offsite.rclone_config, config)
        yield Rclone(config, bandwidth=offsite.bandwidth, transfers=offsite.transfers, lock=lock)


@contextmanager
def list_of(names: Iterable[str]) -> Iterator[str]:
    """A file with a name a line, as --files-from-raw reads it."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"{name}\n" for name in names)
        file.flush()
        yield file.name


def failure(what: str, said: Said) -> OffsiteError:
    """What to tell of a run that did not succeed."""
    shown = said.errors[:_SHOWN] + ([f"and {len(said.errors) - _SHOWN} more"] if len(said.errors) > _SHOWN else [])
    return OffsiteError(
        "\n".join([f"rclone {what} failed ({said.code}); the next run goes on:", *(shown or ["it said nothing"])])
    )


def _lines(text: Iterable[str]) -> Iterator[Line]:
    decoder = msgspec.json.Decoder(Line)
    for line in text:
        try:
            yield decoder.decode(line)
        except msgspec.DecodeError:  # what it says before it logs, and its last words, are plain
            if line.strip():
                yield Line("plain", line.strip())


def _errors(lines: Iterable[Line]) -> Iterator[str]:
    log = structlog.get_logger()
    for line in lines:
        if line.stats is not None:
            done, total, eta = (line.stats.get(key) for key in ("bytes", "totalBytes", "eta"))
            if total:
                log.info("rclone", bytes=done, of=total, seconds_left=eta)
        elif line.level in {"error", "critical", "plain"} and not line.msg.startswith(_QUIET):
            yield f"{line.object}: {line.msg}" if line.object else line.msg
