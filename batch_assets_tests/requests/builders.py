"""A pipeline of requests with a fake executor, and requests for it."""

from pathlib import Path
from typing import Any

from batch_assets.control.batch_ending import BatchEnding
from batch_assets.control.batch_taking import take_batches
from batch_assets.control.collection import collect_shards
from batch_assets.control.pipeline import Pipeline, open_pipeline
from batch_assets.control.request_planning import plan_requests, recover_windows, request_source
from batch_assets.control.request_worker import collectable_now, prepare_planned
from batch_assets.requests.bodies import BodyRules, digest_of
from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.store import NewRequest, RequestStore, new_id
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline, with_windows
from batch_assets.sources.base import Fault
from batch_assets_tests.control.builders import open_ledger
from batch_assets_tests.fakes import FakeHost

NAME = "asks"


def make_settings(folder: Path, requests: dict[str, Any] | None = None, **fields: Any) -> PipelineSettings:
    """Windows of three requests, or of all that waits at once."""
    values = {
        "source": {"requests": {"seal_records": 3, "seal_seconds": 0, **(requests or {})}},
        "output": {"root": f"{folder}/out"},
        **fields,
    }
    return with_windows(parse_pipeline(values, NAME, "a test"))


def open_requests(folder: Path, name: str = "requests") -> RequestsDatabase:
    return RequestsDatabase(f"sqlite:///{folder}/{name}.db")


def make_request(
    text: str, settings: PipelineSettings, tenant: str = "operator", key: str | None = None
) -> NewRequest:
    body = text.encode()
    line = BodyRules(settings).read(body, "text/plain")
    assert not isinstance(line, Fault), line
    return NewRequest(new_id(), settings.name, tenant, line, digest_of(body, "text/plain"), key)


def send(
    database: RequestsDatabase, settings: PipelineSettings, *texts: str, tenant: str = "operator"
) -> list[str]:
    """Have texts accepted; their ids."""
    made = RequestStore(database).accept([make_request(text, settings, tenant) for text in texts])
    return [one.id for one in made]


def open_asks(
    folder: Path, settings: PipelineSettings, host: FakeHost | None = None, ledger: str = "ledger"
) -> Pipeline:
    return open_pipeline(settings, open_ledger(folder, ledger), (host or FakeHost()).executor(settings))


def compute_batches(
    pipeline: Pipeline, database: RequestsDatabase, ending: BatchEnding | None = None
) -> None:
    """Take, compute and end what batches there are, as the worker does."""
    while take_batches(pipeline, database):
        pass
    compute(pipeline, database)
    (ending or BatchEnding(pipeline, database)).end_batches()


def compute(pipeline: Pipeline, database: RequestsDatabase) -> list[str]:
    """Seal, plan and compute whatever there is, as the worker does; the keys of the new shards."""
    source = request_source(pipeline.settings, pipeline.storage, database)
    recover_windows(pipeline, source)
    new = plan_requests(pipeline, source)
    prepare_planned(pipeline)
    list(collect_shards(pipeline, collectable_now(pipeline)))
    return new
