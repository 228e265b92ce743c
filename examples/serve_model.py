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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

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
                await asyncio.to_thread(self._compute, group)
            except Exception as error:
                for waiting in group:
                    waiting.result.set_exception(error)
