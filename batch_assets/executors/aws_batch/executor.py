"""The executor `aws_batch`: shards as children of array jobs, each in the worker container.

The worker embeds a shard and commits it (`worker/container.py`); here it is only said what is to be
done. Which shards are submitted when, and what follows from their end, is in `control/`.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import orjson

from batch_assets import paths
from batch_assets.crash_points import crash_point
from batch_assets.embeddings.schema import EMBED, GENERATE, Task
from batch_assets.encoders.fingerprint import fingerprint
from batch_assets.errors import ConfigurationError
from batch_assets.executors.aws.account import AwsAccount
from batch_assets.executors.aws.names import Named
from batch_assets.executors.aws.service_jobs import ServiceJobsAtAws
from batch_assets.executors.aws_batch.manifests import manifest_of, told
from batch_assets.executors.aws_batch.requests import ARRAY_JOBS, definition_request, job_request
from batch_assets.executors.aws_batch.service import AwsBatchService, describe_end, service_job
from batch_assets.executors.base import JobState, Limits
from batch_assets.executors.jobs import JobDescription
from batch_assets.executors.service_jobs import Order, ServiceJob
from batch_assets.settings.aws_batch import AwsBatchExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan import Shard
from batch_assets.storage import Storage, is_local, open_storage
from batch_assets.worker.assignment import write_manifest

ARRAYS_AT_ONCE = 10_000
"""No quota: AWS Batch queues up to 1,000,000 jobs. What runs at once is for its compute environment to say."""

CHILDREN_AT_A_CAP = 32
"""Children alive at once where they share a cap on calls, unless `max_children` says otherwise."""

COLLECTED_AT_ONCE = 8
"""To collect a shard is to look at a few small files in a store that is far away."""

STOPPED_BY = "batch-assets stop"


@dataclass
class AwsBatchExecutor(Named, ServiceJobsAtAws):
    """One pipeline's array jobs. See `base.Executor` and `service_jobs.ServiceJobs`."""

    settings: PipelineSettings
    account: AwsAccount
    kind: str = "aws_batch"
    commits: bool = True
    array_jobs: int = ARRAY_JOBS
    limits: Limits = field(default_factory=Limits)

    @cached_property
    def options(self) -> AwsBatchExecutorSettings:
        assert isinstance(self.settings.executor, AwsBatchExecutorSettings)
        return self.settings.executor

    @cached_property
    def service(self) -> AwsBatchService:
        return AwsBatchService(*self.clients("batch"), self.options.job_queue)

    @cached_property
    def root(self) -> Storage:
        return open_storage(self.settings.output.root)

    @property
    def quota_group(self) -> str:
        return f"aws_batch/{self.region}/{self.options.job_queue.replace('/', ':')}/jobs"

    def slots(self) -> int:
        return ARRAYS_AT_ONCE

    @property
    def alive(self) -> int | None:
        """Children of the pipeline that may be alive at once; None: any number."""
        if self.options.max_children is None and self.settings.calls_per_second is not None:
            return CHILDREN_AT_A_CAP
        return self.options.max_children

    @property
    def task(self) -> Task:
        if self.settings.task == GENERATE:
            raise ConfigurationError(
                "task: executor aws_batch makes embeddings, not answers; leave task out, or name another "
                "executor.type"
            )
        return EMBED

    def at_once(self) -> int:
        return COLLECTED_AT_ONCE

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        """Looked up once: a model of the hub costs calls to it, and there are as many shards as you like."""
        _ = self.task
        return fingerprint(self.settings)

    def check(self) -> None:
        """Look at what costs nothing: that the workers can reach source and root, and the queue."""
        source = self.settings.source.uri or ""
        for name, uri in (("output.root", self.root.uri), ("source.uri", source.removeprefix("shards:"))):
            if uri and is_local(uri):
                raise ConfigurationError(
                    f"{name}: {uri} is on this machine, and the workers are on others; name a place that both reach, "
                    "such as s3://bucket/prefix/"
                )
        self.service.check_queue()

    # --- preparing ---

    def render(self, shard: Shard, order: Order) -> JobDescription:
        """What a worker is to do is said when it is submitted; here the job only gets its name, which no other has."""
        return JobDescription(
            pipeline=self.settings.name,
            shard=shard.key,
            fence=order.fence,
            attempt=order.attempt,
            kind="batch",
            fingerprint=self.fingerprint(),
            digest=uuid.uuid4().hex[:16],
            staging=self.root.uri,
            files=(),
            records=shard.records,
            bytes=0,
            bound_usd=0.0,
            ordinals=[(0, shard.records - 1)],
            outdated_fence=order.outdated_fence,
            failing_since=order.failing_since,
        )

    # --- the service ---

    def submit(self, jobs: Sequence[JobDescription], token: str, name: str) -> str:
        """One call for all `jobs`, in the array's order. Raises SlotsFull, Unanswered or SubmissionRefused."""
        # The service would take the same call twice for two jobs; and what a job was told stays as it was told.
        known = self.find(name, jobs)
        return known.id if known is not None else self._start(name, self._tell(name, jobs), len(jobs))

    def _tell(self, name: str, jobs: Sequence[JobDescription]) -> str:
        """Write down what the workers are to do; the manifest's URI, with its digest."""
        alive, price = self.alive, self.options.usd_per_hour
        manifest = manifest_of(self.settings, self.fingerprint(), name, jobs, alive, price, self.deployment)
        uri = write_manifest(self.root, paths.worker_manifest(name), manifest)
        crash_point("workers-told")
        return uri

    def _start(self, name: str, manifest: str, jobs: int) -> str:
        definition = self.options.job_definition or self.service.definition(
            definition_request(self.options, self.name_prefixes[-1])
        )
        return self.service.submit(job_request(self.options, self.region, name, definition, manifest, jobs))

    def worker(self, job_id: str, place: int, jobs: int) -> str:
        return f"{job_id}:{place}" if jobs > 1 else job_id

    def stop(self, job_id: str) -> None:
        self.service.terminate(job_id, STOPPED_BY)

    def describe(self, job_ids: Sequence[str]) -> list[ServiceJob]:
        return self.service.describe(job_ids)

    def find(self, name: str, jobs: Sequence[JobDescription]) -> ServiceJob | None:
        """The job of that name; of several, which a lost answer may leave, the oldest, and the others are ended.

        Never raises NameTaken: the service lets any number of jobs have one name, and others' are passed over.
        """
        found = self._named(name)
        if not found:
            return None
        chosen = next((job for job in found if job.active), found[-1])
        self._end_all_but(chosen.id, found)
        return chosen

    def is_ours(self, job: ServiceJob, jobs: Sequence[JobDescription]) -> bool:
        said = self.whole(job)
        return said is not None and said.asked in told(self.root, job.name)

    def _named(self, name: str) -> list[ServiceJob]:
        """This pipeline's own jobs of that name, the oldest first."""
        ids = [job.id for job in self.service.named(name)]
        asking = told(self.root, name) if ids else []
        found = [job for job in self.service.describe(ids) if job.asked in asking]
        return sorted(found, key=lambda job: job.submitted_at)

    def end_others(self, name: str, job_id: str) -> None:
        self._end_all_but(job_id, self._named(name))

    def _end_all_but(self, job_id: str, found: Sequence[ServiceJob]) -> None:
        for other in found:
            if other.id != job_id and other.active:
                self.service.terminate(other.id, f"the same as {job_id}")

    def own_jobs(self) -> list[ServiceJob]:
        ids = [job.id for prefix in self.name_prefixes for job in self.service.named(prefix + "*")]
        return self.service.describe(ids)  # many at once: whose they are, lists do not tell

    def look_up(self, job_id: str) -> ServiceJob | None:
        return next(iter(self.service.describe([job_id])), None)

    def children(self, job_id: str) -> Mapping[int, JobState]:
        return self.service.ended_children(job_id)

    # --- results ---

    def ended(self, job: JobDescription, worker: str | None) -> tuple[str, float]:
        """By the worker's own words, and the service's."""
        told: list[str] = []
        seconds = 0.0
        folder = paths.worker_error(job.shard, job.fence, 0).rsplit("/", 1)[0]
        for info in self.root.list(folder):
            if info.path.rsplit("/", 1)[-1].startswith("error-"):
                word = orjson.loads(self.root.read(info.path))
                told.append(f"{word['error']}: {word['message']}")
        if worker is not None:
            for detail in self.service.details([worker]):
                told.append(describe_end(detail))
                found = service_job(detail)
                seconds += (found.ended_at or 0.0) - (found.began_at or found.ended_at or 0.0)
        words = "; ".join(dict.fromkeys(filter(None, told)))
        return words or "the worker ended without a commit, and nobody says why", max(seconds, 0.0)

    def price(self, seconds: float) -> float | None:
        rate = self.options.usd_per_hour
        return None if rate is None else seconds / 3600 * rate
