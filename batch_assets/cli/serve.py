"""`batch-assets serve`: takes requests over HTTP and computes them; starts pipelines by an authenticated web hook."""

import contextlib
import gc
import socket
from typing import Annotated

import typer

from batch_assets.cli import options
from batch_assets.cli.console import emit, errors, open_ledger
from batch_assets.cli.target import warn_of_others
from batch_assets.components.declared import defs_folder, load_folder
from batch_assets.errors import ConfigurationError
from batch_assets.home import dagster_home
from batch_assets.notifications.registry import create_notifiers
from batch_assets.server.tokens import read_tokens

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any that is free.")] = 8300,
    defs: options.Defs = None,
    allow_private_webhooks: Annotated[
        bool, typer.Option("--allow-private-webhooks", help="Tell ends at addresses of this network, too.")
    ] = False,
) -> None:
    """Take requests by POST /job, and start pipelines by POST /trigger/PIPELINE. Runs until Ctrl-C.

    Tokens are in $BATCH_ASSETS_TOKEN (the operator's) and $BATCH_ASSETS_TOKENS (tenants', name:token,name:token).
    $BATCH_ASSETS_WEBHOOK_SECRET signs what X-Webhook-Url is told.
    """
    from batch_assets.requests.database import deployment_database
    from batch_assets.server.application import create_application
    from batch_assets.server.computing import Computing
    from batch_assets.server.connections import create_server
    from batch_assets.server.gate import Gate, is_streamed
    from batch_assets.server.limits import Limits
    from batch_assets.server.pipelines import RequestPipelines
    from batch_assets.server.request_doors import taking_requests
    from batch_assets.server.starter import Starter
    from batch_assets.server.webhooks import read_secret

    tokens, secret = read_tokens(), read_secret()
    folder = defs_folder(defs)
    warn_of_others(load_folder(folder))
    ledger, notifiers = open_ledger(), create_notifiers()
    with _listening(host, port) as listening, contextlib.ExitStack() as running:
        address = listening.getsockname()
        if host not in LOOPBACK:
            errors.print(
                f"note: {host} is reached from other machines, and tokens go there unencrypted; "
                "put a proxy with TLS before it",
                soft_wrap=True,
                markup=False,
            )
        runs = dagster_home() / "batch_assets" / "serve"
        starter = running.enter_context(Starter(ledger, notifiers, ["--defs", str(folder)], runs))
        application = create_application(ledger, lambda: load_folder(folder), starter.ordered)
        pipelines = RequestPipelines(lambda: load_folder(folder))
        taking = sorted(pipelines.all())
        doors = taking_requests(
            application,
            pipelines,
            deployment_database(),
            ledger,
            webhook_secret=secret,
            allow_private_webhooks=allow_private_webhooks,
        )
        running.enter_context(doors)
        running.enter_context(Computing(pipelines, folder, runs))
        limits = Limits()
        gate = Gate(application, tokens, limits, pipelines.longest_body)
        server = create_server(gate, limits, gate.body_limit, is_streamed)
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        emit(f"serving http://{shown}:{address[1]}/trigger/PIPELINE for the pipelines in {folder}")
        if taking:
            emit(f"taking requests at http://{shown}:{address[1]}/job for {', '.join(taking)}")
        # What is imported is no garbage: to look through it takes a tenth of a second, in which nobody is answered.
        gc.collect()
        gc.freeze()
        server.run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise ConfigurationError(
            f"{host}:{port} cannot be listened on: {error.strerror or error}; name another by --host and --port"
        ) from None
