"""The one base of the errors that are answers to the operator rather than faults of the program."""

from __future__ import annotations


class CryptopipError(Exception):
    """Something the operator can act on; its text says what was found, what was expected and what to do.

    ``cryptopip`` shows the text alone and ends with ``exit_code``; any other exception shows where it came from.
    """

    exit_code = 3


class UsageError(CryptopipError):
    """The command or its configuration asks for something that does not exist."""

    exit_code = 2
