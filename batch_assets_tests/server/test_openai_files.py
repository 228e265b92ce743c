"""Files by OpenAI's official client: the same bytes back, lists, refusals, and who sees what."""

import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from batch_assets.requests.batches.files import FileStore
from batch_assets_tests.requests.builders import open_requests
from batch_assets_tests.server.openai_client import Served, calls, served


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as server:
        yield server


def test_a_file_comes_back_as_it_was_sent(server: Served) -> None:
    data = random.Random(1).randbytes(9_000_000) + b"\r\n--\r\n\n"
    path = server.folder / "random.JSONL"
    path.write_bytes(data)
    with path.open("rb") as file:
        made = server.openai.files.create(
            file=file, purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
        )
    assert (made.bytes, made.filename, made.status, made.purpose) == (
        len(data),
        "random.JSONL",
        "processed",
        "batch",
    )
    assert made.expires_at is not None and made.expires_at - made.created_at == 3600
    assert server.openai.files.retrieve(made.id) == made
    back = server.openai.files.content(made.id).read()
    assert hashlib.sha256(back).digest() == hashlib.sha256(data).digest()
    stored = FileStore(open_requests(server.folder)).find(made.id)
    assert stored is not None and stored.sha256 == hashlib.sha256(data).hexdigest()
    assert os.path.getsize(f"{stored.root}/{stored.path}") == len(data)


def test_what_is_no_input_of_a_batch_is_refused_and_leaves_nothing(server: Served) -> None:
    files = server.openai.files
    for name, purpose in (("calls.csv", "batch"), ("upload", "batch"), ("calls.jsonl", "fine-tune")):
        with pytest.raises(openai.BadRequestError):
            files.create(file=(name, b"{}\n"), purpose=purpose)  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match="expires_after"):
        files.create(
            file=("a.jsonl", b"{}"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 5}
        )
    status, answer = server.client.ask("POST", "/v1/files", b"{}", Content_Type="application/json")
    assert (status, answer["error"]["param"]) == (400, None)
    cut = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n{}'
    assert (
        server.client.ask("POST", "/v1/files", cut, Content_Type="multipart/form-data; boundary=x")[0] == 400
    )
    assert files.list().data == []


def test_files_are_listed_in_either_order_page_by_page(server: Served) -> None:
    made = [server.upload(calls(1), f"{number}.jsonl") for number in range(4)]
    files = server.openai.files
    assert [file.id for file in files.list(limit=2, order="asc")] == made
    assert [file.id for file in files.list(limit=3)] == made[::-1]
    assert files.list(purpose="batch_output").data == [] and len(files.list(purpose="batch").data) == 4


def test_a_deleted_file_is_gone_for_clients_and_its_batch_goes_on(server: Served) -> None:
    file_id = server.upload(calls(3))
    made = server.openai.batches.create(
        input_file_id=file_id, endpoint="/v1/embeddings", completion_window="1h"
    )
    assert server.openai.files.delete(file_id).deleted
    with pytest.raises(openai.NotFoundError):
        server.openai.files.content(file_id)
    assert server.openai.files.list().data == []
    server.compute()
    batch = server.openai.batches.retrieve(made.id)
    assert batch.status == "completed" and len(server.lines(batch.output_file_id)) == 3


def test_another_tenants_file_is_not_there(server: Served) -> None:
    file_id = server.upload(calls(1))
    bob = server.as_tenant("b" * 16)
    for ask in (bob.files.retrieve, bob.files.content, bob.files.delete):
        with pytest.raises(openai.NotFoundError):
            ask(file_id)
    with pytest.raises(openai.BadRequestError):
        bob.batches.create(input_file_id=file_id, endpoint="/v1/embeddings", completion_window="24h")
