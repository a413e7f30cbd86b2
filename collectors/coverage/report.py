"""The continuity of the datalake as one HTML page without scripts or anything from elsewhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from html import escape
from pathlib import Path

from collectors.coverage.model import Continuity, Interval
from collectors.errors import CryptopipError
from collectors.files import replace_file

_STYLE = """:root{color-scheme:light dark}body{font:14px sans-serif;margin:1.5em}table{border-collapse:collapse}
td,th{padding:.2em .5em;border:1px solid #888;text-align:left}
.full{background:#cfe3f7;color:#000}.part{background:#f6c667;color:#000}.none{background:#7a1f1f;color:#fff}"""


def write_report(path: Path, answers: list[Continuity]) -> None:
    """Put the page at ``path``, whole or not at all; raises CryptopipError."""
    try:
        with replace_file(path) as file:
            file.write(render(answers).encode())
    except OSError as error:
        raise CryptopipError(f"cannot write the report {path}: {error.strerror}; name a file in a folder") from error


def render(answers: list[Continuity]) -> str:
    """The page: two heat maps, and the gaps with their causes."""
    hours, days = _cells(), _cells()
    for answer in answers:
        spans = [(each, 0) for each in answer.covered] + [(Interval(g.start, g.end), 1) for g in answer.gaps]
        for span, kind in spans:
            for start, seconds in by_hour(span):
                day = f"{start:%Y-%m-%d}"
                hours[f"{answer.exchange} {day}"][f"{start:%H}"][kind] += seconds
                days[f"{answer.exchange} {answer.symbol}"][day][kind] += seconds
    columns = sorted({day for row in days.values() for day in row})
    gaps = [
        [
            f"{a.exchange} {a.symbol}",
            a.channel,
            gap.start.isoformat(),
            gap.end.isoformat(),
            f"{gap.seconds:.3f}",
            gap.causes,
        ]
        for a in answers
        for gap in a.gaps
    ]
    seconds = sum(gap.seconds for a in answers for gap in a.gaps)
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Continuity</title>'
        f"<style>{_STYLE}</style></head><body><h1>Continuity</h1>"
        f"<p>{len(gaps)} gaps of {seconds:.3f} s, {sum(a.rows for a in answers)} rows. Times are UTC; a cell is the"
        " share covered of what is covered or in a listed gap.</p>"
        + _heat("Venue and day by hour", hours, [f"{hour:02}" for hour in range(24)])
        + _heat("Instrument by day", days, columns)
        + _table("Gaps", ["instrument", "channel", "from", "to", "seconds", "ended by"], gaps)
        + "</body></html>\n"
    )


def by_hour(span: Interval) -> Iterator[tuple[datetime, float]]:
    """The span cut at full hours: where each piece starts and its seconds."""
    start = span.start
    while start < span.end:
        end = min(span.end, start.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1))
        yield start, (end - start).total_seconds()
        start = end


def _cells() -> defaultdict[str, defaultdict[str, list[float]]]:
    return defaultdict(lambda: defaultdict(lambda: [0.0, 0.0]))


def _heat(title: str, cells: defaultdict[str, defaultdict[str, list[float]]], columns: list[str]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>' + "".join(_cell(row.get(c)) for c in columns) + "</tr>"
        for name, row in sorted(cells.items())
    )
    return f"<h2>{title}</h2><table><tr><th></th>{_heads(columns)}</tr>{rows}</table>"


def _cell(seconds: list[float] | None) -> str:
    if seconds is None:
        return "<td>-</td>"
    covered, missing = seconds
    name = "full" if not missing else "part" if covered else "none"
    # Cut, not rounded: 100 is said only of what is whole.
    return f'<td class="{name}">{int(10000 * covered / (covered + missing)) / 100:g}</td>'


def _heads(columns: list[str]) -> str:
    return "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)


def _table(title: str, columns: list[str], rows: list[list[str]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<h2>{title}</h2><table><tr>{_heads(columns)}</tr>{body}</table>"
