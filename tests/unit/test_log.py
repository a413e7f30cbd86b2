from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
import structlog

from collectors import log


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_a_line_is_key_and_value_when_nobody_sits_at_a_terminal() -> None:
    out = io.StringIO()
    log.setup(stream=out, environ={})
    structlog.get_logger().info("segment opened", stream="binance", seq=3)
    line = out.getvalue()
    assert line.count("\n") == 1
    assert line.startswith("timestamp=20")
    assert 'level=info event="segment opened"' in line
    assert "stream=binance seq=3" in line


def test_the_system_journal_gets_priorities_and_no_time_twice() -> None:
    out = io.StringIO()
    log.setup(stream=out, environ={"JOURNAL_STREAM": "1:2"})
    structlog.get_logger().error("disk full")
    assert out.getvalue() == '<3>level=error event="disk full"\n'


def test_an_exception_stays_on_one_line() -> None:
    out = io.StringIO()
    log.setup(stream=out, environ={})
    try:
        int("no\nway")
    except ValueError:
        structlog.get_logger().exception("failed")
    assert out.getvalue().count("\n") == 1
    assert "ValueError" in out.getvalue()


@pytest.mark.parametrize(
    "text",
    ["host=a password=hunter2 user=b", "password='hunter2 x'", "postgresql://u:hunter2@host/db", "token = hunter2"],
)
def test_no_password_is_logged(text: str) -> None:
    out = io.StringIO()
    log.setup(stream=out, environ={})
    structlog.get_logger().info("connecting", dsn=text, password="hunter2")
    assert "hunter2" not in out.getvalue()
    assert out.getvalue().count("***") == 2


def test_debug_lines_come_only_when_asked_for() -> None:
    out = io.StringIO()
    log.setup(stream=out, environ={})
    structlog.get_logger().debug("detail")
    assert not out.getvalue()
    log.setup(stream=out, environ={}, debug=True)
    structlog.get_logger().debug("detail")
    assert "detail" in out.getvalue()
