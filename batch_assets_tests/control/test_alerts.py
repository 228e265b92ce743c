"""What is told of an array: once, and of its failed children alone."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from batch_assets.control.alerts import alerts_of
from batch_assets.control.loop import Turn
from batch_assets.control.pipeline import Pipeline
from batch_assets.executors.base import Executor
from batch_assets.ledger.holder import Holder
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import SubmissionRules
from batch_assets.ledger.states import State, SubmissionState
from batch_assets.storage import open_storage
from batch_assets_tests.ledger.helpers import KEYS, queue, take
from batch_assets_tests.orchestration.deployments import make_settings


def test_an_arrays_failed_children_are_one_notification(tmp_path: Path) -> None:
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    ledger.attach("texts", str(tmp_path / "out"), 1)
    ledger.add_shards("texts", 1, [(key, number, 100, 100) for number, key in enumerate(KEYS)])
    batch: Any = {"type": "aws_batch", "job_queue": "q", "job_definition": "d", "region": "us-east-1"}
    settings = make_settings(tmp_path, executor=batch)
    executor = cast("Executor", SimpleNamespace(in_place=True))
    pipeline = Pipeline(settings, open_storage(str(tmp_path / "out")), ledger, executor, Holder.current())
    fences = {claim.shard: claim.fence for claim in queue(ledger, KEYS)}
    array = take(ledger, {"texts": SubmissionRules(together=10)})
    assert len(array.jobs) == len(KEYS)
    assert ledger.submitted(array.token, "arn:array")
    ended = {KEYS[0]: State.SUCCEEDED, KEYS[1]: State.FAILED, KEYS[3]: State.FAILED}
    ledger.observe_jobs(array.token, {(key, fences[key]): state for key, state in ended.items()})
    assert list(alerts_of(pipeline, Turn())) == [], "the others go on"
    ledger.observe_jobs(array.token, {(key, fences[key]): State.SUCCEEDED for key in (KEYS[2], KEYS[4])})
    ledger.observe(array.token, SubmissionState.FAILED, "Host EC2 terminated", ledger.now())
    [told] = alerts_of(pipeline, Turn())
    assert told.title == "texts: a job of 2 shards failed"
    assert told.happened == f"Job {array.name} ({KEYS[1]} {KEYS[3]}): Host EC2 terminated"
    assert ledger.notice_once(told.key)
    assert list(alerts_of(pipeline, Turn())) == [], "looked up no more"
    ledger.dispose()
