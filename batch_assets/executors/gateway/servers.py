"""The model servers that this process calls: an event loop in a thread, and for each server one window and its rates.

What is asked of them is the pipelines' business: `executor.py`.
"""

import asyncio
import concurrent.futures
import threading
import weakref
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from batch_assets.errors import ConfigurationError
from batch_assets.executors.base import Progress
from batch_assets.executors.gateway.executor import GatewayExecutor
from batch_assets.gateway.client import Client
from batch_assets.gateway.delivery import Server
from batch_assets.gateway.identity import identify
from batch_assets.gateway.rates import Governor
from batch_assets.gateway.window import Window
from batch_assets.patience import is_ended
from batch_assets.retry_policy import END_SECONDS, LOOK_SECONDS
from batch_assets.settings.gateway import GatewayExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings

Made = TypeVar("Made")
_OF_THE_SERVER = {
    "base_url",
    "concurrency",
    "max_concurrency",
    "timeout_seconds",
    "requests_per_minute",
    "tokens_per_minute",
}


@dataclass
class ModelServers:
    """All model servers of this process; `progress` is told of records as they are answered."""

    progress: Progress | None = None
    _loop: asyncio.AbstractEventLoop | None = field(default=None, repr=False)
    _servers: dict[str, Server] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def executor(self, settings: PipelineSettings) -> GatewayExecutor:
        """The executor of one pipeline."""
        return GatewayExecutor(self, settings)

    def embed_query(self, settings: PipelineSettings, text: str) -> npt.NDArray[np.float32]:
        """The vector (dimensions,) of a text to be looked for, by the server. Raises ModelError."""
        return self.executor(settings).embed_query(text)

    def embed_query_image(self, settings: PipelineSettings, content: bytes) -> npt.NDArray[np.float32]:
        """Always a ConfigurationError: servers embed texts only."""
        raise ConfigurationError(f"pipeline {settings.name} embeds texts: look for a text")

    def server(self, settings: PipelineSettings) -> Server:
        """The pipeline's server; pipelines that call one alike share it, with its window and rates.

        Raises ConfigurationError where its API key is not to be had.
        """
        options = settings.executor
        assert isinstance(options, GatewayExecutorSettings), options.type
        own, secret = identify(options.inference_objective, options.api_key_env, "executor.api_key_env")
        headers = {**options.headers, **own}
        key = f"{options.model_dump_json(include=_OF_THE_SERVER)} {sorted(headers.items())}"
        with self._lock:
            if key not in self._servers:
                self._servers[key] = self._run_in(
                    self._running_loop(), _open(options, headers, secret)
                ).result()
            return self._servers[key]

    def start(self, coroutine: Coroutine[Any, Any, Made]) -> "concurrent.futures.Future[Made]":
        """Have the coroutine run in the event loop of the calls."""
        with self._lock:
            loop = self._running_loop()
        return self._run_in(loop, coroutine)

    def wait_for(self, coroutine: Coroutine[Any, Any, Made]) -> Made:
        """Run the coroutine and wait for what it returns; it ends with whoever waits."""
        future = self.start(coroutine)
        try:
            while not concurrent.futures.wait([future], LOOK_SECONDS).done:
                if is_ended():
                    raise KeyboardInterrupt
            return future.result()
        finally:
            future.cancel()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            thread = threading.Thread(target=self._loop.run_forever, name="calls", daemon=True)
            thread.start()
            # Connections are closed when nobody has the servers any more, or the process ends.
            weakref.finalize(self, _close, self._loop, thread, self._servers)
        return self._loop

    @staticmethod
    def _run_in(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Made]
    ) -> "concurrent.futures.Future[Made]":
        return asyncio.run_coroutine_threadsafe(coroutine, loop)


async def _open(options: GatewayExecutorSettings, headers: dict[str, str], secret: str | None) -> Server:
    client = Client(options.base_url, headers=headers, timeout_seconds=options.timeout_seconds, secret=secret)
    fixed = None if options.concurrency == "auto" else options.concurrency
    window = Window(most=options.max_concurrency, fixed=fixed)
    limits = (options.requests_per_minute, options.tokens_per_minute)
    return Server(client, window, None if limits == (None, None) else Governor(*limits))


def _close(loop: asyncio.AbstractEventLoop, thread: threading.Thread, servers: dict[str, Server]) -> None:
    async def close() -> None:
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        for server in servers.values():
            await server.client.close()
        loop.stop()

    asyncio.run_coroutine_threadsafe(close(), loop)
    if thread is not threading.current_thread():
        thread.join(END_SECONDS)  # else the process would end in the middle of it
