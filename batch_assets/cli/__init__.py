"""The `batch-assets` command: one file per verb. What a verb does is done by the layers below."""

import signal
import sys

from batch_assets.cli import exit_codes
from batch_assets.module_loading import collector_at_rest
from batch_assets.standard_streams import set_up_streams


def main() -> None:
    """Run the command; never returns. Whatever interrupts it, at whatever moment, it ends with 130."""
    set_up_streams()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # Imported under the handler: it takes a second, in which people press Ctrl-C too.
        with collector_at_rest():
            from batch_assets.cli.app import run_command

        code = run_command()
    except KeyboardInterrupt:
        code = exit_codes.INTERRUPTED
    sys.exit(code)
