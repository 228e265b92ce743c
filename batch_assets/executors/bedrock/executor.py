"""The executor `bedrock`: a shard's records as a batch inference job, its results fetched afterwards.

What a request and an answer look like is in `families/`; which job is submitted when, and what
follows from its end, in `control/`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import orjson

from batch_assets.crash_points import crash_point
from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.job_rows import JobRows
from batch_assets.embeddings.schema import Task
from batch_assets.errors import ConfigurationError
from batch_assets.executors.aws.staging import check_bucket
from batch_assets.executors.aws.verbs import AsksService, HearsEvents
from batch_assets.executors.base import Limits
from batch_assets.executors.bedrock.account import BedrockAccount
from batch_assets.executors.bedrock.families.base import Family
from batch_assets.executors.bedrock.families.registry import family_for
from batch_assets.executors.bedrock.fetching import fetch_results
from batch_assets.executors.bedrock.model_ids import base_model_id, model_name, names_same_model
from batch_assets.executors.bedrock.on_demand import answer_requests
from batch_assets.executors.bedrock.places import JobPlaces
from batch_assets.executors.bedrock.prices import Price, price_of
from batch_assets.executors.bedrock.quotas import Quotas
from batch_assets.executors.bedrock.rendering import render_job
from batch_assets.executors.bedrock.requests import TOO_LONG
from batch_assets.executors.bedrock.service import BedrockService, asked
from batch_assets.executors.bedrock.serving import check_single_calls
from batch_assets.executors.deferred import NameTaken, Order, Pace, ServiceJob, Unanswered
from batch_assets.executors.jobs import JobDescription
from batch_assets.sharding.plan import Shard

VERSION = 1
"""Raised when requests are rendered otherwise, so that the same text gives another vector."""


@dataclass
class BedrockExecutor(JobPlaces, AsksService, HearsEvents):
    """One pipeline's batch inference jobs. See `base.Executor` and `deferred.DeferredExecutor`."""

    account: BedrockAccount
    kind: str = "bedrock"
    in_place: bool = False
    commits: bool = False
    narrowing: str = TOO_LONG

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

    def at_once(self) -> int:
        return 1

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
        self.check_staging()
        if self.options.budget_usd is not None and self.price is None:
            raise ConfigurationError(
                f"executor.budget_usd: no price is known for {self.options.model_id}, so no budget can be kept; "
                "name executor.prices: {input: …, output: …} in USD per million tokens"
            )
        check_bucket(self.account.client("s3", self.region), self.staging.uri, self.region, self.service_name)

    # --- preparing ---

    def render(self, shard: Shard, order: Order) -> JobDescription:
        return render_job(self, shard, order)

    # --- the service ---

    def submit(self, jobs: Sequence[JobDescription], token: str, name: str) -> str:
        """One call for all `jobs`. Raises SlotsFull, Unanswered, SubmissionRefused, NameTaken."""
        if len(jobs) > 1:
            self.gather(jobs, self.folders(name, jobs)[0])
            crash_point("pool-gathered")
        places = self.places(name, jobs)
        try:
            return self.service.create(name, token, *places, invocation_type=self.family.invocation_type)
        except NameTaken as error:
            found = self.find(name, jobs)
            if found is None:  # it is not to be seen yet whose the job is
                raise Unanswered(str(error)) from error
            return found.id

    def is_same_model(self, job: ServiceJob) -> bool:
        same = names_same_model(job.model, self.options.model_id)
        # Behind a profile of one's own there may be any model.
        return same if same is not None else job.name.startswith(tuple(self.name_prefixes))

    def find(self, name: str, jobs: Sequence[JobDescription]) -> ServiceJob | None:
        found = self.service.find(name)
        if found is not None and not self.is_ours(found, jobs):
            raise NameTaken(f"Bedrock has a job {name}, {found.id}, that was asked for something else")
        return found

    def is_ours(self, job: ServiceJob, jobs: Sequence[JobDescription]) -> bool:
        requests, results = self.places(job.name, jobs)
        if job.asked != asked(requests, results):
            return False
        if any(each.fingerprint != self.fingerprint() for each in jobs):
            # Prepared for another model than now: its results are not used, and nobody else reads these requests.
            return True
        # What cannot be compared is not held against it: nobody else's job has these places.
        return names_same_model(job.model, self.options.model_id) is not False

    def own_jobs(self) -> list[ServiceJob]:
        return [job for prefix in self.name_prefixes for job in self.service.named(prefix)]

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

    def cost(self, input_tokens: int, output_tokens: int, *, on_demand: bool = False) -> float | None:
        """USD for so many tokens; None where no price is known."""
        return (
            None if self.price is None else self.price.cost(input_tokens, output_tokens, on_demand=on_demand)
        )
