"""`batch-assets rehearse`: a pipeline run against an AWS of localhost, with faults, before it costs money."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from batch_assets.cli import exit_codes, options
from batch_assets.cli.console import errors, open_ledger, out
from batch_assets.cli.rehearsal_books import tell_books
from batch_assets.cli.rehearsed_services import deferred_of, fetch_output, fitted, lies_on_s3, make_resources
from batch_assets.cli.rehearsing import (
    Rehearsal,
    make_folder,
    take_sample,
    write_pipeline,
)
from batch_assets.cli.target import choose_pipeline
from batch_assets.control.status import Status, read_status
from batch_assets.errors import ConfigurationError
from batch_assets.interruptible import interruptible
from batch_assets.ledger.ledger import Ledger
from batch_assets.rehearsal.faults import Scenario
from batch_assets.rehearsal.server import RehearsalServer

COMMAND = (sys.executable, "-c", "from batch_assets.cli import main; main()")
TOLD_SECONDS = 3.0
END_SECONDS = 20.0


def rehearse(
    pipeline: options.OptionalTarget = None,
    file: options.File = None,
    defs: options.Defs = None,
    sample: Annotated[int, typer.Option(min=1, help="So many of its records, the first ones.")] = 8_000,
    scenario: Annotated[
        str, typer.Option(help="calm, stormy, or a YAML file that says which faults befall it.")
    ] = "stormy",
    speed: Annotated[float, typer.Option(min=1, help="The service's clock, times real time.")] = 120.0,
    slots: Annotated[int | None, typer.Option(min=1, help="Jobs at once, instead of the scenario's.")] = None,
    ui: Annotated[bool, typer.Option("--ui", help="In the Dagster UI, by its daemon and sensors.")] = False,
    port: Annotated[int, typer.Option(help="Of the UI, on 127.0.0.1.")] = 3000,
    once: Annotated[
        bool, typer.Option("--once", help="With --ui: end when the result is published.")
    ] = False,
) -> None:
    """Run a pipeline on a sample of its records against an AWS of localhost, faults on. Nothing is paid for."""
    ledger = open_ledger()
    settings = choose_pipeline(pipeline, file, defs, {}, ledger)
    executor = deferred_of(settings)
    if settings.source.uri is None:
        raise ConfigurationError(
            f"{settings.name}: its source is the pipeline {settings.source.pipeline}; rehearse that one, or give this "
            "one's YAML a source.uri with records like those that it will read"
        )
    faults = fitted(Scenario.load(scenario), settings, slots)
    rehearsal = make_folder(settings)
    records = take_sample(settings, rehearsal, sample)
    with RehearsalServer(scenario=faults, speed=speed) as server:
        queue_url = make_resources(server.endpoint, executor)
        written = write_pipeline(settings, rehearsal, records, queue_url, server.endpoint, automation=ui)
        errors.print(
            f"rehearsing {settings.name} with {records:,} records, scenario {scenario}, "
            f"AWS at {server.endpoint}; everything lies under {rehearsal.folder}",
            markup=False,
            soft_wrap=True,
        )
        environment = rehearsal.environment(server.endpoint)
        if ui:
            code = _in_the_ui(
                rehearsal, environment, port, lambda: tell_books(server.books, executor), once=once
            )
        else:
            run = subprocess.run([*COMMAND, "run", "-f", str(written)], env=environment, check=False)
            code = run.returncode
            tell_books(server.books, executor)
        if lies_on_s3(executor):
            fetch_output(server.endpoint, rehearsal.output)
            errors.print(f"this AWS ends now; its output was copied to {rehearsal.output}", soft_wrap=True)
    raise typer.Exit(code)


def _in_the_ui(
    rehearsal: Rehearsal,
    environment: dict[str, str],
    port: int,
    tell_books: Callable[[], None],
    *,
    once: bool,
) -> int:
    """The webserver and the daemon, until the result is published, and then until Ctrl-C."""
    planned = subprocess.run(
        [*COMMAND, "plan", rehearsal.name], env=environment, check=False, capture_output=True
    )
    if planned.returncode:
        for line in planned.stderr.decode(errors="replace").splitlines():
            errors.print(line, soft_wrap=True)
        return planned.returncode
    command = [sys.executable, "-m", "dagster", "dev", "-m", "batch_assets.definitions"]
    log = rehearsal.folder / "dagster.log"
    with log.open("wb") as writing:
        dagster = subprocess.Popen(
            interruptible([*command, "-h", "127.0.0.1", "-p", str(port)]),
            env=environment,
            cwd=rehearsal.folder,
            stdout=writing,
            stderr=writing,
            start_new_session=True,
        )
        errors.print(f"the UI is at http://127.0.0.1:{port} in a moment; its log is {log}", soft_wrap=True)
        try:
            code = _watch(rehearsal, environment, dagster)
            tell_books()
            if code == exit_codes.PUBLISHED and not once:
                errors.print()
                errors.print(f"the UI stays up at http://127.0.0.1:{port} until Ctrl-C")
                with contextlib.suppress(KeyboardInterrupt):
                    dagster.wait()
            return code
        finally:
            _end(dagster)


def _watch(rehearsal: Rehearsal, environment: dict[str, str], dagster: "subprocess.Popen[bytes]") -> int:
    """Tell how far it is until the result is published, or Dagster ends."""
    settings = choose_pipeline(rehearsal.name, None, str(rehearsal.defs), {}, _ledger(rehearsal))
    told = ""
    while dagster.poll() is None:
        with _environment(environment):
            found = read_status(settings, _ledger(rehearsal))
        line = _line(found)
        if line != told:
            out.print(line, soft_wrap=True)
            told = line
        if found.version is not None:
            out.print(f"published {found.version} under {rehearsal.output}", soft_wrap=True)
            return exit_codes.PUBLISHED
        time.sleep(TOLD_SECONDS)
    errors.print(f"Dagster has ended with {dagster.returncode}; see {rehearsal.folder / 'dagster.log'}")
    return exit_codes.NOTHING_PUBLISHED


def _ledger(rehearsal: Rehearsal) -> Ledger:
    return Ledger.open(f"sqlite:///{rehearsal.home / 'batch_assets' / 'ledger.db'}")


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """The rehearsal's environment, in this process."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _line(found: Status) -> str:
    shards = ", ".join(f"{count} {state}" for state, count in found.shards.items()) or "nothing planned"
    return (
        f"{shards}; {found.records['embedded']:,} of {found.records['planned']:,} records embedded; "
        f"{found.slots['used']} of {found.slots['limit']} slots; {found.cost_usd:.4f} USD"
    )


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Stop the webserver, the daemon and what they have started."""
    for number, patience in ((signal.SIGINT, END_SECONDS), (signal.SIGKILL, END_SECONDS)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            return
