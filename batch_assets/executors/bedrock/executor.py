"""The executor `bedrock`: a shard's records as a batch inference job, its results fetched afterwards.

What a request and an answer look like is in `families/`; which job is submitted when, and what
follows from its end, in `control/`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from batch_assets.crash_points import crash_point
from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.job_rows import JobRows
from batch_assets.embeddings.reason_codes import TOO_LONG
from batch_assets.embeddings.schema import Task
from batch_assets.errors import ConfigurationError
from batch_assets.executors.aws.account import AwsAccount
from batch_assets.executors.aws.batch_service import BatchServiceAtAws
from batch_assets.executors.base import Limits
from batch_assets.executors.bedrock.fetching import fetch_results
from batch_assets.executors.bedrock.model_ids import base_model_id, names_same_model
from batch_assets.executors.bedrock.on_demand import answer_requests
from batch_assets.executors.bedrock.pipeline import BedrockPipeline
from batch_assets.executors.bedrock.places import folders, gather, places
from batch_assets.executors.bedrock.quotas import Quotas, read_quotas
from batch_assets.executors.bedrock.rendering import render_job
from batch_assets.executors.bedrock.service import BedrockService, asked
from batch_assets.executors.bedrock.serving import check_single_calls
from batch_assets.executors.jobs import JobDescription
from batch_assets.executors.service_jobs import Order, Pace, ServiceJob
from batch_assets.sharding.plan import Shard


@dataclass
class BedrockExecutor(BedrockPipeline, BatchServiceAtAws):
    """One pipeline's batch inference jobs. See `base.Executor` and `service_jobs.BatchService`."""

    account: AwsAccount
    kind: str = "bedrock"
    narrowing: str = TOO_LONG
    taken = "Bedrock has a job {job.name}, {job.id}, that was asked for something else"

    @cached_property
    def service(self) -> BedrockService:
        return BedrockService(*self.clients("bedrock"), self.options, self.region)

    @cached_property
    def quotas(self) -> Quotas:
        """What the account may do; YAML first."""
        model_id, region = self.options.model_id, self.region
        told = self.account.remembered(
            ("bedrock", model_id, region),
            lambda: read_quotas(self.account.client("service-quotas", region), model_id),
        )
        own = {
            "jobs": self.options.max_jobs,
            "min_records": self.options.min_records,
            "records_per_job": self.options.max_records,
        }
        values = vars(told) | {name: value for name, value in own.items() if value is not None}
        values["records_per_file"] = min(values["records_per_file"], values["records_per_job"])
        return Quotas(**values)

    @property
    def limits(self) -> Limits:
        quotas = self.quotas
        return Limits(quotas.jobs, quotas.records_per_job, quotas.job_bytes, quotas.min_records)

    @property
    def quota_group(self) -> str:
        account = self.options.role_arn.split(":")[4] or "account"
        return f"bedrock/{account}/{self.region}/{base_model_id(self.options.model_id)}"

    def slots(self) -> int:
        return self.quotas.jobs

    @property
    def task(self) -> Task:
        return self.family.task

    def check(self) -> None:
        """Look at everything that costs nothing: the model's settings, its price, the staging bucket."""
        _ = self.family, self.quota_group
        self.check_staging()
        if self.options.budget_usd is not None and self.price is None:
            raise ConfigurationError(
                f"executor.budget_usd: no price is known for {self.options.model_id}, so no budget can be kept; "
                "name executor.prices: {input: …, output: …} in USD per million tokens"
            )
        self.check_bucket()

    # --- preparing ---

    def render(self, shard: Shard, order: Order) -> JobDescription:
        return render_job(self, self.quotas, shard, order)

    # --- the service ---

    def _start(self, jobs: Sequence[JobDescription], token: str, name: str) -> str:
        if len(jobs) > 1:
            gather(self.staging, jobs, folders(name, jobs)[0])
            crash_point("pool-gathered")
        requests, results = places(name, jobs)
        return self.service.create(name, token, requests, results, self.family.invocation_type)

    def is_same_model(self, job: ServiceJob) -> bool:
        same = names_same_model(job.model, self.options.model_id)
        # Behind a profile of one's own there may be any model.
        return same if same is not None else super().is_same_model(job)

    def is_ours(self, job: ServiceJob, jobs: Sequence[JobDescription]) -> bool:
        requests, results = places(job.name, jobs)
        if job.asked != asked(requests, results):
            return False
        if any(each.fingerprint != self.fingerprint() for each in jobs):
            # Prepared for another model than now: its results are not used, and nobody else reads these requests.
            return True
        # What cannot be compared is not held against it: nobody else's job has these places.
        return names_same_model(job.model, self.options.model_id) is not False

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
        self._know(facts)
        fetch_results(self, job, service_job, rows, facts, final=final)

    def answer(self, job: JobDescription, rows: JobRows, facts: JobFacts, pace: Pace) -> None:
        self._know(facts)
        client = self.account.client("bedrock-runtime", self.region)
        answer_requests(self, client, job, rows, facts, pace)

    def called_singly(self, shards: Sequence[int]) -> int:
        least = self.quotas.min_records
        small = sum(records for records in shards if records < least)
        # Together they may make a job; of what is left over then nothing is known yet.
        return 0 if self.options.remainder == "pool" and small >= least else small

    def check_sizes(self, shards: Sequence[int]) -> None:
        if single := self.called_singly(shards):
            client = self.account.client("bedrock", self.region, tries=1)
            check_single_calls(client, self.options.model_id, single, self.quotas.min_records)

    def token_bounds(self) -> tuple[int | None, int]:
        return self.family.max_tokens, self.family.answer_tokens

    def _know(self, facts: JobFacts) -> None:
        facts.model, facts.device, facts.dtype = self.options.model_id, f"bedrock {self.region}", "float32"
        facts.dimensions = self.family.dimensions
