"""An OpenAI-compatible server without a model, for tests and benchmarks: quick, deterministic, and at fault as asked.

    python -m batch_assets_tests.gateway.model_server [--port 0] [--scenario FILE] [--books FILE] [--end-with-stdin]

It prints its URL once it listens. What it computes is in `endpoints.py`, what can go wrong in
`scenario.py`, what it did in its books (`books.py`); `model_servers.py` starts it for a test.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path
from time import time

import orjson

from batch_assets_tests.gateway.books import Books, Entry
from batch_assets_tests.gateway.computing import digest_of
from batch_assets_tests.gateway.damage import damage
from batch_assets_tests.gateway.endpoints import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    Call,
    Refused,
    read_call,
    written,
)
from batch_assets_tests.gateway.http_connection import Connection, Reply, Request
from batch_assets_tests.gateway.scenario import Fault, Refusal, Scenario

_PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>"
_ERRORS = {
    400: ("invalid_request_error", None, "The request is not valid."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist."),
    429: ("rate_limit_error", "rate_limit_exceeded", "Rate limit reached, please try again later."),
    500: ("server_error", None, "The server had an error while processing your request."),
    503: ("server_error", None, "The server is overloaded, please try again later."),
}


class ModelServer:
    """Handles requests by a scenario; `in_flight` counts POSTs at hand."""

    def __init__(self, scenario: Scenario, books: Books) -> None:
        self._scenario, self._books = scenario, books
        self._calls, self._in_flight = books.last_call, 0
        self._hits: Counter[int] = Counter()
        self._slots = asyncio.Semaphore(scenario.latency.slots or sys.maxsize)

    async def __call__(self, request: Request) -> Reply | None:
        scenario = self._scenario
        if request.method == "POST" and request.path in (EMBEDDINGS, CHAT, COMPLETIONS):
            self._calls += 1
            self._in_flight += 1
            try:
                return await self._post(request, self._calls)
            finally:
                self._in_flight -= 1
        if (request.method, request.path) == ("GET", "/health"):
            return Reply(200, b"")
        if (request.method, request.path) == ("GET", "/v1/models"):
            card = {"id": scenario.model, "object": "model", "created": 1_700_000_000, "owned_by": "tests"}
            card |= {"root": scenario.root, "max_model_len": scenario.context_tokens}
            return Reply(200, orjson.dumps({"object": "list", "data": [card]}))
        return _refused(Refusal(status=404, message=f"Not Found: {request.path}"))

    async def _post(self, request: Request, number: int) -> Reply | None:
        noted = {name: request.headers.get(name.lower(), "") for name in self._scenario.noted_headers}
        entry = Entry(number, time(), 0, self._in_flight, headers=noted)
        try:
            key = self._scenario.api_key
            if key is not None and request.headers.get("authorization") != f"Bearer {key}":
                raise Refused(401, "Incorrect API key provided.", "invalid_api_key")
            call = read_call(request.path, request.body, self._scenario)
        except Refused as error:
            return self._refuse(entry, error.refusal)
        faults = self._faults_of(number, call)
        for fault in faults:
            if fault.kind == "refuse":
                return self._refuse(entry, fault.refusal, fault.kind)
            if fault.kind == "stall":
                self._note(entry, 0, fault=fault.kind)
                await asyncio.Event().wait()
        try:
            refusal = await self._wait(len(call.texts))
        except asyncio.CancelledError:
            self._note(entry, 0, fault="caller_gone")
            raise
        if refusal is not None:
            return self._refuse(entry, refusal, "overload")
        return self._compute(entry, call, faults)

    def _faults_of(self, number: int, call: Call) -> list[Fault]:
        hitting: list[Fault] = []
        for place, fault in enumerate(self._scenario.faults):
            if fault.calls is not None and not fault.calls[0] <= number <= fault.calls[1]:
                continue
            if fault.text is not None and not any(fault.text in text for text in call.texts):
                continue
            if fault.times is not None and self._hits[place] >= fault.times:
                continue
            drawn = random.Random(f"{self._scenario.seed} {place} {number}").random
            if fault.share < 1 and drawn() >= fault.share:
                continue
            self._hits[place] += 1
            hitting.append(fault)
        return hitting

    async def _wait(self, inputs: int) -> Refusal | None:
        """Take the time that the call takes; a refusal where the server has no slot and says so."""
        latency = self._scenario.latency
        seconds = latency.seconds + latency.seconds_per_input * inputs
        if latency.slots is None:
            if seconds:
                await asyncio.sleep(seconds)
            return None
        load = self._in_flight / latency.slots
        if latency.above == "slow":
            await asyncio.sleep(seconds * max(1.0, load**latency.slowdown))
            return None
        if self._slots.locked() and latency.above == "refuse":
            return latency.refusal
        if self._slots.locked() and latency.above == "stall":
            await asyncio.Event().wait()
        async with self._slots:
            await asyncio.sleep(seconds)
        return None

    def _compute(self, entry: Entry, call: Call, faults: list[Fault]) -> Reply | None:
        try:
            answer = call.answer(self._scenario)
        except Refused as error:
            return self._refuse(entry, error.refusal)
        for fault in faults:
            damage(answer, fault, call.texts)
        kinds = {fault.kind for fault in faults}
        lost = kinds & {"drop", "cut", "cut_with_length", "crash"}
        first = faults[0].kind if faults else None
        self._note(entry, 0 if lost else 200, call.texts, first)
        if "crash" in kinds:
            os.kill(os.getpid(), signal.SIGKILL)
        if "drop" in kinds:
            return None
        if "html" in kinds:
            return Reply(200, _PAGE, content_type="text/html; charset=utf-8")
        if "error_inside" in kinds:
            return Reply(200, _error(Refusal(status=500)))
        body = written(answer, call.body.get("encoding_format", "float"))
        if "cut_with_length" in kinds:
            return Reply(200, body[: len(body) // 2])
        return Reply(200, body, sent=len(body) // 2 if "cut" in kinds else None)

    def _refuse(self, entry: Entry, refusal: Refusal, fault: str | None = None) -> Reply:
        self._note(entry, refusal.status, fault=fault)
        return _refused(refusal)

    def _note(
        self, entry: Entry, status: int, texts: list[str] | None = None, fault: str | None = None
    ) -> None:
        digests = [None] if texts is None else [digest_of(text) for text in texts]
        self._books.write(
            Entry(entry.call, entry.time, status, entry.in_flight, digest, fault, entry.headers)
            for digest in digests
        )


def _error(refusal: Refusal) -> bytes:
    kind, code, message = _ERRORS.get(refusal.status, _ERRORS[500 if refusal.status >= 500 else 400])
    return orjson.dumps(
        {
            "error": {
                "message": refusal.message or message,
                "type": refusal.type or kind,
                "param": None,
                "code": refusal.code or (None if refusal.message else code),
            }
        }
    )


def _refused(refusal: Refusal) -> Reply:
    return Reply(refusal.status, _error(refusal), refusal.all_headers())


async def serve(scenario: Scenario, books: Path | None, port: int, *, end_with_stdin: bool) -> None:
    """Serve until SIGTERM or SIGINT, or until whoever holds the other end of stdin is gone."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if end_with_stdin:
        loop.add_reader(sys.stdin.fileno(), ended.set)
    handler = ModelServer(scenario, Books(books))
    server = await loop.create_server(lambda: Connection(handler), "127.0.0.1", port, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await ended.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m batch_assets_tests.gateway.model_server")
    parser.add_argument("--port", type=int, default=0, help="by default a free one")
    parser.add_argument("--scenario", type=Path, help="JSON; without it nothing goes wrong")
    parser.add_argument("--books", type=Path, help="by default nothing is written down")
    parser.add_argument(
        "--end-with-stdin", action="store_true", help="end when the other end of stdin closes"
    )
    told = parser.parse_args()
    scenario = Scenario.model_validate_json(told.scenario.read_bytes()) if told.scenario else Scenario()
    asyncio.run(serve(scenario, told.books, told.port, end_with_stdin=told.end_with_stdin))


if __name__ == "__main__":
    main()
