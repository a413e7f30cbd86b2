"""Cuts SQL text into its statements, so that each can be run, and blamed, by its own line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# A token of PostgreSQL's lexical structure (manual, 4.1) each; what may hide a semicolon or a keyword is one token.
_TOKEN = re.compile(
    r"""
    (?P<comment>--[^\n]*)
  | (?P<block>/\*)
  | (?P<dollar>\$(?:[A-Za-z_\x80-\U0010ffff][A-Za-z_0-9\x80-\U0010ffff]*)?\$)
  | (?P<escape>[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z))
  | (?P<quoted>'(?:[^']|'')*(?:'|\Z) | "(?:[^"]|"")*(?:"|\Z))
  | (?P<word>[A-Za-z_\x80-\U0010ffff][A-Za-z_0-9$\x80-\U0010ffff]*)
  | (?P<number>[0-9]+)
  | (?P<space>\s+)
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK_EDGE = re.compile(r"/\*|\*/")


@dataclass(frozen=True)
class Statement:
    """One statement without its semicolon; ``line`` is where it begins in the file, from 1."""

    text: str
    line: int


def split_statements(text: str) -> list[Statement]:
    """The statements of ``text`` in order, without leading comments; a body in BEGIN ATOMIC ... END stays whole."""
    statements: list[Statement] = []
    begin: int | None = None  # where the current statement's first token is; None between statements
    body = 0  # depth of BEGIN ATOMIC and of the CASEs inside it: their semicolons end nothing
    previous = ""
    for kind, start, end in _tokens(text):
        if kind in {"comment", "block", "space"}:
            continue
        if text[start] == ";" and not body:
            if begin is not None:
                statements.append(_statement(text, begin, start))
            begin, previous = None, ""
            continue
        if begin is None:
            begin = start
        word = text[start:end].lower() if kind == "word" else ""
        if (word == "atomic" and previous == "begin") or (body and word == "case"):
            body += 1
        elif body and word == "end":
            body -= 1
        previous = word
    if begin is not None:
        statements.append(_statement(text, begin, len(text)))
    return statements


def _statement(text: str, begin: int, end: int) -> Statement:
    return Statement(text[begin:end].rstrip(), text.count("\n", 0, begin) + 1)


def _tokens(text: str) -> Iterator[tuple[str, int, int]]:
    position = 0
    while match := _TOKEN.match(text, position):
        kind, end = match.lastgroup or "", match.end()
        if kind == "block":
            end = _end_of_block_comment(text, position)
        elif kind == "dollar":
            closing = text.find(match.group(), end)
            end = len(text) if closing < 0 else closing + len(match.group())
        yield kind, position, end
        position = end


def _end_of_block_comment(text: str, position: int) -> int:
    depth = 0  # they nest, unlike C's
    for edge in _BLOCK_EDGE.finditer(text, position):
        depth += 1 if edge.group() == "/*" else -1
        if not depth:
            return edge.end()
    return len(text)
