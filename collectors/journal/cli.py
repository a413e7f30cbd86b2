"""``cryptopip journal``: look into the journal, export it, verify it."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from collectors.journal.format import Damage, JournalError, is_mark, lines, segment_of, segments
from collectors.journal.reader import SegmentReader, is_writer_alive
from collectors.journal.verify import verify as verify_segment

app = typer.Typer(help="Look into the recorder's journal, export it, verify it.", no_args_is_help=True)
Paths = Annotated[list[Path], typer.Argument(help="Segments, or folders of them.", exists=True)]


def _segments(paths: list[Path]) -> list[Path]:
    """The segments meant, folders and theirs below resolved. Exits with 2 where there is none."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = [path, *sorted(folder for folder in path.iterdir() if folder.is_dir())]
            found += [segment for folder in below for segment in segments(folder)]
            continue
        try:
            segment_of(path)
        except JournalError as error:
            raise typer.BadParameter(str(error)) from error
        found.append(path)
    if not found:
        raise typer.BadParameter(f"no segments in {', '.join(map(str, paths))}")
    return found


def _tell(path: Path, damage: Damage) -> None:
    print(f"{path}: bytes {damage.from_byte}-{damage.to_byte}: {damage.detail}", file=sys.stderr)  # noqa: T201


def _lines(paths: list[Path], damages: list[Damage]) -> Iterator[bytes]:
    """All committed lines; damage is told on stderr and collected."""
    for path in _segments(paths):
        alive = is_writer_alive(path)
        with SegmentReader(path) as reader:
            for item in reader.read():
                if isinstance(item, Damage):
                    damages.append(item)
                    _tell(path, item)
                else:
                    yield from (line for _, line in lines(item.data, item.start))
            torn = None if alive else reader.torn_tail()
        if torn is not None:
            damages.append(torn)
            _tell(path, torn)


@app.command()
def cat(
    paths: Paths,
    marks: Annotated[bool, typer.Option("--marks", help="Print the marks too, not only frames.")] = False,
) -> None:
    """Print the committed frames, one `<recv_ns> <payload>` a line.

    Exits with 1 where something could not be read; what and where is told on stderr.

    Example: cryptopip journal cat --marks /var/lib/cryptopip/journal/binance
    """
    damages: list[Damage] = []
    try:
        for line in _lines(paths, damages):
            if marks or not is_mark(line):
                sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
        raise typer.Exit(0) from None
    raise typer.Exit(1 if damages else 0)


@app.command()
def export(
    paths: Paths,
    output: Annotated[Path, typer.Option("--output", "-o", help="The gzip file to make; must not exist.")],
) -> None:
    """Write the frames in hftbacktest's layout: gzip of `<recv_ns> <payload>` lines.

    Payloads that are no line of text stay escaped as `base64:...`. Exits with 1 where something could not be read.

    Example: cryptopip journal export /var/lib/cryptopip/journal/binance -o binance.gz
    """
    damages: list[Damage] = []
    frames = 0
    try:
        file = output.open("xb")
    except OSError as error:
        raise typer.BadParameter(f"{output}: {error.strerror}; name a file that can be made") from error
    with file, gzip.GzipFile(fileobj=file, mode="wb", compresslevel=6) as packed:
        for line in _lines(paths, damages):
            if not is_mark(line):
                packed.write(line + b"\n")
                frames += 1
    print(f"{frames} frames written to {output}", file=sys.stderr)  # noqa: T201
    raise typer.Exit(1 if damages else 0)


@app.command()
def verify(
    paths: Paths,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a segment.")] = False,
) -> None:
    """Check that every committed group is as it was written.

    Exits with 0 where all is whole, with 1 where damage or a torn tail was found, and says where.

    Example: cryptopip journal verify --json /var/lib/cryptopip/journal
    """
    is_whole = True
    for path in _segments(paths):
        verdict = verify_segment(path)
        is_whole = is_whole and verdict.is_whole
        if as_json:
            print(json.dumps({**msgspec.to_builtins(verdict), "is_whole": verdict.is_whole}))  # noqa: T201
            continue
        ended = verdict.state if verdict.reason is None else f"closed ({verdict.reason})"
        counts = f"{verdict.frames} frames, {verdict.marks} marks in {verdict.groups} groups"
        print(f"{path}: {'whole' if verdict.is_whole else 'DAMAGED'}, {ended}, {counts}")  # noqa: T201
        for damage in verdict.damages:
            _tell(path, damage)
    raise typer.Exit(0 if is_whole else 1)
