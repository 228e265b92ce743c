"""Serve an embedding model over HTTP, as OpenAI's API has it: what `make demo-gateway` embeds through.

    python examples/serve_model.py [--port 8000] [--host 127.0.0.1] [--model ID] [--pid-file FILE]

POST /v1/embeddings, GET /v1/models, GET /health. The model is loaded and fed as executor `gpu` does
it, so that both store the same vectors; a text longer than the model takes is truncated by the
model's own rule. Calls that are waiting at the same time are computed together. It listens once
the model is loaded and ends at SIGTERM. For production there are vLLM, SGLang and TEI.
"""

import argparse
import asyncio
import base64
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, StringConstraints

from batch_assets.encoders.base import Encoder
from batch_assets.encoders.text import TextEncoder
from batch_assets.settings.model import ModelSettings
from batch_assets.worker.faults import Budget
from batch_assets.worker.windows import cut

MOST_TEXTS = 1024
"""Computed together: enough to sort by length, few enough that callers get their answers soon."""
GROUPS = 2
"""While one group of calls is in the model, the next is tokenized, or the last one written."""
STARTED = int(time())

Text = Annotated[str, StringConstraints(min_length=1)]
Vectors = npt.NDArray[np.float32]


class EmbeddingsCall(BaseModel):
    """The body of POST /v1/embeddings."""

    model: str
    input: Text | Annotated[list[Text], Field(min_length=1)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None


class Refused(Exception):
    """A call that is answered with an error, in OpenAI's shape."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
        self.response = Response(orjson.dumps({"error": error}), status, media_type="application/json")


@dataclass
class Waiting:
    """One call's texts, and where its vectors and its number of tokens go."""

    texts: list[str]
    result: asyncio.Future[tuple[Vectors, int]]


class Batcher:
    """Embeds the texts of all calls that wait at the same time, sorted by length, on all threads of the encoder."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._budget = Budget(encoder.batch_tokens, encoder.batch_records)
        self._waiting: asyncio.Queue[Waiting] = asyncio.Queue()
        self._pool = ThreadPoolExecutor(encoder.threads)

    async def embed(self, texts: list[str]) -> tuple[Vectors, int]:
        """The vectors, and the tokens that the model saw. Raises Refused where a text has none."""
        waiting = Waiting(texts, asyncio.get_running_loop().create_future())
        await self._waiting.put(waiting)
        return await waiting.result

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            group = [await self._waiting.get()]
            texts = len(group[0].texts)
            while texts < MOST_TEXTS and not self._waiting.empty():
                group.append(self._waiting.get_nowait())
                texts += len(group[-1].texts)
            try:
                results = await asyncio.to_thread(self._compute, [waiting.texts for waiting in group])
            except Exception as error:
                results = [error] * len(group)
            for waiting, result in zip(group, results, strict=True):
                if waiting.result.done():  # its caller has hung up
                    continue
                if isinstance(result, Exception):
                    waiting.result.set_exception(result)
                else:
                    waiting.result.set_result(result)

    def _compute(self, calls: list[list[str]]) -> list[tuple[Vectors, int] | Exception]:
        """One result for each call, of one pass through the model over all their texts."""
        prepared = self._encoder.prepare([text for texts in calls for text in texts])
        counts = prepared.counts
        vectors = np.zeros((len(counts), self._encoder.dimensions), np.float32)

        def encode(positions: list[int]) -> None:
            vectors[positions] = self._encoder.encode([prepared.inputs[position] for position in positions])

        longest_first = [int(position) for position in np.argsort(-counts, kind="stable") if counts[position]]
        list(self._pool.map(encode, cut(longest_first, counts, self._budget)))
        results: list[tuple[Vectors, int] | Exception] = []
        first = 0
        for texts in calls:
            part = slice(first, first + len(texts))
            if (counts[part] == 0).any():
                place = int(np.argmin(counts[part]))
                results.append(Refused(400, f"input {place}: the model makes no token of this text", "input"))
            else:
                results.append((vectors[part], int(counts[part].sum())))
            first = part.stop
        return results


def create_app(encoder: Encoder, model: str) -> FastAPI:
    """The three routes over an encoder."""
    batcher = Batcher(encoder)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(batcher.run()) for _ in range(GROUPS)]
        yield
        for task in tasks:
            task.cancel()

    app = FastAPI(title="serve_model", lifespan=lifespan)

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return error.response

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:])
        return Refused(400, f"{field or 'body'}: {first['msg']}", field or None).response

    @app.get("/health")
    async def health() -> Response:
        return Response()

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        card = {"id": model, "object": "model", "created": STARTED, "owned_by": "batch-assets", "root": model}
        return {"object": "list", "data": [card]}

    @app.post("/v1/embeddings")
    async def embeddings(call: EmbeddingsCall) -> Response:
        if call.model != model:
            raise Refused(
                404, f"The model `{call.model}` does not exist; here is {model}", "model", "model_not_found"
            )
        if call.dimensions is not None and call.dimensions > encoder.dimensions:
            raise Refused(400, f"dimensions is {call.dimensions}, above {encoder.dimensions}", "dimensions")
        vectors, tokens = await batcher.embed([call.input] if isinstance(call.input, str) else call.input)
        if call.dimensions is not None:
            vectors = vectors[:, : call.dimensions]
            vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        written = [
            base64.b64encode(vector.astype("<f4").tobytes()).decode()
            if call.encoding_format == "base64"
            else vector.tolist()
            for vector in vectors
        ]
        data = [
            {"object": "embedding", "index": index, "embedding": each} for index, each in enumerate(written)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        answer = {"object": "list", "data": data, "model": model, "usage": usage}
        return Response(orjson.dumps(answer), media_type="application/json")

    del refused, invalid, health, models, embeddings  # FastAPI has them
    return app


def main() -> None:
    """Load, listen, serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(description="Serve an embedding model by OpenAI's API.")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument(
        "--model", default=ModelSettings().id, help="hub id or directory (default: %(default)s)"
    )
    parser.add_argument("--pid-file", type=Path, help="where to write this process's id once it listens")
    told = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again when it has ended its calls
        signal.signal(number, lambda *_: sys.exit(0))
    app = create_app(TextEncoder.load(ModelSettings(id=told.model)), told.model)
    with socket.create_server((told.host, told.port), backlog=1024) as listener:
        host, port = listener.getsockname()[:2]
        if told.pid_file is not None:
            told.pid_file.write_text(f"{os.getpid()}\n")
        print(f"serving {told.model} at http://{host}:{port}", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
