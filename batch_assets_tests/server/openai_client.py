"""OpenAI's official client before a server of these tests, and the files that it is given."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai

from batch_assets_tests.requests.builders import NAME, compute_batches, open_asks, open_requests
from batch_assets_tests.server.test_request_doors import Client, serving

EMBEDDINGS, CHAT = "/v1/embeddings", "/v1/chat/completions"


class Served:
    """A server that computes when it is told to, and its client, which accepts nothing that its types do not."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.folder = client.folder
        self.openai = self.as_tenant("a" * 16)

    def as_tenant(self, token: str) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.client.url}/v1", api_key=token, max_retries=0, _strict_response_validation=True
        )

    def upload(self, lines: Iterable[Any], name: str = "calls.jsonl") -> str:
        """The id of a file with these lines: bytes as they are, everything else as JSON."""
        path = self.folder / name
        path.write_bytes(b"".join(_bytes(line) + b"\n" for line in lines))
        with path.open("rb") as file:
            return self.openai.files.create(file=file, purpose="batch").id

    def create(self, lines: Iterable[Any], endpoint: Any = EMBEDDINGS, **more: Any) -> str:
        """The id of a batch of these lines."""
        window = more.pop("completion_window", "24h")
        file_id = self.upload(lines)
        made = self.openai.batches.create(
            input_file_id=file_id, endpoint=endpoint, completion_window=window, **more
        )
        assert (made.status, made.input_file_id) == ("validating", file_id)
        return made.id

    def compute(self) -> None:
        database = open_requests(self.folder)
        compute_batches(open_asks(self.folder, self.client.settings), database)
        database.dispose()

    def lines(self, file_id: str | None) -> list[Any]:
        """The lines of an output or an error file; none where there is none."""
        if file_id is None:
            return []
        return [json.loads(line) for line in self.openai.files.content(file_id).read().splitlines()]


@contextmanager
def served(folder: Path, rules: dict[str, Any] | None = None, **webhooks: Any) -> Iterator[Served]:
    rules = {"max_open": 100_000, "max_body_bytes": 100_000, **(rules or {})}
    with serving(folder, rules, **webhooks) as client:
        yield Served(client)


def call(custom_id: str, text: Any, url: str = EMBEDDINGS, model: str = NAME, **body: Any) -> dict[str, Any]:
    """A line of a batch's file."""
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": url,
        "body": {"model": model, "input": text, **body},
    }


def calls(count: int) -> Sequence[dict[str, Any]]:
    return [call(f"call-{number}", f"text {number}") for number in range(count)]


def _bytes(line: Any) -> bytes:
    return line if isinstance(line, bytes) else json.dumps(line).encode()
