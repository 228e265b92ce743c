"""Where the command writes: results to stdout, everything else to stderr."""

from rich.console import Console

from batch_assets.home import dagster_home, ledger_url
from batch_assets.ledger.ledger import Ledger

out = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def open_ledger() -> Ledger:
    """The deployment's ledger; names it and the home on stderr's first line."""
    ledger = Ledger.open(ledger_url())
    errors.print(f"home: {dagster_home()}  ledger: {ledger.url_shown}", markup=False, soft_wrap=True)
    return ledger
