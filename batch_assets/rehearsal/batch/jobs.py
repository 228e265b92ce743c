"""The life of AWS Batch's jobs: which state follows which, when, and whose process runs.

    SUBMITTED → PENDING (waits for others) → RUNNABLE → STARTING → RUNNING → SUCCEEDED | FAILED
    a failed attempt with attempts left: → RUNNABLE; an array: SUBMITTED → PENDING → SUCCEEDED | FAILED

An array has failed if a child of it has, once all have ended. Processes are `processes.py`,
how attempts run `attempts.py`.
"""

import itertools
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from batch_assets.rehearsal.batch.attempts import Attempts
from batch_assets.rehearsal.batch.definitions import Definition
from batch_assets.rehearsal.batch.job import ENDS, Attempt, BatchJob, Ending, Fate, Work, seed_name
from batch_assets.rehearsal.batch.retrying import is_retried
from batch_assets.rehearsal.books import Books
from batch_assets.rehearsal.clock import Timeline
from batch_assets.rehearsal.faults import Scenario

NOT_BEGUN = ("SUBMITTED", "PENDING", "RUNNABLE")
DEPENDENCY_FAILED = "Dependent Job failed"
CHILD_FAILED = "Array Child Job failed"


class BatchJobs:
    """All jobs of the account. `changed` is called after every change of a job's state, a child's too."""

    def __init__(
        self,
        timeline: Timeline,
        scenario: Scenario,
        books: Books,
        changed: Callable[[BatchJob], None],
        environment: Callable[[BatchJob], Mapping[str, str]],
    ) -> None:
        self.timeline = timeline
        self.lock = threading.RLock()
        self.by_id: dict[str, BatchJob] = {}
        self._scenario = scenario
        self._changed = changed
        self._attempts = Attempts(timeline, scenario, books, self._move, self._ended, environment, self.lock)
        self._order = itertools.count()
        self._numbers = itertools.count()
        self._dependents: defaultdict[str, list[BatchJob]] = defaultdict(list)

    @property
    def scenario(self) -> Scenario:
        return self._scenario

    @scenario.setter
    def scenario(self, scenario: Scenario) -> None:
        self._scenario = self._attempts.scenario = scenario
        self._attempts.let_in()

    def close(self) -> None:
        self._attempts.close()

    @property
    def now(self) -> float:
        return round(self.timeline.clock.now(), 3)

    def all(self) -> list[BatchJob]:
        """Every plain job and array, in the order of their creation; not the children."""
        with self.lock:
            return [job for job in self.by_id.values() if job.parent is None]

    def find(self, identity: str) -> BatchJob | None:
        """A job or child that the service has not forgotten."""
        job = self.by_id.get(identity)
        return job if job is not None and self.is_kept(job) else None

    def is_kept(self, job: BatchJob) -> bool:
        whole = job.parent or job
        return whole.stopped is None or self.now < whole.stopped + self._scenario.batch.kept_seconds

    @property
    def processes(self) -> int:
        """Processes that run at this moment."""
        return self._attempts.processes

    def log(self, job: BatchJob) -> str:
        """The end of what its last attempt has said."""
        return self._attempts.log(job)

    def submit(self, region: str, request: Mapping[str, Any], definition: Definition, work: Work) -> BatchJob:
        """A new job or array; all of its life is on the timeline from here on."""
        with self.lock:
            number, now = next(self._numbers), self.now

            def make(identity: str, index: int | None, parent: BatchJob | None) -> BatchJob:
                fate = Fate.draw(self._scenario, seed_name(number, index), 1)
                order = next(self._order)
                job = BatchJob(
                    identity, region, order, number, request, definition, work, now, fate, index, parent
                )
                self.by_id[identity] = job
                return job

            job = make(str(uuid.uuid4()), None, None)
            size = request.get("arrayProperties", {}).get("size", 0)
            job.children = [make(f"{job.id}:{index}", index, job) for index in range(size)]
            job.states["SUBMITTED"] = size
            for leaf in job.children or [job]:
                leaf.awaited = list(self._awaited(leaf))
            if size:
                self.timeline.after(job.fate.submitted, lambda: self._open(job))
            else:
                self._after(job.fate.submitted, self._ready, job)
        return job

    def _awaited(self, leaf: BatchJob) -> Iterator[BatchJob]:
        """What a job or child waits for; jobs that are not known any more count as done."""
        for dependency in leaf.request.get("dependsOn", []):
            kind = dependency.get("type")
            if kind == "SEQUENTIAL":
                if leaf.parent and leaf.index:
                    yield leaf.parent.children[leaf.index - 1]
                continue
            other = self.by_id.get(dependency["jobId"])
            if other is None:
                continue
            same = kind == "N_TO_N" and leaf.index is not None and leaf.index < len(other.children)
            yield other.children[leaf.index] if same and leaf.index is not None else other

    def terminate(self, job: BatchJob, reason: str) -> None:
        """End a job, or all of an array's children, wherever they are."""
        with self.lock:
            if job.children and job.active:
                job.terminated = job.terminated or reason
            for leaf in job.children or [job]:
                if leaf.active and leaf.terminated is None:
                    leaf.terminated = reason
                    if leaf.status in NOT_BEGUN:
                        self._end(leaf, "FAILED", reason)
                    else:
                        self._attempts.stop(leaf)

    def cancel(self, job: BatchJob, reason: str) -> None:
        """End what has not reached STARTING; the rest goes on."""
        with self.lock:
            job.cancelled = job.cancelled or (bool(job.children) and job.active)
            for leaf in job.children or [job]:
                if leaf.status in NOT_BEGUN:
                    leaf.cancelled = True
                    self._end(leaf, "FAILED", reason)

    def _after(self, seconds: float, step: Callable[[BatchJob], None], job: BatchJob) -> None:
        self.timeline.after(seconds, lambda: step(job))

    def _move(self, job: BatchJob, status: str) -> None:
        with self.lock:
            if job.parent:
                job.parent.states[job.status] -= 1
                job.parent.states[status] += 1
            job.status = status
        self._changed(job)

    # The steps, each due at its moment; a job that has moved otherwise meanwhile is left alone.

    def _open(self, array: BatchJob) -> None:
        with self.lock:
            if array.active:
                self._move(array, "PENDING")
            for child in array.children:
                self._ready(child)

    def _ready(self, job: BatchJob) -> None:
        """Go on if all that it waits for has succeeded."""
        with self.lock:
            if job.status not in ("SUBMITTED", "PENDING"):
                return
            if any(other.status == "FAILED" for other in job.awaited):
                self._end(job, "FAILED", DEPENDENCY_FAILED)
            elif all(other.status == "SUCCEEDED" for other in job.awaited):
                self._attempts.queue(job)
            elif job.status == "SUBMITTED":
                for other in job.awaited:
                    self._dependents[other.id].append(job)
                self._move(job, "PENDING")

    def _ended(self, job: BatchJob, attempt: Attempt) -> None:
        """An attempt has ended: the job has too, or is tried again."""
        with self.lock:
            job.attempts.append(attempt)
            ending: Ending = attempt.ending
            made, work = len(job.attempts), job.work
            job.stopped = attempt.stopped
            if job.terminated is not None:
                self._end(job, "FAILED", job.terminated)
            elif ending.succeeded:
                self._end(job, "SUCCEEDED", ending.status_reason)
            elif is_retried(ending, made, work.attempts, work.rules):
                job.reason, job.stopped = ending.status_reason, None
                job.fate = Fate.draw(self._scenario, job.seed_name, made + 1)
                self._attempts.queue(job)
            else:
                self._end(job, "FAILED", ending.status_reason)

    def _end(self, job: BatchJob, status: str, reason: str | None) -> None:
        if not job.active:
            return
        job.reason, job.stopped = reason, job.stopped or self.now
        self._move(job, status)
        array = job.parent
        if array and array.active and sum(array.states[end] for end in ENDS) == len(array.children):
            failed = array.states["FAILED"] > 0
            reason = (array.terminated or CHILD_FAILED) if failed else None
            self._end(array, "FAILED" if failed else "SUCCEEDED", reason)
        for dependent in self._dependents.pop(job.id, []):
            self._ready(dependent)
