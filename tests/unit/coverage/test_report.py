"""The page of continuity, read as a browser's parser reads it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from msgspec.structs import replace

from collectors.coverage.model import Continuity, EmptyHour, Gap, Interval, Lag, Trouble
from collectors.coverage.report import duration, render, write_report
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


def answer(symbol: str = "BTC/USDT", cause: str | None = "crash", *, is_listed: bool = True) -> Continuity:
    """Four hours from 22:00 with a gap from 23:30 to 00:15, which may be too short to be listed."""
    start, end = T + timedelta(minutes=90), T + timedelta(minutes=135)
    covered = [Interval(T, start), Interval(end, T + timedelta(hours=4))]
    gap = Gap(start, end, 2700.0, "1", "2", {"ing1": cause})
    until = T + timedelta(hours=4)
    gaps = [gap] if is_listed else []
    missing = [Interval(start, end)]
    return Continuity(1, "binance", symbol, "trades", until, 14400.0, 11700.0, 0.8125, 7, covered, gaps, missing)


def test_cells_are_the_shares_of_a_known_gap() -> None:
    rows = {row[0]: row for row in Page(render([answer()])).rows if row}
    assert rows["binance 2026-11-01"][1:] == ["-"] * 22 + ["100", "50"]
    assert rows["binance 2026-11-02"][1:] == ["75", "100"] + ["-"] * 22
    # 90 of 120 minutes, and 105 of 120.
    span = ["2026-11-01 23:30:00.000", "2026-11-02 00:15:00.000", "2,700.000"]
    gap = ["binance BTC/USDT", "trades", "not listening", *span]
    assert ["binance BTC/USDT", "75", "87.5"] in Page(render([answer()])).rows
    assert [*gap, "45 min", "ing1: crash", "cannot be told"] in Page(render([answer()])).rows


def test_what_is_too_short_to_be_listed_is_missing_all_the_same() -> None:
    page = Page(render([answer(is_listed=False)]))
    assert ["binance BTC/USDT", "75", "87.5"] in page.rows
    assert ["none"] in page.rows


def test_of_many_days_those_that_are_whole_are_left_out_by_number() -> None:
    whole = Interval(T, T + timedelta(days=40))
    many = Continuity(1, "kraken", "BTC/USD", "trades", whole.end, whole.seconds, whole.seconds, 1.0, 7, [whole], [])
    page = render([answer(), many])
    rows = {row[0] for row in Page(page).rows if row}
    assert {"binance 2026-11-01", "binance 2026-11-02", "kraken BTC/USD"} <= rows
    assert "kraken 2026-11-05" not in rows
    assert "<p>41 rows that are 100 throughout are left out.</p>" in page


def test_lag_troubles_and_empty_hours_are_told_where_there_are_any() -> None:
    assert "lag" not in render([answer()])
    found = replace(
        answer(),
        lag=Lag(0.0123, 0.05, 0.3, 2.25),
        troubles=[Trouble("silent", T, T + timedelta(hours=1), "30 rows, where 976 are usual")],
        empty_hours=[EmptyHour(T, 1800.0)],
    )
    rows = Page(render([found])).rows
    rate = ["binance BTC/USDT", "trades", "81.25", "7", "0.00", "1", "2,700.000", "12.3", "50.0", "300.0", "2,250.0"]
    assert rate in rows
    assert "30 rows, where 976 are usual" in [row[-1] for row in rows if row]
    assert ["binance BTC/USDT", "trades", "2026-11-01 22:00", "1,800"] in rows


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


def test_the_page_says_of_which_time_it_tells_and_colours_what_is_mended() -> None:
    text = render([answer()])
    assert "2026-11-01 22:00:00 to 2026-11-02 02:00:00" in text
    assert '<td class="">cannot be told</td>' in text
    (gap,) = answer().gaps
    for changed, cell in (
        (replace(gap, ids_between=3, missing_ids=0), '<td class="full">yes, 3 ids</td>'),
        (replace(gap, ids_between=0, missing_ids=0), '<td class="full">nothing was missed</td>'),
        (replace(gap, ids_between=3, missing_ids=2), '<td class="none">no, 2 of 3 ids missing</td>'),
        (replace(gap, backfill="mended", backfill_detail="all told"), '<td class="full">yes, all told</td>'),
        (replace(gap, backfill="out_of_reach", backfill_detail="too old"), '<td class="none">no; too old</td>'),
    ):
        assert cell in render([replace(answer(), gaps=[changed])])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "0.250 s"),
        (119.9994, "119.999 s"),
        (120, "2 min"),
        (303, "5 min 3 s"),
        (3599.6, "1 h"),
        (18_000, "5 h"),
        (86_399, "1 d"),
        (108_000, "1 d 6 h"),
        (90_000_000, "1,041 d 16 h"),
    ],
)
def test_durations_are_said_in_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
