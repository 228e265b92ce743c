"""CSV and tab-separated files: each data row becomes a JSON line of strings for the spool.

The first row names the columns. Every value is a string ("007" stays); an empty cell without
quotes is null, with quotes the empty string. Blank lines are no data rows. A quoted cell may
span lines, and one that is never closed spoils only the rows that it swallows.
"""

import csv
import re
from collections.abc import Iterator, Sequence

import orjson

from batch_assets.errors import UnreadableFile
from batch_assets.sources.base import Fault
from batch_assets.sources.json_values import too_large
from batch_assets.sources.lines import LineBlock, line_blocks, lines_of
from batch_assets.sources.spool import SpoolRow
from batch_assets.sources.stored_names import distinct_names

_MOST_COLUMNS = 100_000


def delimited_rows(chunks: Iterator[bytes], path: str, longest: int) -> Iterator[SpoolRow]:
    """The data rows of a file, with tabs between cells where its name says .tsv, else commas."""
    delimiter = "\t" if ".tsv" in path.lower().rsplit("/", 1)[-1] else ","
    names: list[str] | None = None
    number = 0
    for cells, raw in _rows(line_blocks(chunks, 0, longest), delimiter, longest):
        if names is None:
            if isinstance(cells, Fault):
                raise UnreadableFile(f"{path}: the first row must name the columns, but: {cells.message}")
            names = _column_names(cells)
            continue
        line = cells if isinstance(cells, Fault) else _json_line(names, cells, raw, delimiter)
        # With the columns' names, which every line repeats, it may be longer than its row.
        yield (
            number,
            line if isinstance(line, Fault) or len(line) <= longest else too_large(len(line), longest),
        )
        number += 1


class _TooLong(Exception):
    """A row of more bytes than any record may have."""


class _TooWide(Exception):
    """A header of more columns than fit in memory as Python objects."""


class _Feed:
    """Gives the csv module its lines, and remembers those of the row that it is reading."""

    def __init__(self, blocks: Iterator[LineBlock], delimiter: str, longest: int) -> None:
        self._lines = _lines(blocks)
        self._delimiter = delimiter.encode()
        self._longest = longest
        self.in_header = True
        self.start()

    def start(self) -> None:
        """Forget the row before."""
        self.raw: list[bytes] = []
        self.lines = self.size = self._quotes = self._delimiters = 0

    def __iter__(self) -> Iterator[str]:
        for line, size, quotes in self._lines:
            self._count(size, quotes)
            if self.size > self._longest:
                raise _TooLong
            if self.in_header:
                self._delimiters += line.count(self._delimiter)
                if self._delimiters >= _MOST_COLUMNS:
                    raise _TooWide
            self.raw.append(line)
            yield line.decode(errors="surrogateescape")

    def skip(self) -> None:
        """Go on to the end of the row, which an odd number of quotes has not reached yet."""
        while self._quotes % 2:
            line = next(self._lines, None)
            if line is None:
                return
            self._count(*line[1:])

    def _count(self, size: int, quotes: int) -> None:
        self.lines += 1
        self.size += size
        self._quotes += quotes


def _lines(blocks: Iterator[LineBlock]) -> Iterator[tuple[bytes, int, int]]:
    """Each physical line with its newline (nothing of one that is too long), its size and its quotes."""
    for block in blocks:
        if block.overlong:
            yield b"", block.size, block.quotes
            continue
        for line in lines_of(block):
            yield line + b"\n", len(line) + 1, line.count(b'"')


def _rows(
    blocks: Iterator[LineBlock], delimiter: str, longest: int
) -> Iterator[tuple[list[str] | Fault, str]]:
    """Cells and raw text of each row that is not blank."""
    csv.field_size_limit(max(csv.field_size_limit(), longest))
    feed = _Feed(blocks, delimiter, longest)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.start()
        try:
            cells = next(reader, None)
        except (csv.Error, _TooLong, _TooWide) as error:
            feed.skip()
            yield _fault(error, feed, longest), ""
            reader = csv.reader(feed, delimiter=delimiter, strict=True)  # the old one holds half a row
            continue
        if cells is None:
            return
        text = b"".join(feed.raw)
        if not text.isspace():
            feed.in_header = False
            yield _checked(cells, text)


def _fault(error: Exception, feed: _Feed, longest: int) -> Fault:
    if isinstance(error, _TooWide):
        return Fault("malformed_row", f"it has more than {_MOST_COLUMNS:,} columns")
    fault = (
        Fault("malformed_row", str(error)) if isinstance(error, csv.Error) else too_large(feed.size, longest)
    )
    if feed.lines < 2:
        return fault
    return Fault(fault.code, f"{fault.message}; the row spans {feed.lines:,} lines: is a quote missing?")


def _checked(cells: list[str], text: bytes) -> tuple[list[str] | Fault, str]:
    try:
        return cells, text.decode()
    except UnicodeDecodeError as error:
        return Fault("invalid_utf8", f"byte {error.start} of the row is no UTF-8 ({error.reason})"), ""


def _column_names(cells: Sequence[str]) -> list[str]:
    """Names of the columns: one without a name is called by its place, a repeated one gets a number."""
    return distinct_names([cell.strip() or f"column_{place}" for place, cell in enumerate(cells, 1)])


def _json_line(names: Sequence[str], cells: Sequence[str], raw: str, delimiter: str) -> bytes | Fault:
    if len(cells) != len(names):
        return Fault(
            "malformed_row", f"{len(cells)} fields where the header has {len(names)}: {raw.strip()[:60]!r}"
        )
    values: Sequence[str | None] = cells
    if "" in cells:
        quoted = _quoted_cells(raw, delimiter) if '""' in raw else [False] * len(cells)
        values = [cell if cell or is_quoted else None for cell, is_quoted in zip(cells, quoted, strict=True)]
    return orjson.dumps(dict(zip(names, values, strict=True)))


def _quoted_cells(raw: str, delimiter: str) -> list[bool]:
    """Which of a row's cells stand in quotes, which the csv module does not tell."""
    mark = re.escape(delimiter)
    # Nothing is taken back (`*+`): to remember where it could be takes a hundred times a cell's memory.
    cell = re.compile(rf'("[^"]*+(?:""[^"]*+)*+"|[^{mark}\r\n]*+)({mark}|\r?\n?$)')
    quoted: list[bool] = []
    place = 0
    while match := cell.match(raw, place):
        quoted.append(match[1].startswith('"'))
        place = match.end()
        if match[2] != delimiter:
            break
    return quoted
