"""`batch-assets serve`: start pipelines by an authenticated web hook."""

import os
import re
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
from batch_assets.server.child import TOKEN_VARIABLE

TOKEN = re.compile(r"[\x21-\x7e]{16,}")
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any that is free.")] = 8300,
    defs: options.Defs = None,
) -> None:
    """Start pipelines by POST /trigger/PIPELINE, with the token in $BATCH_ASSETS_TOKEN. Runs until Ctrl-C."""
    from batch_assets.server.application import create_application
    from batch_assets.server.connections import create_server
    from batch_assets.server.gate import Gate
    from batch_assets.server.limits import Limits
    from batch_assets.server.starter import Starter

    token = _token()
    folder = defs_folder(defs)
    warn_of_others(load_folder(folder))
    ledger, notifiers = open_ledger(), create_notifiers()
    with _listening(host, port) as listening:
        address = listening.getsockname()
        if host not in LOOPBACK:
            errors.print(
                f"note: {host} is reached from other machines, and the token goes there unencrypted; "
                "put a proxy with TLS before it",
                soft_wrap=True,
                markup=False,
            )
        runs = dagster_home() / "batch_assets" / "serve"
        with Starter(ledger, notifiers, ["--defs", str(folder)], runs) as starter:
            application = create_application(ledger, lambda: load_folder(folder), starter.ordered)
            limits = Limits()
            server = create_server(Gate(application, token, limits), limits)
            shown = f"[{address[0]}]" if ":" in address[0] else address[0]
            emit(f"serving http://{shown}:{address[1]}/trigger/PIPELINE for the pipelines in {folder}")
            server.run(sockets=[listening])


def _token() -> str:
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not TOKEN.fullmatch(token):
        what = "is not set" if not token else "is no token of 16 or more characters, without spaces"
        raise ConfigurationError(
            f"{TOKEN_VARIABLE} {what}; make one with: export {TOKEN_VARIABLE}=$(openssl rand -hex 32)"
        )
    return token


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise ConfigurationError(
            f"{host}:{port} cannot be listened on: {error.strerror or error}; name another by --host and --port"
        ) from None
