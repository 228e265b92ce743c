"""A queue on SQS for each test, by a server on this machine."""

import functools
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batch_assets.dispatch.queues.sqs import SqsQueue
from batch_assets.requests.database import RequestsDatabase
from batch_assets_tests.dispatch.queues.sqs.steps import create, opened
from batch_assets_tests.object_store import WayToStore, s3_server, use_s3


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patched, s3_server() as address:
        one_at_a_time(patched)
        yield address


def one_at_a_time(patched: pytest.MonkeyPatch) -> None:
    """Let moto do each step as a whole, as SQS does: of two deletions at once, it may forget one."""
    from moto.sqs.models import SQSBackend

    lock = threading.Lock()

    def alone(step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def locked(*arguments: Any, **named: Any) -> Any:
            with lock:
                return step(*arguments, **named)

        return locked

    for name in (
        "receive_message", "send_message_batch", "delete_message_batch", "change_message_visibility_batch",
    ):  # fmt: skip
        patched.setattr(SQSBackend, name, alone(getattr(SQSBackend, name)))


@pytest.fixture
def database(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RequestsDatabase:
    use_s3(endpoint, monkeypatch)
    return RequestsDatabase(f"sqlite:///{tmp_path / 'requests.db'}")


@pytest.fixture
def name(database: RequestsDatabase) -> str:
    made = f"queue-{uuid.uuid4().hex[:8]}"
    create(made)
    return made


@pytest.fixture
def queue(name: str, database: RequestsDatabase) -> Iterator[SqsQueue]:
    with opened(name, database) as made:
        yield made


@pytest.fixture
def way(endpoint: str, name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[WayToStore]:
    """The way to the service, on which faults can be met."""
    with WayToStore(endpoint, lambda *_: None) as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
        yield made
