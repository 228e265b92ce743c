"""Batches of chats by OpenAI's client to the real `batch-assets serve`, answered by a model server; it is killed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import yaml
from openai.types import Batch
from openai.types.chat import ChatCompletion

from batch_assets_tests.command import make_machine
from batch_assets_tests.gateway.computing import digest_of
from batch_assets_tests.gateway.model_servers import RunningServer, model_server
from batch_assets_tests.gateway.scenario import Latency, Scenario
from batch_assets_tests.server.openai_client import CHAT
from batch_assets_tests.server.test_serve import TOKEN, serving
from batch_assets_tests.waiting import wait_until

LINES = 60
SLOW = Scenario(latency=Latency(slots=4, seconds=0.1))
SLOWEST = Scenario(latency=Latency(slots=4, seconds=1.0))
ENDED = ("completed", "failed", "expired", "cancelled")


def pipeline(folder: Path, server: RunningServer) -> Path:
    attributes = {
        "task": "generate",
        "source": {"requests": {"seal_records": 20, "seal_seconds": 0.5}, "text_column": "text"},
        "model": {"id": "test-model"},
        "executor": {"type": "gateway", "base_url": server.url, "body": {"max_tokens": 50}},
        "shards": {"records": 20},
        "output": {"root": str(folder / "out")},
    }
    (folder / "defs/chats").mkdir(parents=True)
    content = {"type": "batch_assets.components.EmbeddingPipeline", "attributes": attributes}
    (folder / "defs/chats/defs.yaml").write_text(yaml.safe_dump(content))
    return folder / "defs"


def chat(custom_id: str, text: str, **body: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    body = {"model": "test-model", "messages": messages, "max_tokens": 50, **body}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}


def write_lines(folder: Path, lines: list[dict[str, Any]]) -> Path:
    file = folder / "calls.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@contextmanager
def a_client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{url}/v1", api_key=TOKEN, max_retries=5, _strict_response_validation=True
    ) as client:
        yield client


def until(client: openai.OpenAI, batch: Batch, *statuses: str) -> Batch:
    found = [batch]

    def has_come() -> bool:
        found.append(client.batches.retrieve(batch.id))
        return found[-1].status in statuses

    wait_until(has_come, lambda: found[-1])
    return found[-1]


def lines_of(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    return (
        [] if file_id is None else [json.loads(line) for line in client.files.content(file_id).iter_lines()]
    )


def test_a_batch_of_chats_outlives_a_kill_and_is_paid_once(tmp_path: Path) -> None:
    lines = [chat(f"call-{number}", f"chat number {number} .") for number in range(LINES)]
    lines.insert(7, chat("warmer", "how are you?", temperature=2))
    lines.insert(9, chat("another's", "how are you?", model="gpt-5"))
    machine = make_machine(tmp_path / "home", BATCH_ASSETS_TOKEN=TOKEN)
    with model_server(tmp_path, SLOW) as server:
        defs = pipeline(tmp_path, server)
        with serving(machine, defs) as (served, kill), a_client(served.url) as client:
            file_id = client.files.create(file=write_lines(tmp_path, lines), purpose="batch").id
            batch = client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
            wait_until(lambda: len(server.computed()) > LINES // 3, "nothing is computed")
            kill()
        with serving(machine, defs) as (served, _), a_client(served.url) as client:
            again = client.batches.create(
                input_file_id=file_id,
                endpoint=CHAT,
                completion_window="24h",
                extra_headers={"x-stainless-retry-count": "1"},
            )
            assert again.id == batch.id
            batch = until(client, batch, *ENDED)
            answered, failed = (lines_of(client, one) for one in (batch.output_file_id, batch.error_file_id))
    assert batch.status == "completed" and batch.request_counts is not None and batch.usage is not None
    assert batch.request_counts.to_dict() == {"total": LINES + 2, "completed": LINES, "failed": 2}
    assert [line["custom_id"] for line in answered] == [f"call-{number}" for number in range(LINES)]
    assert [(line["custom_id"], line["error"]["code"]) for line in failed] == [
        ("warmer", "unsupported_parameter"),
        ("another's", "model_mismatch"),
    ]
    used = 0
    for number, line in enumerate(answered):
        assert line["response"]["status_code"] == 200 and line["error"] is None
        completion = ChatCompletion.model_validate(line["response"]["body"], strict=False)
        assert completion.choices[0].message.content == f"echo: chat number {number} ."
        assert completion.model == "test-model" and completion.usage is not None
        used += completion.usage.total_tokens
    assert used == batch.usage.total_tokens > 0
    # What was in flight, or answered and not stored, when the server died is asked for once more.
    calls = server.computed()
    assert set(calls) == {digest_of(f"chat number {number} .") for number in range(LINES)}
    assert max(calls.values()) <= 2


def test_a_batch_that_is_cancelled_while_it_is_computed_has_every_line_in_one_file(tmp_path: Path) -> None:
    lines = [chat(f"call-{number}", f"chat number {number} .") for number in range(LINES)]
    machine = make_machine(tmp_path / "home", BATCH_ASSETS_TOKEN=TOKEN)
    with model_server(tmp_path, SLOWEST) as server:
        defs = pipeline(tmp_path, server)
        with serving(machine, defs) as (served, _), a_client(served.url) as client:
            file_id = client.files.create(file=write_lines(tmp_path, lines), purpose="batch").id
            batch = client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
            wait_until(server.entries, "nothing is computed")
            assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
            batch = until(client, batch, *ENDED)
            answered, failed = (lines_of(client, one) for one in (batch.output_file_id, batch.error_file_id))
    assert batch.status == "cancelled" and batch.cancelled_at is not None
    assert sorted(line["custom_id"] for line in answered + failed) == sorted(
        line["custom_id"] for line in lines
    )
    assert {line["error"]["code"] for line in failed} == {"batch_cancelled"}
    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (len(answered), len(failed))
