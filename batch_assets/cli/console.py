"""Where the command writes: results to stdout, everything else to stderr.

A string that is printed is one line, and is shown as it is: without control characters, and without
markup or emoji codes being obeyed. This is the one way from the command to a terminal, tables included.
"""

import json
from typing import Any

from rich.console import Console
from rich.text import Text

from batch_assets.home import ledger_url
from batch_assets.ledger.ledger import Ledger
from batch_assets.plain_text import plain_text


class PlainConsole(Console):
    """A console for text that others wrote."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    @property
    def encoding(self) -> str:
        """That of the stream it writes to at present; Rich's own asks only a file that it was made with."""
        return (getattr(self.file, "encoding", None) or "utf-8").lower()

    def render_str(self, text: str, **options: Any) -> Text:
        """Rich asks this for every string: what is printed, and each cell of a table."""
        return super().render_str(plain_text(text), **options)


out = PlainConsole()
errors = PlainConsole(stderr=True)


def open_ledger() -> Ledger:
    """The deployment's ledger. Raises ConfigurationError where its URL cannot be used."""
    return Ledger.open(ledger_url())


def look_at_ledger() -> Ledger:
    """The same for verbs that change nothing in it: where it cannot be written it is only read."""
    return Ledger.look(ledger_url())


def warn(sentence: str) -> None:
    """One line to stderr about what is not as it should be, and ends nothing."""
    errors.print(sentence, style="yellow", soft_wrap=True)


def emit(line: str) -> None:
    """One line of results, however wide the terminal is."""
    print(plain_text(line), flush=True)


def emit_json(value: Any) -> None:
    r"""One line of JSON with all that `value` holds: whatever is not printable ASCII stands there as `\u….`."""
    print(json.dumps(value, separators=(",", ":"), allow_nan=False), flush=True)
