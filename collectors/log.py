"""Log lines on stderr: coloured on a terminal, else one ``key=value`` line each, and never a secret."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_SECRET_KEYS = frozenset({"password", "passphrase", "secret", "apikey", "api_key", "token"})
_SECRET_TEXT = re.compile(
    r"(?i)\b(password|secret|apikey|api_key|token)(\s*=\s*)('(?:[^'\\]|\\.)*'|\S+)|(://[^:/@\s]+:)[^@\s]+(?=@)"
)
# sd-daemon(3): a leading <n> gives the line its priority in the system journal.
_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def setup(*, debug: bool = False, stream: TextIO | None = None, environ: Mapping[str, str] = os.environ) -> None:
    """Send the lines of structlog and of the standard ``logging`` to ``stream`` (default stderr)."""
    out = stream if stream is not None else sys.stderr
    level = logging.DEBUG if debug else logging.INFO
    structlog.configure(
        processors=_processors(terminal=out.isatty(), in_journal="JOURNAL_STREAM" in environ),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING,
        stream=out,
        force=True,
        format='level=%(levelname)s logger=%(name)s event="%(message)s"',
    )


def _processors(*, terminal: bool, in_journal: bool) -> list[Processor]:
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        hide_secrets,
    ]
    if terminal:
        return [*common, structlog.processors.TimeStamper(fmt="%H:%M:%S"), structlog.dev.ConsoleRenderer()]
    if in_journal:  # it has the time and the priority as fields of its own
        return [*common, _prefixed]
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    return [*common, stamp, structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])]


_logfmt = structlog.processors.LogfmtRenderer(key_order=["level", "event"])


def _prefixed(logger: WrappedLogger, name: str, event: EventDict) -> str:
    return f"<{_PRIORITY.get(name, 6)}>{_logfmt(logger, name, event)}"


def hide_secrets(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Processor of structlog: values under a telling key, and passwords inside conninfos and URLs, become ``***``."""
    for key, value in event.items():
        if key.lower() in _SECRET_KEYS:
            event[key] = "***"
        elif isinstance(value, str):
            event[key] = hide_in_text(value)
    return event


def hide_in_text(text: str) -> str:
    """``text`` with ``***`` in the place of passwords in conninfos and URLs."""
    return _SECRET_TEXT.sub(lambda m: f"{m[4]}***" if m[4] else f"{m[1]}{m[2]}***", text)
