"""Where the command writes: results to stdout, everything else to stderr."""

import os
import sys

from rich.console import Console

from batch_assets.home import ledger_url
from batch_assets.ledger.ledger import Ledger

out = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def open_ledger() -> Ledger:
    """The deployment's ledger. Raises ConfigurationError where its URL cannot be used."""
    return Ledger.open(ledger_url())


def emit(line: str) -> None:
    """One line of results. Whoever reads stdout may have had enough of it: that changes no exit code."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
