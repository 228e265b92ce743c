"""What the command prints: text of others as text, on a stream of any encoding, with or without a reader."""

import io
import json
import sys

import pytest
from rich.progress import BarColumn, Progress
from rich.table import Table

from batch_assets.cli.console import PlainConsole, emit, emit_json, out

HOSTILE = (
    "\x1b]0;owned\x07\x1b[2J\x9b31m [bold]x[/bold] [link=https://e.example]y[/link] :smile: \u202etxt\0\x7f\r"
)
SHOWN = r"\x1b]0;owned\x07\x1b[2J\x9b31m [bold]x[/bold] [link=https://e.example]y[/link] :smile: \u202etxt\x00\x7f\r"


def test_neither_escapes_nor_markup_are_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    out.print(HOSTILE, soft_wrap=True)
    assert capsys.readouterr().out == SHOWN + "\n"


def test_nor_in_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("pipeline", "\x1b[2J [bold]a\nb")
    out.print(table)
    assert capsys.readouterr().out.rstrip() == r"pipeline  \x1b[2J [bold]a\nb"


def test_a_line_of_results_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    emit("published v1 under a\nb")
    assert capsys.readouterr().out == "published v1 under a\\nb\n"


def test_json_holds_the_data_itself_in_printable_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    found = {"examples": [HOSTILE, "Füße 👩‍👧", "no\udcffutf-8"], "usd": 0.1, "none": None}
    emit_json(found)
    written = capsys.readouterr().out
    assert all(" " <= character <= "~" for character in written.removesuffix("\n"))
    assert json.loads(written) == found


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_boxes_and_bars_are_drawn_with_what_the_stream_has(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    written = io.BytesIO()
    # Strict: not one character has to be replaced.
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding, errors="strict"))
    console = PlainConsole()
    table = Table()
    table.add_column("records")
    table.add_row("7")
    console.print(table)
    with Progress(BarColumn(), console=console) as progress:
        progress.add_task("embedding", total=2, completed=1)
    sys.stdout.flush()
    assert b"records" in written.getvalue()
