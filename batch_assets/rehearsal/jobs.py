"""The life of batch inference jobs: which state follows which, when, and who waits for a slot.

    Submitted → Validating → Scheduled → InProgress → Completed | PartiallyCompleted | Failed
    a job that never began: → Expired; one that is stopped: → Stopping → Stopped

Reading and writing S3 is `runner.py`, the calls are `bedrock.py`.
"""

import functools
import secrets
import string
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from batch_assets.plain_text import plain_logger
from batch_assets.rehearsal.account import ACCOUNT
from batch_assets.rehearsal.clock import Timeline
from batch_assets.rehearsal.faults import Scenario
from batch_assets.rehearsal.job import TERMINAL, Counts, Fate, Job, JobInvalid, Results
from batch_assets.rehearsal.models import base_model

logger = plain_logger(__name__)

WORKERS = 2
# For a job that waits in this state: the states of those that take up room before it.
INSIDE = {
    "Submitted": ("Validating", "Scheduled", "InProgress", "Stopping"),
    "Scheduled": ("InProgress", "Stopping"),
}


class Runner(Protocol):
    """What reads a job's input and writes its results."""

    def check(self, job: Job) -> int:
        """The records of the input; raises JobInvalid."""
        ...

    def produce(self, job: Job, share: float) -> "Results":
        """Compute that share of the records, and bill them."""
        ...


class Jobs:
    """All jobs of the account. `changed` is called after every change of a job's state."""

    def __init__(
        self, timeline: Timeline, runner: Runner, scenario: Scenario, changed: Callable[[Job], None]
    ) -> None:
        self.timeline = timeline
        self.runner = runner
        self.scenario = scenario
        self.lock = threading.RLock()
        self.by_id: dict[str, Job] = {}
        self._waiting: list[tuple[Job, Callable[[Job], None]]] = []
        self._changed = changed
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="rehearsal-job")

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    @property
    def now(self) -> float:
        return self.timeline.clock.now()

    def all(self) -> list[Job]:
        """Every job, in the order of their creation."""
        with self.lock:
            return list(self.by_id.values())

    def is_full(self, region: str, model_id: str) -> bool:
        """Whether the quota has no slot left for another job of the model."""
        return self._taken(region, base_model(model_id), self.scenario.quotas.counted)

    def _taken(self, region: str, model: str, statuses: Collection[str]) -> bool:
        with self.lock:
            holders = sum(
                job.status in statuses and job.region == region and job.model == model
                for job in self.by_id.values()
            )
        return holders >= self.scenario.quotas.concurrent_jobs

    def accept(self, region: str, request: Mapping[str, Any], foreign: bool = False) -> Job:
        """A new job, Submitted; all of its life is on the timeline from here on."""
        identity = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(12))
        now = round(self.now, 3)  # as exact as replies tell it
        hours = request.get("timeoutDurationInHours") or 24
        job = Job(
            id=identity,
            arn=f"arn:aws:bedrock:{region}:{ACCOUNT}:model-invocation-job/{identity}",
            region=region,
            request=request,
            fate=Fate.draw(self.scenario, request["jobName"]),
            submitted=now,
            modified=now,
            expires=now + hours * self.scenario.timing.hour,
            foreign=foreign,
        )
        with self.lock:
            self.by_id[identity] = job
        self._changed(job)
        self._after(job.fate.submitted, self._validate, job)
        self.timeline.at(job.expires, lambda: self._expire(job))
        return job

    def stop(self, job: Job) -> bool:
        """Begin to stop the job; False if its state does not allow it any more."""
        with self.lock:
            if job.status == "InProgress" and job.fate.stop_race and not job.finishing:
                job.finishing = True
                self._produce(job, 1.0, "Completed")
            if not job.active or job.status == "Stopping":
                return False
            self._move(job, "Stopping")
            self._after(job.fate.stopping, self._stopped, job)
            return True

    def _after(self, seconds: float, step: Callable[[Job], None], job: Job) -> None:
        self.timeline.after(seconds, lambda: step(job))

    def _move(self, job: Job, status: str, message: str | None = None) -> None:
        with self.lock:
            job.status, job.modified = status, self.now
            job.message = message[:2048] if message else None
            if status in TERMINAL:
                job.ended = job.modified
                job.finishing = False
        self._changed(job)
        if status in TERMINAL:
            self.let_in()

    # Waiting for a slot, where the quota lets jobs in and keeps them waiting.

    def _enter(self, job: Job, status: str, then: Callable[[Job], None]) -> None:
        """Go on with a job of this status now, or as soon as a slot is free if that is where jobs wait."""
        with self.lock:
            if job.status != status:
                return
            waits = self.scenario.quotas.when_full == f"wait_{status.lower()}"
            if waits and self._taken(job.region, job.model, INSIDE[status]):
                self._waiting.append((job, then))
                return
            then(job)

    def let_in(self) -> None:
        """Let waiting jobs in, as many as there is room for."""
        with self.lock:
            waiting, self._waiting = self._waiting, []
            for job, then in waiting:
                self._enter(job, job.status, then)

    # The steps, each due at its moment; a job that has moved otherwise meanwhile is left alone.

    def _validate(self, job: Job) -> None:
        self._enter(job, "Submitted", self._begin_validation)

    def _begin_validation(self, job: Job) -> None:
        self._move(job, "Validating")
        due = self.now + job.fate.validating
        if job.foreign:
            self.timeline.at(due, lambda: self._validated(job, None))
        else:
            self._pool.submit(self._check, job, due)

    def _check(self, job: Job, due: float) -> None:
        problem: str | None = None
        try:
            job.counts = Counts(total=self.runner.check(job))
            if job.fate.fail_validation:
                problem = "Internal error while validating the input. Please retry the batch job."
        except JobInvalid as error:
            problem = str(error)
        except Exception as error:
            logger.exception("the input of job %s could not be checked", job.name)
            problem = f"Internal error: {error}"
        self.timeline.at(due, lambda: self._validated(job, problem))

    def _validated(self, job: Job, problem: str | None) -> None:
        with self.lock:
            if job.status != "Validating":
                return
            if problem:
                self._move(job, "Failed", problem)
                return
            self._move(job, "Scheduled")
        if not job.fate.expire:
            self._after(job.fate.scheduled, self._schedule, job)

    def _schedule(self, job: Job) -> None:
        self._enter(job, "Scheduled", self._begin)

    def _begin(self, job: Job) -> None:
        job.began = self.now
        self._move(job, "InProgress")
        share = 1.0 if job.fate.partial is None else job.fate.partial
        self._after(job.fate.running * share, self._run_out, job)

    def _run_out(self, job: Job) -> None:
        with self.lock:
            if job.status != "InProgress" or job.finishing:
                return
            if job.fate.fail_running:
                self._move(
                    job, "Failed", "The system encountered an unexpected error during processing. Try again."
                )
            elif job.fate.partial is not None:
                self._finish(job, job.fate.partial, "PartiallyCompleted")
            else:
                self._finish(job, 1.0, "Completed")

    def _expire(self, job: Job) -> None:
        with self.lock:
            if job.status in ("Submitted", "Validating", "Scheduled"):
                self._move(job, "Expired", "The job did not begin before its timeout.")
            elif job.status == "InProgress" and not job.finishing:
                self._finish(job, self._share_done(job), "PartiallyCompleted")

    def _stopped(self, job: Job) -> None:
        with self.lock:
            if job.status != "Stopping" or job.finishing:
                return
            if job.began is None:
                self._move(job, "Stopped")
            else:
                self._finish(job, self._share_done(job), "Stopped")

    def _share_done(self, job: Job) -> float:
        began = self.now if job.began is None else job.began
        return min(1.0, (self.now - began) / max(job.fate.running, 1e-9))

    def _finish(self, job: Job, share: float, status: str) -> None:
        job.finishing = True
        if job.foreign:
            self._move(job, status)
        else:
            self._pool.submit(self._produce, job, share, status)

    def _produce(self, job: Job, share: float, status: str) -> None:
        try:
            results = self.runner.produce(job, share)
            job.counts = results.counts
            for delay, upload in results.uploads:
                if delay == 0:
                    upload()
                else:
                    self.timeline.after(delay, functools.partial(self._pool.submit, upload))
        except Exception as error:
            logger.exception("the results of job %s could not be written", job.name)
            self._move(job, "Failed", f"Internal error: {error}")
        else:
            self._move(job, status)
