"""Batches by OpenAI's official client, its strict validation on: what is taken, refused, told, and left in the end."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from batch_assets_tests.fakes import fake_vector
from batch_assets_tests.requests.builders import NAME
from batch_assets_tests.server.openai_client import CHAT, EMBEDDINGS, Served, call, calls, served


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as server:
        yield server


@pytest.mark.parametrize(
    "count", [2, 3, 30], ids=["joins the open window", "has one of its own", "several shards"]
)
def test_a_batch_comes_back_line_by_line_in_the_order_of_its_file(server: Served, count: int) -> None:
    batch_id = server.create(calls(count), metadata={"team": "search"})
    server.compute()
    batch = server.openai.batches.retrieve(batch_id)
    assert (batch.status, batch.metadata, batch.error_file_id) == ("completed", {"team": "search"}, None)
    assert batch.request_counts is not None and batch.usage is not None
    assert batch.request_counts.model_dump() == {"total": count, "completed": count, "failed": 0}
    assert batch.in_progress_at and batch.finalizing_at and batch.completed_at and batch.expires_at
    lines = server.lines(batch.output_file_id)
    assert [line["custom_id"] for line in lines] == [f"call-{number}" for number in range(count)]
    answer = openai.types.CreateEmbeddingResponse.model_validate(lines[1]["response"]["body"], strict=True)
    assert answer.data[0].embedding == pytest.approx(fake_vector("text 1").tolist())
    assert (lines[1]["response"]["status_code"], lines[1]["error"]) == (200, None)
    assert batch.usage.total_tokens == batch.usage.input_tokens == sum(
        line["response"]["body"]["usage"]["total_tokens"] for line in lines
    )  # fmt: skip
    output = server.openai.files.retrieve(batch.output_file_id or "")
    assert (output.purpose, output.bytes) == (
        "batch_output",
        len(server.openai.files.content(output.id).read()),
    )


def test_each_bad_line_goes_alone_to_the_error_file(server: Served) -> None:
    lines: list[Any] = [
        call("good", "a text"),
        call("other-model", "a text", model="nobody"),
        call("by-model-id", "a text", model="sentence-transformers/all-MiniLM-L6-v2"),
        call("many-inputs", ["one", "two"]),
        call("one-input", ["one"]),
        call("tokens", [1, 2, 3]),
        call("narrow", "a text", dimensions=8),
        call("empty", ""),
        call("base64", "a text", encoding_format="base64", user="somebody"),
        call("other-url", "a text", url=CHAT),
        {"custom_id": "no-body", "method": "POST", "url": EMBEDDINGS},
        b"[1, 2]",
        b'{"custom_id": "half", "body": "\\ud800"}',
        b"",
        call("get", "a text") | {"method": "GET"},
        call("long", "x" * 100_001),
    ]
    batch_id = server.create(lines)
    server.compute()
    batch = server.openai.batches.retrieve(batch_id)
    assert batch.status == "completed" and batch.request_counts is not None
    good = server.lines(batch.output_file_id)
    assert [line["custom_id"] for line in good] == ["good", "by-model-id", "one-input", "base64"]
    encoded = base64.b64decode(good[3]["response"]["body"]["data"][0]["embedding"])
    assert np.frombuffer(encoded, "<f4") == pytest.approx(fake_vector("a text"))
    bad = server.lines(batch.error_file_id)
    assert [(line["custom_id"], line["error"]["code"]) for line in bad] == [
        ("other-model", "model_mismatch"),
        ("many-inputs", "unsupported_input"),
        ("tokens", "unsupported_input"),
        ("narrow", "unsupported_parameter"),
        ("empty", "invalid_request"),
        ("other-url", "url_mismatch"),
        ("no-body", "invalid_request"),
        (None, "invalid_request"),
        ("half", "invalid_request"),
        ("get", "invalid_request"),
        ("long", "invalid_request"),
    ]
    assert batch.request_counts.model_dump() == {"total": 15, "completed": 4, "failed": 11}
    assert len({line["id"] for line in [*good, *bad]}) == 15


def test_where_no_line_can_be_used_the_batch_completes_with_counts_that_say_so(server: Served) -> None:
    batch_id = server.create([call(f"n{number}", "a text", model="nobody") for number in range(9)])
    server.compute()
    batch = server.openai.batches.retrieve(batch_id)
    assert (batch.status, batch.output_file_id) == ("completed", None)
    assert batch.request_counts is not None
    assert batch.request_counts.model_dump() == {"total": 9, "completed": 0, "failed": 9}
    assert len(server.lines(batch.error_file_id)) == 9


@pytest.mark.parametrize(
    ("lines", "code", "line"),
    [
        ([call("a", "x"), b"{no json", call("b", "y")], "invalid_json_line", 2),
        ([call("a", "x"), b'{"custom_id": "\xff"}'], "invalid_json_line", 2),
        ([call("a", "x"), call("b", "y"), call("a", "z")], "duplicate_custom_id", 3),
        ([b"", b"  "], "empty_file", None),
        ([call(str(number), "x") for number in range(50_001)], "too_many_tasks", None),
    ],
    ids=["not JSON", "not UTF-8", "an id twice", "empty", "too many"],
)
def test_a_file_that_cannot_be_taken_fails_the_batch_and_costs_nothing(
    server: Served, lines: list[Any], code: str, line: int | None
) -> None:
    batch_id = server.create(lines)
    server.compute()
    batch = server.openai.batches.retrieve(batch_id)
    assert batch.status == "failed" and batch.failed_at and batch.errors and batch.errors.data
    [error] = batch.errors.data
    assert (error.code, error.line) == (code, line)
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    assert server.client.ask("GET", "/jobs")[1]["jobs"] == []


def test_what_is_asked_wrongly_is_refused_in_words_that_the_client_reads(server: Served) -> None:
    create = server.openai.batches.create
    file_id = server.upload(calls(1))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"input_file_id": "file-none"}, "input_file_id"),
        ({"endpoint": "/v1/moderations"}, "endpoint"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"completion_window": "0h"}, "completion_window"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": {str(number): "v" for number in range(17)}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after"),
    ]
    right: dict[str, Any] = {"input_file_id": file_id, "endpoint": EMBEDDINGS, "completion_window": "24h"}
    for change, param in wrong:
        with pytest.raises(openai.BadRequestError) as refused:
            create(**{**right, **change})
        assert (refused.value.param, refused.value.type) == (param, "invalid_request_error")
    with pytest.raises(openai.NotFoundError, match="there is no batch"):
        server.openai.batches.retrieve("batch_none")
    with pytest.raises(openai.AuthenticationError):
        server.as_tenant("z" * 16).batches.list()
    status, answer = server.client.ask("GET", "/v1/assistants")
    assert (status, answer["error"]["type"]) == (404, "invalid_request_error")


def test_a_post_that_the_client_repeats_makes_one_batch(server: Served) -> None:
    file_id = server.upload(calls(1))

    def create(retry: int, **more: Any) -> str:
        asked = {"input_file_id": file_id, "endpoint": EMBEDDINGS, "completion_window": "24h", **more}
        body = json.dumps(asked).encode()
        status, made = server.client.ask("POST", "/v1/batches", body, x_stainless_retry_count=str(retry))
        assert status == 200
        return str(made["id"])

    first = create(0)
    assert create(1) == create(2) == first
    assert create(0) != first
    assert create(1, metadata={"k": "v"}) not in (first,)
    assert create(1, completion_window="24h") != first  # the newest with the same file, endpoint and metadata
    assert len(server.openai.batches.list().data) == 3


def test_batches_are_listed_newest_first_page_by_page_and_only_to_their_tenant(server: Served) -> None:
    made = [server.create(calls(1)) for _ in range(5)]
    assert [batch.id for batch in server.openai.batches.list(limit=2)] == made[::-1]
    first = server.openai.batches.list(limit=2)
    assert (len(first.data), first.has_more) == (2, True)
    bob = server.as_tenant("b" * 16)
    assert bob.batches.list().data == [] and bob.files.list().data == []
    with pytest.raises(openai.NotFoundError):
        bob.batches.retrieve(made[0])
    with pytest.raises(openai.NotFoundError):
        bob.batches.cancel(made[0])
    operator = server.as_tenant("o" * 16)
    assert len(operator.batches.list().data) == 5


def test_a_cancelled_batch_has_every_line_in_one_of_its_files(server: Served) -> None:
    batch_id = server.create(calls(5))
    assert server.openai.batches.cancel(batch_id).status == "cancelling"
    assert server.openai.batches.cancel(batch_id).status == "cancelling"
    server.compute()
    batch = server.openai.batches.retrieve(batch_id)
    assert batch.status == "cancelled" and batch.cancelling_at and batch.cancelled_at
    errors = server.lines(batch.error_file_id)
    assert [(line["custom_id"], line["error"]["code"]) for line in errors] == [
        (f"call-{number}", "batch_cancelled") for number in range(5)
    ]
    done = server.create(calls(1))
    server.compute()
    with pytest.raises(openai.ConflictError):
        server.openai.batches.cancel(done)


def test_models_are_the_pipelines_that_take_requests(server: Served) -> None:
    assert [model.id for model in server.openai.models.list()] == [NAME]
    assert server.openai.models.retrieve(NAME).owned_by == "batch-assets"
    with pytest.raises(openai.NotFoundError):
        server.openai.models.retrieve("nobody")
