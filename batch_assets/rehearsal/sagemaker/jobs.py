"""The life of transform jobs. There is no queue: a job is InProgress at once, or refused.

    InProgress → Completed | Failed; one that is stopped: → Stopping → Stopped

Reading and writing S3 is `runner.py`, the calls are `calls.py`.
"""

import functools
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from batch_assets.plain_text import plain_logger
from batch_assets.rehearsal.account import ACCOUNT
from batch_assets.rehearsal.clock import Timeline
from batch_assets.rehearsal.faults import Scenario
from batch_assets.rehearsal.sagemaker.job import FAILED, NO_CAPACITY, Fate, TransformJob

logger = plain_logger(__name__)

WORKERS = 2


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a job has made: its files, each so many virtual seconds after its end, and why it failed, if it did."""

    uploads: Sequence[tuple[float, Callable[[], object]]]
    reason: str | None


class Runner(Protocol):
    """What reads a job's objects, computes them, and bills."""

    def produce(self, job: TransformJob) -> Outputs: ...

    def ended(self, job: TransformJob) -> None:
        """The job has ended: bill its instances."""
        ...


class TransformJobs:
    """All transform jobs of the account. `changed` is called after every change of a job's state."""

    def __init__(
        self, timeline: Timeline, runner: Runner, scenario: Scenario, changed: Callable[[TransformJob], None]
    ) -> None:
        self.timeline = timeline
        self.scenario = scenario
        self.lock = threading.RLock()
        self.by_name: dict[tuple[str, str], TransformJob] = {}
        self._runner = runner
        self._changed = changed
        self._numbers = itertools.count()
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="rehearsal-transform")

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    @property
    def now(self) -> float:
        return round(self.timeline.clock.now(), 3)  # as exact as replies tell it

    def all(self) -> list[TransformJob]:
        """Every job, in the order of their creation."""
        with self.lock:
            return list(self.by_name.values())

    def instances_in_use(self, region: str, instance_type: str) -> int:
        """Instances of the type that jobs have now, ours and others'."""
        with self.lock:
            ours = sum(
                job.instances
                for job in self.by_name.values()
                if job.active and job.region == region and job.instance_type == instance_type
            )
        return ours + self.scenario.transform.in_use.get(instance_type, 0)

    def accept(self, region: str, request: Mapping[str, Any]) -> TransformJob:
        """A new job; all of its life is on the timeline from here on."""
        name, now, number = request["TransformJobName"], self.now, next(self._numbers)
        job = TransformJob(
            arn=f"arn:aws:sagemaker:{region}:{ACCOUNT}:transform-job/{name}",
            region=region,
            number=number,
            request=request,
            fate=Fate.draw(self.scenario, number),
            created=now,
            modified=now,
        )
        with self.lock:
            self.by_name[region, name] = job
        self._changed(job)
        self.timeline.after(job.fate.starting, lambda: self._start(job))
        return job

    def stop(self, job: TransformJob) -> bool:
        """Begin to stop the job; False if it has ended."""
        with self.lock:
            if job.status == "InProgress" and job.fate.stop_race and job.started and not job.finishing:
                job.finishing = True
                self._pool.submit(self._produce, job)
            elif job.status == "InProgress" and not job.finishing:
                self._move(job, "Stopping")
                self.timeline.after(job.fate.stopping, lambda: self._stopped(job))
            return job.active

    def _move(self, job: TransformJob, status: str, reason: str | None = None) -> None:
        with self.lock:
            job.status, job.reason, job.modified = status, reason, self.now
            if not job.active:
                job.ended, job.finishing = job.modified, False
                self._runner.ended(job)
        self._changed(job)

    # The steps, each due at its moment; a job that has moved otherwise meanwhile is left alone.

    def _start(self, job: TransformJob) -> None:
        with self.lock:
            if job.status != "InProgress":
                return
            if job.fate.no_capacity:
                self._move(job, "Failed", NO_CAPACITY)
                return
            job.started = job.modified = self.now
        self.timeline.after(job.fate.running, lambda: self._run_out(job))

    def _run_out(self, job: TransformJob) -> None:
        with self.lock:
            if job.status != "InProgress" or job.finishing:
                return
            if job.fate.fail:
                self._move(job, "Failed", FAILED)
                return
            job.finishing = True
        self._pool.submit(self._produce, job)

    def _stopped(self, job: TransformJob) -> None:
        self._move(job, "Stopped")

    def _produce(self, job: TransformJob) -> None:
        try:
            outputs = self._runner.produce(job)
            for delay, upload in outputs.uploads:
                if delay == 0:
                    upload()
                else:
                    self.timeline.after(delay, functools.partial(self._pool.submit, upload))
        except Exception as error:
            logger.exception("the outputs of transform job %s could not be written", job.name)
            self._move(job, "Failed", f"InternalServerError: {error}"[:1024])
        else:
            self._move(job, "Failed" if outputs.reason else "Completed", outputs.reason)
