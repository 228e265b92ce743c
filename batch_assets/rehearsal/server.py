"""The rehearsal as one HTTP address: Bedrock, SageMaker's transforms, AWS Batch and Service Quotas, the rest by moto.

    with RehearsalServer(scenario=Scenario.load("stormy"), speed=1000) as server:
        os.environ["AWS_ENDPOINT_URL"] = server.endpoint

Requests go by the service that their signature names. Needs the extra `rehearsal`. Moto's
state belongs to the process: two servers in one process share buckets and queues, not jobs.
"""

import functools
import logging
import threading
from types import TracebackType
from typing import Any, Self

from batch_assets.errors import ConfigurationError
from batch_assets.rehearsal.batch import events as batch_events
from batch_assets.rehearsal.batch.calls import BatchServiceCalls
from batch_assets.rehearsal.batch.environment import container_environment
from batch_assets.rehearsal.batch.job import BatchJob
from batch_assets.rehearsal.batch.jobs import BatchJobs
from batch_assets.rehearsal.bedrock import BatchCalls
from batch_assets.rehearsal.bedrock_events import event_of
from batch_assets.rehearsal.books import Books
from batch_assets.rehearsal.clock import Clock, Timeline
from batch_assets.rehearsal.events import Change, Publisher
from batch_assets.rehearsal.faults import Scenario
from batch_assets.rehearsal.job import TERMINAL, Job
from batch_assets.rehearsal.jobs import Jobs
from batch_assets.rehearsal.on_demand import OnDemandCalls
from batch_assets.rehearsal.runner import S3Runner
from batch_assets.rehearsal.sagemaker import events as transform_events
from batch_assets.rehearsal.sagemaker.calls import TransformCalls
from batch_assets.rehearsal.sagemaker.job import TransformJob
from batch_assets.rehearsal.sagemaker.jobs import TransformJobs
from batch_assets.rehearsal.sagemaker.runner import TransformRunner
from batch_assets.rehearsal.tenants import Tenants

RUNNER_AGENT = "batch-assets-rehearsal-runner"


class RehearsalServer:
    """AWS on 127.0.0.1. Start it, or use it as a context manager; `endpoint` is for AWS_ENDPOINT_URL."""

    def __init__(self, scenario: Scenario | None = None, speed: float = 1.0) -> None:
        self.clock = Clock(speed)
        self.books = Books()
        self._scenario = scenario or Scenario()
        self._timeline = Timeline(self.clock)
        self._endpoint: str | None = None
        self._http: Any = None

    @property
    def endpoint(self) -> str:
        if self._endpoint is None:
            raise RuntimeError("the rehearsal server is not started")
        return self._endpoint

    @property
    def scenario(self) -> Scenario:
        return self._scenario

    @scenario.setter
    def scenario(self, scenario: Scenario) -> None:
        """Other faults from now on; jobs that were accepted keep their fate."""
        self._scenario = scenario
        if self._http is None:
            return
        for part in (
            self.jobs, self._publisher, self.bedrock_calls, self.on_demand, self.transforms, self.transform_calls,
            self.batch_jobs, self.batch_calls,
        ):  # fmt: skip
            part.scenario = scenario
        self.jobs.let_in()

    def start(self, port: int = 0) -> str:
        """Listen on 127.0.0.1 (port 0: any free one) and return the endpoint."""
        try:
            from batch_assets.rehearsal.application import make_http_server
        except ImportError as error:
            raise ConfigurationError(
                f"the rehearsal needs {error.name}, which is not installed: "
                'install the extra with `pip install "batch-assets[rehearsal]"`.'
            ) from error
        self._http = make_http_server(self, port)
        self._endpoint = f"http://127.0.0.1:{self._http.server_port}"
        s3 = _s3_client(self._endpoint)
        self._publisher = Publisher(self._timeline, self._scenario)
        runner = S3Runner(s3, self.books, lambda: self._scenario)
        self.jobs = Jobs(self._timeline, runner, self._scenario, self._job_changed)
        self.tenants = Tenants(self.jobs)
        self.bedrock_calls = BatchCalls(self.jobs, s3, self._scenario)
        self.on_demand = OnDemandCalls(self.books, self._scenario)
        serve = functools.partial(self._http.serve_forever, poll_interval=0.02)  # how soon `stop` is seen
        self.transforms = TransformJobs(
            self._timeline,
            TransformRunner(s3, self.books, lambda: self._scenario),
            self._scenario,
            self._transform_changed,
        )
        self.transform_calls = TransformCalls(self.transforms, self._scenario)
        self.batch_jobs = BatchJobs(
            self._timeline,
            self._scenario,
            self.books,
            self._batch_changed,
            lambda job: container_environment(job, self.endpoint),
        )
        self.batch_calls = BatchServiceCalls(self.batch_jobs, self._scenario)
        self._thread = threading.Thread(target=serve, name="rehearsal-http", daemon=True)
        self._thread.start()
        self._publisher.start()
        self._timeline.start()
        return self._endpoint

    def stop(self) -> None:
        """End all work; jobs that run are lost."""
        if self._http is None:
            return
        self._timeline.close()
        self.jobs.close()
        self.transforms.close()
        self.batch_jobs.close()
        self._publisher.close()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        self._http = None

    def catch_up(self, region: str | None = None) -> None:
        """Bring jobs to where they are at this moment, before anyone looks at them."""
        if region is not None:
            self.tenants.settle(region)
        self._timeline.catch_up()

    def set_clock(self, speed: float | None = None, advance: float = 0.0) -> None:
        """Change the clock's speed, or jump ahead by virtual seconds."""
        if speed is not None:
            self.clock.set_speed(speed)
        self.clock.advance(advance)
        self._timeline.wake()

    def _job_changed(self, job: Job) -> None:
        if not (job.foreign and self._publisher.is_behind):
            change = Change(job.name, job.status, job.status in TERMINAL, event_of(job, self.clock.now()))
            self._publisher.publish(change, self._scenario.events)
        if job.foreign and not job.active:
            self.tenants.ended(job)

    def _transform_changed(self, job: TransformJob) -> None:
        event = transform_events.event_of(job, self.clock.now())
        change = Change(f"transform {job.number}", job.status, not job.active, event)
        self._publisher.publish(change, self._scenario.events)

    def _batch_changed(self, job: BatchJob) -> None:
        event = batch_events.event_of(job, self.clock.now())
        # Each attempt's states have chances of their own.
        change = Change(job.seed_name, f"{job.status} {len(job.attempts)}", not job.active, event)
        self._publisher.publish(change, self._scenario.batch.events)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _s3_client(endpoint: str) -> Any:
    import boto3
    from botocore.config import Config

    logging.getLogger("botocore").setLevel(logging.WARNING)
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="rehearsal",
        aws_secret_access_key="rehearsal",
        config=Config(user_agent_extra=RUNNER_AGENT, max_pool_connections=20),
    )
