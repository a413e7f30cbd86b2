"""Programs of a container: their answer, and what they tell while they work."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .model import BackupError


@dataclass(frozen=True)
class Finished:
    """What a program left."""

    code: int
    stdout: str
    stderr: str

    def said(self) -> str:
        """Its last words, for an error message."""
        lines = (self.stderr.strip() or self.stdout.strip()).splitlines()
        return " / ".join(lines[-3:]) or f"exit code {self.code} and not a word"


def run_in(
    container: str,
    argv: Sequence[str],
    *,
    user: str | None = None,
    environment: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Finished:
    """``docker exec`` without a shell; ``on_line`` sees each line of standard error as it comes.

    Open locks go along: a client that outlives this process still holds them, as what it started still works.
    """
    options = [] if user is None else ["--user", user]
    options += [word for key, value in (environment or {}).items() for word in ("--env", f"{key}={value}")]
    try:
        process = subprocess.Popen(
            ["docker", "exec", *options, container, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            close_fds=False,
        )
    except FileNotFoundError as error:
        raise BackupError(
            "engine",
            "the command docker is not there: expected the engine that runs the database; run the role docker.",
        ) from error
    heard: list[str] = []

    def hear() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            heard.append(line)
            if on_line is not None:
                on_line(line.rstrip("\n"))

    listener = threading.Thread(target=hear, daemon=True)
    listener.start()
    assert process.stdout is not None
    with process:
        stdout = process.stdout.read()
        listener.join()
        code = process.wait()
    done = Finished(code, stdout, "".join(heard))
    if any(sign in done.stderr for sign in ("No such container", "is not running", "Cannot connect to the Docker")):
        raise BackupError("engine", f"container {container}: {done.said()}. Start it, or run the role that makes it.")
    return done
