"""The executor `sagemaker`: a shard's records as the objects of a batch transform job, its results fetched afterwards.

What a line and an answer look like is in `requests.py` and `answers.py`; which job is submitted
when, and what follows from its end, in `control/`.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import orjson

from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.job_rows import JobRows
from batch_assets.embeddings.schema import EMBED, GENERATE, Task
from batch_assets.executors.aws.errors import error_message
from batch_assets.executors.aws.staging import check_bucket
from batch_assets.executors.aws.verbs import AsksService, HearsEvents
from batch_assets.executors.base import Limits
from batch_assets.executors.deferred import NameTaken, Order, Pace, ServiceJob, Unanswered
from batch_assets.executors.jobs import JobDescription
from batch_assets.executors.sagemaker.account import SageMakerAccount
from batch_assets.executors.sagemaker.answers import AnswerFormat
from batch_assets.executors.sagemaker.checking import check_settings
from batch_assets.executors.sagemaker.expectations import first_width
from batch_assets.executors.sagemaker.fetching import OBJECT_FAILED, fetch_results
from batch_assets.executors.sagemaker.places import JobPlaces, places
from batch_assets.executors.sagemaker.quotas import DEFAULT_JOBS
from batch_assets.executors.sagemaker.rendering import render_job
from batch_assets.executors.sagemaker.requests import CSV
from batch_assets.executors.sagemaker.service import SageMakerService, asked, job_request
from batch_assets.executors.sagemaker.service_errors import is_not_found
from batch_assets.plain_text import plain_logger
from batch_assets.sharding.plan import Shard

VERSION = 1
"""Raised when lines are rendered otherwise, so that the same text gives another vector."""

NOT_KNOWN = 1
"""Dimensions of a shard without any vector, where no other has told them: a file of no rows has a schema, too."""

logger = plain_logger(__name__)


@dataclass
class SageMakerExecutor(JobPlaces, AsksService, HearsEvents):
    """One pipeline's transform jobs. See `base.Executor` and `deferred.DeferredExecutor`."""

    account: SageMakerAccount
    kind: str = "sagemaker"
    in_place: bool = False
    commits: bool = False
    narrowing: str = OBJECT_FAILED

    @cached_property
    def region(self) -> str:
        return self.account.region_of(self.options)

    @cached_property
    def service(self) -> SageMakerService:
        patient, once = (self.account.client("sagemaker", self.region, tries) for tries in (3, 1))
        return SageMakerService(patient, once, self.options, self.region)

    @property
    def limits(self) -> Limits:
        return Limits(jobs=self.slots())

    @property
    def scope(self) -> str:
        return f"sagemaker/{self.region}/{self.options.instance_type}"

    def slots(self) -> int:
        """By YAML, else as many as the quota of instances allows; at least one, so that a refusal is heard."""
        if self.options.max_jobs is not None:
            return self.options.max_jobs
        instances = self.account.instances(self.options.instance_type, self.region)
        return DEFAULT_JOBS if instances is None else max(instances // self.options.instance_count, 1)

    @property
    def task(self) -> Task:
        return self.settings.task or EMBED

    def at_once(self) -> int:
        return 1

    def exclusive_device(self) -> str | None:
        return None

    def fingerprint(self) -> str:
        source, model, options = self.settings.source, self.settings.model, self.options
        parts = {
            "version": VERSION,
            "task": self.task,
            "model": options.model_name,
            "environment": options.environment,
            "content_type": options.content_type,
            "fields": [options.input_field, options.output_field],
            "prompt": model.prompt,
            "normalize": model.normalize,
            "dimensions": model.dimensions,
            "text": source.text_template or [*source.text_columns],
            "stored": self.settings.output.dtype,
        }
        return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]

    def check(self) -> None:
        """Look at everything that costs nothing: the settings, the staging bucket, the model."""
        check_settings(self.settings, self.task)
        self.check_staging()
        check_bucket(self.account.client("s3", self.region), self.staging.uri, self.region, self.service_name)
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

    def submit(self, jobs: Sequence[JobDescription], token: str, name: str) -> str:
        """One job in one call. Raises SlotsFull, Unanswered, SubmissionRefused, NameTaken."""
        [job] = jobs
        try:
            return self.service.create(name, *places(job))
        except NameTaken as error:
            if self.find(name, [job]) is None:  # it is not to be seen yet whose the job is
                raise Unanswered(str(error)) from error
            return name

    def is_same_model(self, job: ServiceJob) -> bool:
        """Only of jobs of our own it is known which instances they have; others' are told of by a refusal."""
        return job.name.startswith(tuple(self.name_prefixes))

    def find(self, name: str, jobs: Sequence[JobDescription]) -> ServiceJob | None:
        found = self.service.get(name)
        if found is not None and not self.is_ours(found, jobs):
            raise NameTaken(f"SageMaker has a transform job {name}, and it was asked for something else")
        return found

    def is_ours(self, job: ServiceJob, jobs: Sequence[JobDescription]) -> bool:
        [description] = jobs
        told = job if job.asked is not None else self.look_up(job.id)  # lists tell less
        if told is None or told.asked is None:
            return False
        ours = asked(job_request(self.options, job.name, *places(description)))
        if description.fingerprint != self.fingerprint():
            # Prepared for another model than now: its results are not used, and nobody else reads these requests.
            ours |= {name: told.asked[name] for name in ("ModelName", "Environment")}
        return told.asked == ours

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
        facts.model, facts.dtype = self.options.model_name, "float32"
        facts.device = f"{self.options.instance_type} {self.region}"
        fetch_results(self, job, service_job, rows, facts, final=final)
        facts.dimensions = self._dimensions(rows)

    def answer(self, job: JobDescription, rows: JobRows, facts: JobFacts, pace: Pace) -> None:
        """A job of which no record could be sent: each has its reason."""
        facts.model = self.options.model_name
        for ordinal, code, message in job.refused:
            rows.fail(ordinal, code, message, job.attempt)
        facts.dimensions = self._dimensions(rows)

    def answer_format(self, rows: JobRows) -> AnswerFormat:
        """What answers are to look like, as far as settings and earlier shards tell."""
        model, options = self.settings.model, self.options
        return AnswerFormat(
            task=self.task,
            csv=options.content_type == CSV,
            output_field=options.output_field,
            dimensions=model.dimensions,
            normalize=model.normalize,
            width=self._width(rows) or None,
        )

    def _dimensions(self, rows: JobRows) -> int:
        """Those of the shard's vectors; 0 where there are answers."""
        return (self._width(rows) or NOT_KNOWN) if self.task == EMBED else 0

    def _width(self, rows: JobRows) -> int:
        """Dimensions of the shard's vectors; where it has none, of the pipeline's. 0: not known, or answers."""
        if self.task == GENERATE:
            return 0
        known = rows.dimensions or self.settings.model.dimensions
        return known or first_width(self.settings.output.root, self.fingerprint())

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
