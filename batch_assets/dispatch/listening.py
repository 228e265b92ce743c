"""The worker's own pages: /metrics for Prometheus, /healthz and /readyz for whoever keeps it running."""

import contextlib
from collections.abc import AsyncIterator
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from batch_assets.dispatch.consumer import Consumer
from batch_assets.dispatch.metrics import Metrics
from batch_assets.errors import ConfigurationError


class Shown(Protocol):
    """What the pages tell of."""

    metrics: Metrics
    is_ready: bool
    consumers: list[Consumer]


@contextlib.asynccontextmanager
async def listening(address: str | None, shown: Shown) -> AsyncIterator[str]:
    """Serve the pages at HOST:PORT while the block runs, where port 0 is any that is free; at None serve nothing.

    Returns the address.
    """
    if address is None:
        yield ""
        return
    from aiohttp import web  # not above: few processes serve anything

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(shown.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def health(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def ready(_: web.Request) -> web.Response:
        away = [each.name for each in shown.consumers if each.connection.is_away]
        if shown.is_ready and not away:
            return web.Response(text="ok\n")
        told = f"away: {', '.join(away)}" if away else "not working yet, or ending"
        return web.Response(text=f"{told}\n", status=503)

    application = web.Application()
    application.add_routes(
        [web.get("/metrics", metrics), web.get("/healthz", health), web.get("/readyz", ready)]
    )
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    host, _, port = address.rpartition(":")
    try:
        try:
            await web.TCPSite(runner, host.strip("[]") or "0.0.0.0", int(port)).start()
        except (OSError, OverflowError) as error:
            raise ConfigurationError(f"listen {address}: {error}; name another address") from error
        yield f"{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
