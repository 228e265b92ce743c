"""The executor `bedrock`: a shard's records as a batch inference job, its results fetched afterwards.

What a request and an answer look like is in `families/`; which job is submitted when, and what
follows from its end, in `control/`.
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import orjson

from batch_assets import paths
from batch_assets.embeddings.job_rows import JobRows
from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.embeddings.schema import Task
from batch_assets.errors import ConfigurationError
from batch_assets.executors.base import (
    JobFacts,
    JobHandle,
    JobState,
    JobStatus,
    Limits,
    PreparedJob,
)
from batch_assets.executors.bedrock.account import BedrockAccount
from batch_assets.executors.bedrock.families.base import Family
from batch_assets.executors.bedrock.families.registry import family_for
from batch_assets.executors.bedrock.fetching import fetch_results
from batch_assets.executors.bedrock.model_ids import base_model_id, model_name
from batch_assets.executors.bedrock.on_demand import answer_requests
from batch_assets.executors.bedrock.prices import Price, price_of
from batch_assets.executors.bedrock.quotas import Quotas
from batch_assets.executors.bedrock.rendering import render_job
from batch_assets.executors.bedrock.service import BedrockService
from batch_assets.executors.deferred import Event, Order, Pace, ServiceJob
from batch_assets.executors.jobs import JobDescription, JobKey
from batch_assets.settings import S3_URI, BedrockExecutorSettings, PipelineSettings
from batch_assets.sharding.plan import Shard
from batch_assets.sharding.reading import read_shard
from batch_assets.storage import Storage, join_uri, open_storage

VERSION = 1
"""Raised when requests are rendered otherwise, so that the same text gives another vector."""


@dataclass
class BedrockExecutor:
    """One pipeline's batch inference jobs. See `base.Executor` and `deferred.DeferredExecutor`."""

    account: BedrockAccount
    settings: PipelineSettings
    kind: str = "bedrock"
    in_place: bool = False

    @cached_property
    def options(self) -> BedrockExecutorSettings:
        assert isinstance(self.settings.executor, BedrockExecutorSettings)
        return self.settings.executor

    @cached_property
    def region(self) -> str:
        return self.account.region_of(self.options)

    @cached_property
    def family(self) -> Family:
        """How this model is asked. Raises ConfigurationError for a model or a setting that it does not have."""
        return family_for(self.settings)

    @cached_property
    def service(self) -> BedrockService:
        patient, once = (self.account.client("bedrock", self.region, tries) for tries in (3, 1))
        return BedrockService(patient, once, self.options, self.region)

    @cached_property
    def staging(self) -> Storage:
        """Where request and result files lie."""
        uri = self.options.staging
        if uri is None:
            uri = self.settings.output.root
            if not uri.startswith("s3://"):
                raise ConfigurationError(
                    f"executor.staging: output.root {uri} is not on S3, where Bedrock reads and writes; name "
                    "executor.staging: s3://bucket/prefix/"
                )
            return open_storage(uri)
        # A staging area may be shared: the root's own digits keep pipelines apart.
        return open_storage(join_uri(uri, f"{_slug(self.settings.name)}-{self.root_digits}"))

    def _check_staging(self) -> None:
        if not S3_URI.fullmatch(self.staging.uri):
            raise ConfigurationError(
                f"executor.staging: {self.staging.uri} has characters that Bedrock does not take (letters, digits and "
                "-!_*'(). only, so no Hive-style folders); name executor.staging: s3://bucket/prefix/"
            )

    @cached_property
    def root_digits(self) -> str:
        """Six hex digits of the output root: they keep deployments apart at the service."""
        return hashlib.sha256(open_storage(self.settings.output.root).uri.encode()).hexdigest()[:6]

    @cached_property
    def price(self) -> Price | None:
        return price_of(self.options.model_id, self.options.prices)

    @cached_property
    def quotas(self) -> Quotas:
        """What the account may do; YAML first."""
        told = self.account.quotas(self.options.model_id, self.region)
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
    def scope(self) -> str:
        account = self.options.role_arn.split(":")[4] or "account"
        return f"bedrock/{account}/{self.region}/{base_model_id(self.options.model_id)}"

    def slots(self) -> int:
        return self.quotas.jobs

    @property
    def task(self) -> Task:
        return self.family.task

    def exclusive_device(self) -> str | None:
        return None

    def fingerprint(self) -> str:
        source = self.settings.source
        parts = {
            "version": VERSION,
            "model": model_name(self.options.model_id),
            "request": self.family.options(),
            "prompt": self.settings.model.prompt,
            "normalize": self.settings.model.normalize,
            "too_long": self.options.too_long,
            "text": source.text_template or [*source.text_columns],
            "stored": self.settings.output.dtype,
        }
        return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]

    def check(self) -> None:
        """Look at everything that costs nothing: the model's settings, its price, the staging bucket."""
        _ = self.family, self.scope
        self._check_staging()
        if self.options.budget_usd is not None and self.price is None:
            raise ConfigurationError(
                f"executor.budget_usd: no price is known for {self.options.model_id}, so no budget can be kept; "
                "name executor.prices: {input: …, output: …} in USD per million tokens"
            )
        self.service.check_bucket(self.account.client("s3", self.region), self.staging.uri)

    # --- preparing ---

    def render(self, shard: Shard, order: Order) -> JobDescription:
        return render_job(self, shard, order)

    def prepare(self, shard: Shard, attempt: int) -> PreparedJob:
        return PreparedJob(shard, attempt, self.render(shard, Order(fence=attempt, attempt=1)))

    # --- the service ---

    def submission_name(self, jobs: Sequence[JobKey]) -> tuple[str, str]:
        """At most 63 characters. The digest is in it: a name met again means the same requests."""
        names = [f"{self.name_prefix}{job.shard}-{job.fence}-{job.digest[:6]}" for job in jobs]
        token = hashlib.sha256("\n".join([self.staging.uri, *sorted(names)]).encode()).hexdigest()
        return token, names[0] if len(names) == 1 else f"{self.name_prefix}pool-{token[:12]}"

    @property
    def name_prefix(self) -> str:
        """How the names of all this pipeline's jobs begin at the service."""
        return f"{_slug(self.settings.name)}-{self.root_digits}-"

    def submit(self, jobs: Sequence[PreparedJob], token: str) -> list[JobHandle]:
        """One call for all `jobs`. Raises SlotsFull, Unanswered or SubmissionRefused."""
        descriptions = [_described(job) for job in jobs]
        _, name = self.submission_name([job.key for job in descriptions])
        requests, results = self._folders(descriptions)
        if len(jobs) > 1:
            self._gather(descriptions, requests)
        uris = (join_uri(self.staging.uri, requests) + "/", join_uri(self.staging.uri, results) + "/")
        job_id = self.service.create(name, token, *uris, invocation_type=self.family.invocation_type)
        return [JobHandle(job, job_id) for job in jobs]

    def _folders(self, jobs: Sequence[JobDescription]) -> tuple[str, str]:
        """Where the requests of a submission lie and where its results go; never one within the other."""
        if len(jobs) == 1:
            return jobs[0].folder, f"{paths.job_folder(jobs[0].shard, jobs[0].fence)}/results"
        folder = f"jobs/pools/{self.submission_name([job.key for job in jobs])[1].rsplit('-', 1)[-1]}"
        return f"{folder}/requests", f"{folder}/results"

    def _gather(self, jobs: Sequence[JobDescription], folder: str) -> None:
        """Copy the request files of small jobs into one folder: the service takes a folder as a job."""
        for job in jobs:
            for file in job.files:
                self.staging.copy(file.path, f"{folder}/{file.path.rsplit('/', 1)[-1]}")

    def poll(self, handles: Sequence[JobHandle]) -> list[JobStatus]:
        jobs = {job.id: job for job in self.snapshot(None)}
        found = [jobs.get(handle.job_id) or self.look_up(handle.job_id) for handle in handles]
        return [
            JobStatus(handle, job.state, job.message)
            if job is not None
            else JobStatus(handle, JobState.FAILED, "the service does not know this job")
            for handle, job in zip(handles, found, strict=True)
        ]

    def cancel(self, handle: JobHandle) -> None:
        self.service.stop(handle.job_id)

    def stop_job(self, job_id: str) -> None:
        self.service.stop(job_id)

    def snapshot(self, since: float | None) -> list[ServiceJob]:
        return self.service.jobs_since(since)

    def is_same_model(self, job: ServiceJob) -> bool:
        return base_model_id(job.model) == base_model_id(self.options.model_id)

    def find(self, name: str) -> ServiceJob | None:
        return self.service.find(name)

    def own_jobs(self) -> list[ServiceJob]:
        return self.service.named(self.name_prefix)

    def look_up(self, job_id: str) -> ServiceJob | None:
        return self.service.get(job_id)

    def events(self, most: int) -> list[Event]:
        if self.options.queue_url is None:
            return []
        return self.service.receive(self.account.client("sqs", self.region), most)

    def delete_events(self, events: Sequence[Event]) -> None:
        self.service.delete(self.account.client("sqs", self.region), events)

    # --- results ---

    def fetch(
        self, job: PreparedJob, service_job: ServiceJob | None, rows: JobRows, facts: JobFacts, *, final: bool
    ) -> None:
        self._know(facts)
        fetch_results(self, _described(job), service_job, rows, facts, final=final)

    def answer(self, job: PreparedJob, rows: JobRows, facts: JobFacts, pace: Pace) -> None:
        self._know(facts)
        client = self.account.client("bedrock-runtime", self.region)
        answer_requests(self, client, _described(job), rows, facts, pace)

    def collect(self, handle: JobHandle, facts: JobFacts) -> Iterator[Outcomes]:
        """The whole shard's outcomes from this one job; what should be tried again is a retryable failure."""
        started = time.perf_counter()
        shard = handle.prepared.shard
        with JobRows(shard.records) as rows:
            self.fetch(handle.prepared, self.look_up(handle.job_id), rows, facts, final=True)
            facts.timings["fetch_seconds"] = time.perf_counter() - started
            for records in read_shard(self.settings, shard):
                yield rows.outcomes(records)

    def token_bounds(self) -> tuple[int | None, int]:
        return self.family.max_tokens, self.family.answer_tokens

    def _know(self, facts: JobFacts) -> None:
        facts.model, facts.device, facts.dtype = self.options.model_id, f"bedrock {self.region}", "float32"
        facts.dimensions = self.family.dimensions

    def cost(self, input_tokens: int, output_tokens: int, *, on_demand: bool = False) -> float | None:
        """USD for so many tokens; None where no price is known."""
        return (
            None if self.price is None else self.price.cost(input_tokens, output_tokens, on_demand=on_demand)
        )


def _described(job: PreparedJob) -> JobDescription:
    assert job.description is not None, "a deferred job is rendered before anything else"
    return job.description


def _slug(name: str) -> str:
    """A pipeline's name as AWS names allow it."""
    return name.replace("_", "-")
