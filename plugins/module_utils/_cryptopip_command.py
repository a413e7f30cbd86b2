"""Run the installed ``cryptopip`` command and take its answer as JSON: modules never copy the data plane's code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

RunCommand = Callable[[Sequence[str]], tuple[int, str, str]]
"""An argv in, return code, stdout and stderr out: AnsibleModule.run_command, without a shell."""


class CommandError(Exception):
    """The command did not answer; ``rc`` and ``stderr`` are what it left."""

    def __init__(self, message: str, *, rc: int, stderr: str) -> None:
        self.rc = rc
        self.stderr = stderr
        super().__init__(message)


def argv_of(command: str, subcommand: str, options: Mapping[str, object]) -> list[str]:
    """The argument list for the options that are not None; joined by ``=``, so that no value passes for an option."""
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None]
    return [command, subcommand, *given]


def ask(run: RunCommand, argv: Sequence[str]) -> dict[str, Any]:
    """The JSON answer of a command that ends with 0 (whole) or 1 (found something); raises CommandError."""
    rc, stdout, stderr = run([*argv, "--json"])
    if rc not in {0, 1}:
        said = stderr.strip().splitlines()
        raise CommandError(
            f"{argv[0]} {argv[1]} failed: {said[-1] if said else f'exit code {rc}'}", rc=rc, stderr=stderr
        )
    try:
        answer = json.loads(stdout)
    except json.JSONDecodeError as error:
        message = (
            f"{argv[0]} {argv[1]} ended with {rc} and printed no JSON ({error}): expected the cryptopip of this release"
        )
        raise CommandError(message, rc=rc, stderr=stderr) from error
    if not isinstance(answer, dict):
        raise CommandError(f"{argv[0]} {argv[1]} printed JSON, but no object", rc=rc, stderr=stderr)
    return answer
