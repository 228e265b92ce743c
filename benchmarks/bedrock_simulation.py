"""Backfills by simulated time: our control loop, and its peer, a function that a timer calls once a minute.

Ours is everything above boto3 as it is deployed, ledger, control loop and executor, called as the
`job_completion` sensor calls them. Only files are left out: jobs have no requests, and those that
have ended are not collected.
"""

import math
import os
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from batch_assets import paths
from batch_assets.control.loop import take_turn
from batch_assets.control.pipeline import Pipeline, known_pipeline, open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.control.reconciler import CALM
from batch_assets.control.uploading import enqueue
from batch_assets.executors.jobs import JobDescription, RequestFile, write_description
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline
from benchmarks.bedrock_service import MODEL, START, SimulatedAccount, SimulatedBedrock

TICK_SECONDS = 5.0  # the sensor's shortest interval
POLL_SECONDS = 30.0
PAGE = 1000

TIMER_SECONDS, PAUSE_SECONDS, FUNCTION_SECONDS = 60.0, 10.0, 300.0


@dataclass
class Backfill:
    """A simulated backfill that is done. `turns` are the real seconds of each turn of the control loop."""

    service: SimulatedBedrock
    turns: list[float] = field(default_factory=list)

    @property
    def busy(self) -> float:
        """Share of all slots' time that jobs took, until the queue was empty."""
        jobs = self.service.jobs.values()
        until = max(job.created for job in jobs)
        taken = sum(min(job.ended, until) - job.created for job in jobs)
        return taken / ((until - START) * self.service.quota)

    @property
    def makespan(self) -> float:
        """Seconds until the last job has ended."""
        return max(job.ended for job in self.service.jobs.values()) - START

    @property
    def calls_per_job(self) -> float:
        return sum(self.service.calls.values()) / len(self.service.jobs)

    @property
    def turn_milliseconds(self) -> float:
        return statistics.median(self.turns) * 1000


@mock.patch.dict(os.environ, AWS_SKIP_SIGNATURE="true")  # the staging bucket is named and never asked
def by_control_loop(service: SimulatedBedrock, folder: Path, shards: int, *, events: bool) -> Backfill:
    """Queue so many shards, and take turns until the last job is known to have ended."""
    settings = settings_of(folder, service.quota, events=events)
    (folder / "in.jsonl").write_text("".join(f'{{"text": "{number}"}}\n' for number in range(shards)))
    ledger = Ledger.open(f"sqlite:///{folder / 'ledger.db'}", clock=lambda: service.now)
    account = SimulatedAccount(service=service)
    queue_all(open_pipeline(settings, ledger, account.executor(settings)))
    done, ended, scope = Backfill(service), 0, account.executor(settings).quota_group
    while ended < shards:
        tick = service.now
        started = time.perf_counter()
        pipeline = known_pipeline(settings, ledger, account.executor(settings))
        assert pipeline is not None
        turn = take_turn([pipeline])
        done.turns.append(time.perf_counter() - started)
        assert not [*turn.problems, *turn.refused.values()], turn
        # A job that the control loop gives back is never queued again here, and would be waited for for ever.
        assert not ledger.counts(pipeline.name)[State.PREPARED], "a job was given back, to be prepared again"
        ended += len(turn.ended)
        # Ticks at which nothing can be done are passed over: no message, no poll due, no pause over.
        seen = ledger.scope(scope)
        due = (seen.observed_at or 0.0) + POLL_SECONDS * (CALM if events else 1.0)
        moment = min(due, service.next_message() if events else math.inf)
        if seen.paused_until > service.now:
            moment = min(moment, seen.paused_until)
        if turn.started or turn.ended:
            moment = 0.0
        moment = max(moment, service.now, tick + TICK_SECONDS)
        service.now = tick + TICK_SECONDS * math.ceil((moment - tick) / TICK_SECONDS)
    ledger.dispose()
    return done


def settings_of(folder: Path, jobs: int, *, events: bool) -> PipelineSettings:
    executor = {
        "type": "bedrock",
        "region": "us-east-1",
        "role_arn": "arn:aws:iam::123456789012:role/batch",
        "model_id": MODEL,
        "staging": "s3://bucket/staging/",
        "poll_seconds": POLL_SECONDS,
        "max_jobs": jobs,
        "min_records": 1,
    }
    if events:
        executor["queue_url"] = "https://sqs.us-east-1.amazonaws.com/123456789012/jobs"
    values = {
        "source": {"uri": str(folder / "in.jsonl")},
        "executor": executor,
        "shards": {"records": 1},
        "output": {"root": str(folder / "out")},
    }
    return parse_pipeline(values, "simulated", "the benchmark")


def queue_all(pipeline: Pipeline) -> None:
    """Plan every shard and queue a job for it, of 50,000 records in a file that nobody has written."""
    ledger, name = pipeline.ledger, pipeline.name
    keys = plan_source(pipeline).all_keys
    ledger.move(name, keys, {State.PLANNED}, State.PREPARED)
    for key in keys:
        claim = ledger.claim_preparation(name, key, pipeline.holder)
        assert claim is not None
        file = RequestFile(f"{paths.job_folder(key, claim.fence)}/requests/0.jsonl", 50_000, 10**8, key)
        description = JobDescription(
            pipeline=name, shard=key, fence=claim.fence, attempt=1, kind="batch", fingerprint=pipeline.fingerprint,
            digest=key, staging="", files=(file,), records=file.records, bytes=file.bytes, bound_usd=0.2,
            ordinals=((0, 0),),
        )  # fmt: skip
        write_description(pipeline.storage, description)
        assert enqueue(pipeline, claim, description)


def by_timer(service: SimulatedBedrock, shards: int) -> Backfill:
    """The peer: once a minute, list all own jobs, count, submit into what was free then, 10 s after each create.

    In its favour: runs never overlap (it has no claims: two at once submit the same shard twice),
    none is lost where the function's five minutes are over, and every end is told by one get.
    """
    waiting = shards
    while waiting:
        tick = service.now
        active, call = 0, {"maxResults": PAGE}
        while True:
            answer = service.list_model_invocation_jobs(**call)
            active += sum(job["status"] != "Completed" for job in answer["invocationJobSummaries"])
            if "nextToken" not in answer:
                break
            call["nextToken"] = answer["nextToken"]
        for _ in range(min(service.quota - active, waiting)):
            if service.now - tick + PAUSE_SECONDS > FUNCTION_SECONDS:
                break
            service.create_model_invocation_job(jobName="job", clientRequestToken=f"token-{waiting}")
            service.now += PAUSE_SECONDS
            waiting -= 1
        service.now = tick + TIMER_SECONDS * math.ceil((service.now - tick) / TIMER_SECONDS)
    service.calls["get"] += shards
    return Backfill(service)
