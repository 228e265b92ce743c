"""The command itself: its verbs, its exit codes, its first line."""

import logging
import signal
import sys
from typing import Any

import typer

from batch_assets.cli import exit_codes
from batch_assets.cli.console import errors
from batch_assets.cli.plan import plan
from batch_assets.cli.retry import retry
from batch_assets.cli.run import run
from batch_assets.cli.search import search
from batch_assets.cli.status import status
from batch_assets.cli.stop import stop
from batch_assets.cli.verify import verify
from batch_assets.errors import AccountingError, BatchAssetsError, ConfigurationError, ModelError, SourceError

app = typer.Typer(
    name="batch-assets",
    help="Verified embeddings for very many records, every one accounted for.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (run, plan, status, verify, retry, stop, search):
    app.command()(verb)


def main() -> None:
    """Run the command; never returns."""
    signal.signal(signal.SIGTERM, _interrupt)
    # One line each: tracebacks are in the run's log, which the UI shows.
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("batch_assets.control.planning").setLevel(logging.INFO)
    arguments = [_dashed(argument) for argument in sys.argv[1:]]
    try:
        code: Any = app(args=arguments, prog_name="batch-assets", standalone_mode=False)
    except typer.Exit as stop_:
        code = stop_.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = exit_codes.INTERRUPTED
    except (ConfigurationError, SourceError, ModelError) as error:
        errors.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        code = exit_codes.USAGE
    except (BatchAssetsError, AccountingError) as error:
        errors.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        code = exit_codes.NOTHING_PUBLISHED
    except Exception as error:
        usage = getattr(error, "format_message", None)  # typer keeps its exceptions' classes to itself
        if usage is None:
            raise
        errors.print(f"error: {usage()}", style="red", markup=False, soft_wrap=True)
        code = exit_codes.USAGE
    sys.stdout.flush()
    sys.exit(code or 0)


class _OneLine(logging.Formatter):
    def formatException(self, ei: Any) -> str:  # noqa: N802
        return f"{ei[0].__name__}: {ei[1]}"


def _dashed(argument: str) -> str:
    """`--some_flag=x_y` as `--some-flag=x_y`: flags may be written with underscores."""
    if not argument.startswith("--"):
        return argument
    flag, equals, value = argument.partition("=")
    return flag.replace("_", "-") + equals + value


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt
