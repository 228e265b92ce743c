"""The command itself: its verbs, its exit codes, its first line."""

import logging
import sys
from collections.abc import Callable
from typing import Any

import typer
from sqlalchemy.exc import DBAPIError

from batch_assets.cli import exit_codes
from batch_assets.cli.cleanup import cleanup
from batch_assets.cli.console import errors
from batch_assets.cli.dispatch import dispatch
from batch_assets.cli.plan import plan
from batch_assets.cli.rehearse import rehearse
from batch_assets.cli.retry import retry
from batch_assets.cli.run import run
from batch_assets.cli.search import search
from batch_assets.cli.serve import serve
from batch_assets.cli.status import status
from batch_assets.cli.stop import stop
from batch_assets.cli.verify import verify
from batch_assets.errors import BatchAssetsError, ConfigurationError, ModelError, SourceError
from batch_assets.home import dagster_home, ledger_url
from batch_assets.ledger.urls import without_password
from batch_assets.plain_text import PlainFormatter, plain_text, show_tracebacks_plainly

app = typer.Typer(
    name="batch-assets",
    help="Verified embeddings for very many records, every one accounted for.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (run, plan, status, verify, retry, stop, search, rehearse, serve, dispatch, cleanup):
    app.command()(verb)


def run_command() -> int:
    """Run what the command line says; returns the exit code."""
    show_tracebacks_plainly()
    # One line each: tracebacks are in the run's log, which the UI shows.
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("batch_assets.control.planning").setLevel(logging.INFO)
    home, ledger = _told(dagster_home), _told(lambda: without_password(ledger_url()))
    errors.print(f"home: {home}  ledger: {ledger}", markup=False, soft_wrap=True)
    try:
        code: Any = app(
            args=_with_get_number([_dashed(argument) for argument in sys.argv[1:]]),
            prog_name="batch-assets",
            standalone_mode=False,
        )
        sys.stdout.flush()
    except typer.Exit as stop_:
        code = stop_.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = exit_codes.INTERRUPTED
    except (ConfigurationError, SourceError, ModelError) as error:
        code = _say(str(error), exit_codes.USAGE)
    except (BatchAssetsError, OSError) as error:
        code = _say(str(error), exit_codes.NOTHING_PUBLISHED)
    except DBAPIError as error:
        said = " ".join(str(error.orig).split())
        text = f"a database of this deployment ({home}, or the ledger): {said}; mend that, then go on"
        code = _say(text, exit_codes.NOTHING_PUBLISHED)
    except Exception as error:
        usage = getattr(error, "format_message", None)  # typer keeps its exceptions' classes to itself
        if usage is None:
            raise
        code = _say(usage(), exit_codes.USAGE)
    return int(code or 0)


def _told(place: Callable[[], object]) -> str:
    """Where it is; a verb that needs it says why there is none, and `--help` needs none."""
    try:
        return str(place())
    except ConfigurationError:
        return "none"


def _say(error: str, code: int) -> int:
    errors.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
    return code


class _OneLine(PlainFormatter):
    def formatException(self, ei: Any) -> str:  # noqa: N802
        return plain_text(f"{ei[0].__name__}: {ei[1]}")


def _with_get_number(arguments: list[str]) -> list[str]:
    """`--get` with its number: 0, without end, where none stands behind it."""
    found: list[str] = []
    for argument, after in zip(arguments, [*arguments[1:], ""], strict=True):
        found.append(argument)
        if argument == "--get" and not after.isdigit():
            found.append("0")
    return found


def _dashed(argument: str) -> str:
    """`--some_flag=x_y` as `--some-flag=x_y`: flags may be written with underscores."""
    if not argument.startswith("--"):
        return argument
    flag, equals, value = argument.partition("=")
    return flag.replace("_", "-") + equals + value
