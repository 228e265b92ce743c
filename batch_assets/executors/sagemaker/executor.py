"""The executor `sagemaker`: a shard's records as the objects of a batch transform job, its results fetched afterwards.

What a line and an answer look like is in `requests.py` and `answers.py`; which job is submitted
when, and what follows from its end, in `control/`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.job_rows import JobRows
from batch_assets.executors.aws.account import AwsAccount
from batch_assets.executors.aws.batch_service import BatchServiceAtAws
from batch_assets.executors.aws.errors import error_message
from batch_assets.executors.aws.settling import begin
from batch_assets.executors.base import Limits
from batch_assets.executors.jobs import JobDescription
from batch_assets.executors.sagemaker.checking import check_settings
from batch_assets.executors.sagemaker.fetching import OBJECT_FAILED, fetch_results
from batch_assets.executors.sagemaker.pipeline import SageMakerPipeline
from batch_assets.executors.sagemaker.places import places
from batch_assets.executors.sagemaker.quotas import DEFAULT_JOBS, read_instances
from batch_assets.executors.sagemaker.rendering import render_job
from batch_assets.executors.sagemaker.service import SageMakerService, asked, job_request
from batch_assets.executors.sagemaker.service_errors import is_not_found
from batch_assets.executors.service_jobs import Order, Pace, ServiceJob
from batch_assets.plain_text import plain_logger
from batch_assets.sharding.plan import Shard

logger = plain_logger(__name__)


@dataclass
class SageMakerExecutor(SageMakerPipeline, BatchServiceAtAws):
    """One pipeline's transform jobs. See `base.Executor` and `service_jobs.BatchService`."""

    account: AwsAccount
    kind: str = "sagemaker"
    narrowing: str = OBJECT_FAILED
    taken = "SageMaker has a transform job {job.name}, and it was asked for something else"

    @cached_property
    def service(self) -> SageMakerService:
        return SageMakerService(*self.clients("sagemaker"), self.options, self.region)

    @property
    def limits(self) -> Limits:
        return Limits(jobs=self.slots())

    @property
    def quota_group(self) -> str:
        return f"sagemaker/{self.region}/{self.options.instance_type}"

    def slots(self) -> int:
        """By YAML, else as many as the quota of instances allows; at least one, so that a refusal is heard."""
        if self.options.max_jobs is not None:
            return self.options.max_jobs
        instance_type, region = self.options.instance_type, self.region
        instances = self.account.remembered(
            ("sagemaker", instance_type, region),
            lambda: read_instances(self.account.client("service-quotas", region), instance_type),
        )
        return DEFAULT_JOBS if instances is None else max(instances // self.options.instance_count, 1)

    def check(self) -> None:
        """Look at everything that costs nothing: the settings, the staging bucket, the model."""
        check_settings(self.settings, self.task)
        self.check_staging()
        self.check_bucket()
        name = self.options.model_name
        try:
            self.account.client("sagemaker", self.region).describe_model(ModelName=name)
        except Exception as error:
            # Who may start jobs may not always look at models, and the first job will tell.
            level = logging.WARNING if is_not_found(error) else logging.DEBUG
            logger.log(level, "executor.model_name %s in %s: %s", name, self.region, error_message(error))

    # --- preparing ---

    def render(self, shard: Shard, order: Order) -> JobDescription:
        return render_job(self, shard, order)

    # --- the service ---

    def _start(self, jobs: Sequence[JobDescription], token: str, name: str) -> str:
        [job] = jobs
        return self.service.create(name, *places(job))

    def is_ours(self, job: ServiceJob, jobs: Sequence[JobDescription]) -> bool:
        [description] = jobs
        told = self.whole(job)
        if told is None or told.asked is None:
            return False
        ours = asked(job_request(self.options, job.name, *places(description)))
        if description.fingerprint != self.fingerprint():
            # Prepared for another model than now: its results are not used, and nobody else reads these requests.
            ours |= {name: told.asked[name] for name in ("ModelName", "Environment")}
        return told.asked == ours

    # --- results ---

    def fetch(
        self,
        job: JobDescription,
        service_job: ServiceJob | None,
        rows: JobRows,
        facts: JobFacts,
        *,
        final: bool,
    ) -> None:
        facts.model, facts.dtype = self.options.model_name, "float32"
        facts.device = f"{self.options.instance_type} {self.region}"
        fetch_results(self, job, service_job, rows, facts, final=final)
        facts.dimensions = self.dimensions(rows)

    def answer(self, job: JobDescription, rows: JobRows, facts: JobFacts, pace: Pace) -> None:
        """A job of which no record could be sent: each has its reason."""
        facts.model = self.options.model_name
        begin(job, rows)
        facts.dimensions = self.dimensions(rows)

    def cost(self, input_tokens: int, output_tokens: int, *, on_demand: bool = False) -> float | None:
        """None: instances are paid for by time, not by tokens."""
        return None

    def called_singly(self, shards: Sequence[int]) -> int:
        """None: a job takes any number of records."""
        return 0

    def check_sizes(self, shards: Sequence[int]) -> None:
        """Any number is right."""

    def token_bounds(self) -> tuple[int | None, int]:
        return None, 0
