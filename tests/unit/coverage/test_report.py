"""The page of continuity, read as a browser's parser reads it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from collectors.coverage.model import Continuity, Gap, Interval
from collectors.coverage.report import render, write_report
from collectors.errors import CryptopipError

T = datetime(2026, 11, 1, 22, tzinfo=UTC)


class Page(HTMLParser):
    """Rows of cells, and every tag that was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self.rows.append([])

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def answer(symbol: str = "BTC/USDT", cause: str | None = "crash") -> Continuity:
    """Four hours from 22:00 with a gap from 23:30 to 00:15."""
    start, end = T + timedelta(minutes=90), T + timedelta(minutes=135)
    covered = [Interval(T, start), Interval(end, T + timedelta(hours=4))]
    gap = Gap(start, end, 2700.0, "1", "2", {"ing1": cause})
    until = T + timedelta(hours=4)
    return Continuity(1, "binance", symbol, "trades", until, 14400.0, 11700.0, 0.8125, 7, covered, [gap])


def test_cells_are_the_shares_of_a_known_gap() -> None:
    rows = {row[0]: row for row in Page(render([answer()])).rows if row}
    assert rows["binance 2026-11-01"][1:] == ["-"] * 22 + ["100", "50"]
    assert rows["binance 2026-11-02"][1:] == ["75", "100"] + ["-"] * 22
    # 90 of 120 minutes, and 105 of 120.
    gap = ["binance BTC/USDT", "trades", "2026-11-01T23:30:00+00:00", "2026-11-02T00:15:00+00:00", "2700.000"]
    assert ["binance BTC/USDT", "75", "87.5"] in Page(render([answer()])).rows
    assert [*gap, "ing1: crash"] in Page(render([answer()])).rows


def test_hostile_names_are_text() -> None:
    name = "<script>alert(1)</script>&\"'"
    page = Page(render([answer(name, "<img src=x>")]))
    assert not page.tags & {"script", "img", "link"}
    assert f"binance {name}" in [row[0] for row in page.rows if row]


def test_the_file_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    write_report(target, [answer()])
    assert target.read_text() == render([answer()])
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(CryptopipError, match="cannot write the report"):
        write_report(tmp_path / "no" / "report.html", [])
