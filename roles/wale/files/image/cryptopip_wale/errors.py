"""What can go wrong, in the codes that callers of the command see."""

from __future__ import annotations

from collections.abc import Sequence

Problem = dict[str, str]  # object: path below the cluster's folder; problem: what is wrong with it


class WaleError(Exception):
    """A refusal or failure: ``code`` for programs, the message for people, ``problems`` object by object.

    Codes: usage, store, forbidden, foreign, different, busy, not_found, corrupt, last_verified, server.
    """

    def __init__(self, code: str, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.problems = list(problems)
