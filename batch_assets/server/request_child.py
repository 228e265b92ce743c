"""`python -m batch_assets.server.request_child NAME DEFS`: the process in which `serve` computes a pipeline's requests.

It has the model loaded and works until its standard input ends: it outlives neither an end of the server nor its
death. A second one, of another server, waits until the first has gone.
"""

import contextlib
import logging
import sys
import threading
import time
from pathlib import Path

from batch_assets.cli import exit_codes
from batch_assets.cli.console import open_ledger
from batch_assets.components.declared import load_folder
from batch_assets.control.leases import exclusive
from batch_assets.control.request_planning import requests_lease
from batch_assets.control.request_worker import RequestWorker
from batch_assets.errors import BatchAssetsError, ConfigurationError
from batch_assets.executors.registry import create_host
from batch_assets.ledger.holder import Holder
from batch_assets.ledger.ledger import Ledger
from batch_assets.notifications.registry import create_notifiers
from batch_assets.orchestration.schedules import last_tick
from batch_assets.patience import context_until
from batch_assets.plain_text import PlainFormatter, plain_text
from batch_assets.settings.pipeline import PipelineSettings


def main(arguments: list[str]) -> int:
    """Work until the standard input ends; the exit code."""
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    name, folder = arguments
    try:
        declared = load_folder(Path(folder))
        if name not in declared.pipelines:
            raise ConfigurationError(
                declared.why_broken(name) or f"there is no pipeline {name!r} in {folder}"
            )
        work(declared.pipelines[name], open_ledger())
    except BatchAssetsError as error:
        sys.stderr.write(plain_text(f"error: {error}") + "\n")
        return exit_codes.USAGE if isinstance(error, ConfigurationError) else exit_codes.NOTHING_PUBLISHED
    return 0


def work(settings: PipelineSettings, ledger: Ledger) -> None:
    """Seal and compute, once nobody else does."""
    worker = RequestWorker(
        settings,
        ledger,
        create_host(settings.executor.type).executor(settings),
        create_notifiers(),
        lambda: last_tick(settings, time.time()),
    )
    threading.Thread(target=_watch_input, args=(worker.ending,), name="server", daemon=True).start()

    def take_turn() -> None:
        with exclusive(ledger, requests_lease(settings.name), Holder.current()):
            worker.run()

    # Whatever it waits for, it waits no longer once the server has ended.
    with contextlib.suppress(KeyboardInterrupt):
        context_until(worker.ending).run(take_turn)


def _watch_input(ending: threading.Event) -> None:
    """The server never writes anything: what there is to read is its end."""
    while sys.stdin.buffer.read(1):
        pass
    ending.set()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
