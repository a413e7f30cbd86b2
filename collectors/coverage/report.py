"""The continuity of the datalake as one HTML page without scripts or anything from elsewhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from html import escape
from itertools import pairwise
from pathlib import Path

from collectors.coverage.model import Continuity, Interval
from collectors.errors import CryptopipError
from collectors.files import replace_file

_STYLE = """:root{color-scheme:light dark}
body{font:14px/1.45 system-ui,"DejaVu Sans",sans-serif;margin:1.5rem;max-width:120rem}
h1{font-size:1.5rem;margin:0 0 .5rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}p{margin:.3rem 0;max-width:60rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th{font-weight:600;text-align:left;white-space:nowrap;padding:.25rem .6rem}
td{padding:.25rem .6rem;border-bottom:1px solid #8884;vertical-align:top;white-space:nowrap}
td:last-child{white-space:normal;min-width:18rem}.heat td:last-child{min-width:1.9rem}td.n,th.n{text-align:right}
.heat th,.heat td{padding:.15rem .25rem;font-size:.75rem}.heat thead th{text-align:center;font-weight:400}
.heat tbody th{position:sticky;left:0;background:Canvas;padding-right:.8rem}
.heat td{border:1px solid Canvas;text-align:center;min-width:1.9rem}
.full{background:#cfe3f7;color:#24506f}.high{background:#fdeab8;color:#000}.part{background:#f0a93b;color:#000}
.none{background:#7a1f1f;color:#fff}.off{color:#888}
.period{font-size:1.15rem;font-weight:600}
.key{display:inline-block;padding:0 .5rem;border-radius:.2rem;margin:0 .15rem}"""
_HIGH = 0.99
_FEW_ROWS = 31


def write_report(path: Path, answers: list[Continuity]) -> None:
    """Put the page at ``path``, whole or not at all; raises CryptopipError."""
    try:
        with replace_file(path) as file:
            file.write(render(answers).encode())
    except OSError as error:
        raise CryptopipError(f"cannot write the report {path}: {error.strerror}; name a file in a folder") from error


def render(answers: list[Continuity]) -> str:
    """The page: totals, two heat maps, the gaps with cause and mending, what else was found, then rates and lag."""
    hours, days = _shares(answers)
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Continuity</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}</style></head><body><h1>Continuity</h1>"
        + _summary(answers)
        + _heat("Instrument by day", days, sorted({day for row in days.values() for day in row}))
        + _heat("Venue and day by hour", _worth_showing(hours), [f"{hour:02}" for hour in range(24)], of=len(hours))
        + _gaps(answers)
        + _troubles(answers)
        + _empty_hours(answers)
        + _rates(answers)
        + "</body></html>\n"
    )


def _summary(answers: list[Continuity]) -> str:
    gaps = [gap for answer in answers for gap in answer.gaps]
    recorded = sum(answer.recorded_seconds for answer in answers)
    missing = sum(each.seconds for answer in answers for each in answer.missing)
    share = (
        f" of {recorded / 3600:,.1f} channel hours meant, {_percent(1 - missing / recorded)} % are covered;"
        if recorded
        else ""
    )
    length = duration(sum(gap.seconds for gap in gaps))
    return (
        f"{_period(answers)}<p>{len(answers):,} channels;{share} {len(gaps):,} gaps of {length} listed,"
        f" {sum(gap.is_mended for gap in gaps):,} of them mended; {sum(a.rows for a in answers):,} rows."
        " Times are UTC.</p>"
        '<p>A cell is the share of the time meant that some ingestor was listening: <span class="key full">100</span>'
        f'<span class="key high">{100 * _HIGH:g} and more</span><span class="key part">less</span>'
        '<span class="key none">nobody</span>; - where recording was not meant.</p>'
    )


def _period(answers: list[Continuity]) -> str:
    """From when to when, in large letters: nothing else on the page says it."""
    spans = [span for answer in answers for span in (*answer.covered, *answer.missing)]
    if not spans:
        return ""
    start, end = min(span.start for span in spans), max(answer.until for answer in answers)
    return f'<p class="period">{start:%Y-%m-%d %H:%M:%S} to {end:%Y-%m-%d %H:%M:%S}</p>'


def duration(seconds: float) -> str:
    """Two units at most: ``1 d 6 h``, ``5 min 3 s``; below two minutes seconds with their thousandths."""
    if seconds < 120:
        return f"{seconds:.3f} s"
    for (large, size), (small, part) in pairwise((("d", 86400), ("h", 3600), ("min", 60), ("s", 1))):
        whole, rest = divmod(round(seconds / part), size // part)
        if whole:
            return f"{whole:,} {large} {rest} {small}" if rest else f"{whole:,} {large}"
    raise AssertionError("two minutes are at least one")


_Cells = defaultdict[str, defaultdict[str, list[float]]]
"""By row and column: seconds covered, and seconds meant and not covered."""


def _cells() -> _Cells:
    return defaultdict(lambda: defaultdict(lambda: [0.0, 0.0]))


def _shares(answers: list[Continuity]) -> tuple[_Cells, _Cells]:
    """Of venue and day by hour, and of instrument by day; every stretch counts, however short a gap is listed."""
    hours, days = _cells(), _cells()
    for answer in answers:
        spans = [(each, 0) for each in answer.covered] + [(each, 1) for each in answer.missing]
        for span, kind in spans:
            for start, seconds in by_hour(span):
                day = f"{start:%Y-%m-%d}"
                hours[f"{answer.exchange} {day}"][f"{start:%H}"][kind] += seconds
                days[f"{answer.exchange} {answer.symbol}"][day][kind] += seconds
    return hours, days


def by_hour(span: Interval) -> Iterator[tuple[datetime, float]]:
    """The span cut at full hours: where each piece starts and its seconds."""
    start = span.start
    while start < span.end:
        end = min(span.end, start.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1))
        yield start, (end - start).total_seconds()
        start = end


def _worth_showing(cells: _Cells) -> _Cells:
    """All rows where they are few; else those that are not whole, so that these are not lost among them."""
    if len(cells) <= _FEW_ROWS:
        return cells
    shown = _cells()
    shown.update({name: row for name, row in cells.items() if any(missing for _, missing in row.values())})
    return shown


def _heat(title: str, cells: _Cells, columns: list[str], *, of: int | None = None) -> str:
    heads = "".join(f'<th scope="col">{_broken(column)}</th>' for column in columns)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>' + "".join(_cell(row.get(c)) for c in columns) + "</tr>"
        for name, row in sorted(cells.items())
    )
    left_out = (of or len(cells)) - len(cells)
    note = f"<p>{left_out:,} rows that are 100 throughout are left out.</p>" if left_out else ""
    if not rows:
        return f"<h2>{title}</h2>{note or '<p>none</p>'}"
    return (
        f'<h2>{title}</h2>{note}<div class="wide"><table class="heat"><thead><tr><th></th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _broken(column: str) -> str:
    """A date in two lines, so that its column is no wider than its numbers."""
    return f"{column[:4]}<br>{column[5:]}" if len(column) == 10 else escape(column)


def _cell(seconds: list[float] | None) -> str:
    if seconds is None:
        return '<td class="off">-</td>'
    covered, missing = seconds
    share = covered / (covered + missing)
    name = "full" if not missing else "none" if not covered else "high" if share >= _HIGH else "part"
    return f'<td class="{name}">{_percent(share)}</td>'


def _percent(share: float) -> str:
    """Cut, not rounded: 100 is said only of what is whole."""
    return f"{int(10000 * share + 1e-9) / 100:g}"


def _rates(answers: list[Continuity]) -> str:
    columns = ["instrument", "channel", "covered %", "rows", "rows/s covered", "gaps", "longest s"]
    lags = [f"lag {name} ms" for name in ("p50", "p90", "p99", "max")] if any(a.lag for a in answers) else []
    rows = []
    for a in answers:
        lag = [a.lag.p50, a.lag.p90, a.lag.p99, a.lag.max] if a.lag else [None] * len(lags)
        rows.append(
            [
                f"{a.exchange} {a.symbol}",
                a.channel,
                "-" if a.ratio is None else _percent(a.ratio),
                f"{a.rows:,}",
                f"{a.rows / a.covered_seconds:,.2f}" if a.covered_seconds else "-",
                f"{len(a.gaps):,}",
                f"{max((gap.seconds for gap in a.gaps), default=0):,.3f}",
                *("-" if value is None else f"{1000 * value:,.1f}" for value in lag),
            ]
        )
    return _table("Rates", columns + lags, rows, numbers=range(2, len(columns) + len(lags)))


def _gaps(answers: list[Continuity]) -> str:
    columns = ["instrument", "channel", "kind", "from", "to", "seconds", "", "ended by", "mended"]
    rows = [
        [
            f"{a.exchange} {a.symbol}",
            a.channel,
            gap.kind.replace("_", " "),
            _moment(gap.start),
            _moment(gap.end),
            f"{gap.seconds:,.3f}",
            duration(gap.seconds) if gap.seconds >= 120 else "",
            gap.causes,
            gap.mended,
        ]
        for a in answers
        for gap in a.gaps
    ]
    return _table("Gaps", columns, rows, numbers=[5], coloured=8)


def _troubles(answers: list[Continuity]) -> str:
    columns = ["instrument", "channel", "kind", "from", "to", "what"]
    rows = [
        [
            f"{a.exchange} {a.symbol}",
            a.channel,
            each.kind.replace("_", " "),
            _moment(each.start),
            _moment(each.end),
            each.detail,
        ]
        for a in answers
        for each in a.troubles
    ]
    return _table("Found while somebody was listening", columns, rows) if rows else ""


def _empty_hours(answers: list[Continuity]) -> str:
    rows = [
        [f"{a.exchange} {a.symbol}", a.channel, f"{each.hour:%Y-%m-%d %H:%M}", f"{each.covered_seconds:,.0f}"]
        for a in answers
        for each in a.empty_hours
    ]
    return (
        _table("Hours without a row", ["instrument", "channel", "hour", "covered s"], rows, numbers=[3]) if rows else ""
    )


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S.%f}"[:-3]


def _colour(mended: str) -> str:
    """The class of a cell that says whether a gap is mended."""
    if mended.startswith(("yes", "nothing")):
        return "full"
    return "none" if mended.startswith("no") else ""


def _table(
    title: str,
    columns: list[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Iterable[int] = (),
    coloured: int | None = None,
) -> str:
    right = dict.fromkeys(numbers, ' class="n"')
    heads = "".join(f'<th scope="col"{right.get(n, "")}>{escape(column)}</th>' for n, column in enumerate(columns))
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="{_colour(cell)}">{escape(cell)}</td>'
            if n == coloured
            else f"<td{right.get(n, '')}>{escape(cell)}</td>"
            for n, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    if not body:
        body = f'<tr><td colspan="{len(columns)}">none</td></tr>'
    return (
        f'<h2>{title}</h2><div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
    )
