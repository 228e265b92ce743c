"""How attempts run: who gets an instance, when, and how a process's end becomes an attempt's.

    RUNNABLE → STARTING → RUNNING: virtual seconds first, then the process, in real ones

A job's timeout counts both: the virtual seconds that it ran, and its process's real ones.
"""

import hashlib
import shlex
import threading
from collections import deque
from collections.abc import Callable, Mapping

from batch_assets.rehearsal.batch.job import Attempt, BatchJob, Ending, Fate
from batch_assets.rehearsal.batch.processes import Process, Processes
from batch_assets.rehearsal.books import Books
from batch_assets.rehearsal.clock import Timeline
from batch_assets.rehearsal.faults import Scenario

EXITED = "Essential container in task exited"
TIMED_OUT = "Job attempt duration exceeded timeout"
NOT_STARTED = "Task failed to start"
NO_COMMAND = "CannotStartContainerError: the command can not be run"
OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"
KILLED = 137


class Attempts:
    """Runs what is RUNNABLE. `moved` changes a job's state, `ended` is told of each attempt's end."""

    def __init__(
        self,
        timeline: Timeline,
        scenario: Scenario,
        books: Books,
        moved: Callable[[BatchJob, str], None],
        ended: Callable[[BatchJob, Attempt], None],
        environment: Callable[[BatchJob], Mapping[str, str]],
        lock: threading.RLock,
    ) -> None:
        self.scenario = scenario
        self._timeline = timeline
        self._books = books
        self._moved = moved
        self._ended = ended
        self._environment = environment
        self._lock = lock
        self._processes = Processes(lambda: self.scenario.batch.at_once)
        self._waiting: deque[BatchJob] = deque()
        self._inside: set[BatchJob] = set()  # STARTING or RUNNING
        self._running: dict[BatchJob, Process] = {}

    def close(self) -> None:
        self._processes.close()

    @property
    def processes(self) -> int:
        return self._processes.alive

    def log(self, job: BatchJob) -> str:
        return self._processes.log(_process_name(job, max(1, len(job.attempts))))

    def queue(self, job: BatchJob) -> None:
        """RUNNABLE: an instance is looked for."""
        self._moved(job, "RUNNABLE")
        self._step(job, job.fate.runnable, "RUNNABLE", self._wait)

    def stop(self, job: BatchJob) -> None:
        """End a job that is STARTING or RUNNING."""
        with self._lock:
            process = self._running.get(job)
            if process:
                self._processes.kill(process)
            else:
                self._finish(job, Ending(None, job.terminated or ""))

    def let_in(self) -> None:
        """Start those that wait for an instance, as many as there is room for."""
        with self._lock:
            while self._waiting and len(self._inside) < self.scenario.batch.capacity:
                job = self._waiting.popleft()
                if job.status == "RUNNABLE":
                    self._inside.add(job)
                    self._moved(job, "STARTING")
                    self._step(job, job.fate.starting, "STARTING", self._begin)

    def _step(self, job: BatchJob, seconds: float, status: str, action: Callable[[BatchJob], None]) -> None:
        """Do it after virtual seconds, if the job is still in that state of that attempt."""
        attempt = len(job.attempts)

        def due() -> None:
            with self._lock:
                if job.status == status and len(job.attempts) == attempt:
                    action(job)

        self._timeline.after(seconds, due)

    def _wait(self, job: BatchJob) -> None:
        self._waiting.append(job)
        self.let_in()

    def _begin(self, job: BatchJob) -> None:
        job.started = round(self._timeline.clock.now(), 3)
        self._moved(job, "RUNNING")
        fate, timeout = job.fate, job.work.timeout
        if timeout is not None and (fate.hangs or fate.running >= timeout):
            self._step(job, timeout, "RUNNING", self._time_out)
        elif not fate.hangs:
            self._step(job, fate.running, "RUNNING", self._execute)

    def _time_out(self, job: BatchJob) -> None:
        self._finish(job, Ending(KILLED, TIMED_OUT, timed_out=True))

    def _execute(self, job: BatchJob) -> None:
        fate, timeout = job.fate, job.work.timeout
        command = shlex.join(job.work.command)
        limit = None if timeout is None else (timeout - fate.running) * self.scenario.batch.timeout_second
        process = Process(
            command=job.work.command,
            environment=self._environment(job),
            name=_process_name(job, len(job.attempts) + 1),
            done=lambda process: self._timeline.after(0, lambda: self._done(job, process, fate)),
            began=lambda: self._books.began(command, job.index),
            killed_after=fate.killed_after if fate.interrupted or fate.crashed else None,
            limit=limit,
            twice=fate.doubled,
        )
        self._running[job] = process
        self._processes.start(process)

    def _done(self, job: BatchJob, process: Process, fate: Fate) -> None:
        with self._lock:
            self._running.pop(job, None)
            if job.active:
                self._finish(job, _ending(job, process, fate))

    def _finish(self, job: BatchJob, ending: Ending) -> None:
        stopped = round(self._timeline.clock.now(), 3)
        began = job.started if job.status == "RUNNING" else None
        seconds = stopped - began if began is not None else 0.0
        self._books.ended(shlex.join(job.work.command), job.index, ending.succeeded, seconds)
        self._inside.discard(job)
        name = _process_name(job, len(job.attempts) + 1)
        self._ended(job, Attempt(began, stopped, ending, name))
        self.let_in()


def _process_name(job: BatchJob, attempt: int) -> str:
    return f"{job.id}-{attempt}"


def _ending(job: BatchJob, process: Process, fate: Fate) -> Ending:
    """What the service makes of a process's end, and of the fault that struck it."""
    if job.terminated is not None:
        return Ending(KILLED, job.terminated)
    if process.timed_out:
        return Ending(KILLED, TIMED_OUT, timed_out=True)
    if fate.interrupted:
        host = hashlib.sha256(_process_name(job, len(job.attempts)).encode()).hexdigest()[:17]
        return Ending(None, f"Host EC2 (instance i-{host}) terminated.")
    if fate.crashed:
        return Ending(KILLED, EXITED, OUT_OF_MEMORY)
    if process.unstartable:
        return Ending(None, NOT_STARTED, NO_COMMAND)
    return Ending(process.exit_code, EXITED)
