"""A pipeline at work: its settings with its output root, its ledger and its executor, opened together.

What belongs here: the way a ledger comes to know what the root holds. Whose the root is, is in
`ownership.py`; what is then done with a shard has its own file beside this one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import cast

from batch_assets import paths
from batch_assets.control.ownership import UNTAKEN, attach
from batch_assets.control.pool_files import Member
from batch_assets.crash_points import crash_point
from batch_assets.embeddings.marker import ShardMarker, read_marker
from batch_assets.errors import AccountingError
from batch_assets.executors.base import Executor, PaidRunner, ShardRunner
from batch_assets.executors.service_jobs import BatchService, ServiceJobs, WorkerService
from batch_assets.ledger.budget import Budget
from batch_assets.ledger.holder import Holder
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import Adoption, PipelineRow, Place
from batch_assets.ledger.states import State
from batch_assets.plain_text import plain_logger
from batch_assets.settings.executors import PaidSettings, ServiceSettings
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan import PlanSummary, Shard
from batch_assets.sharding.plan_files import generations, read_plan, read_shards, read_summary
from batch_assets.storage import Storage, open_storage, same_place
from batch_assets.storage.threads import map_in_order, threads_for

logger = plain_logger(__name__)


@dataclass
class Pipeline:
    """Everything that acting on one pipeline takes. Made by `open_pipeline`."""

    settings: PipelineSettings
    storage: Storage
    ledger: Ledger
    executor: Executor
    holder: Holder
    add_source: bool = False
    place: Place | None = None

    @property
    def name(self) -> str:
        return self.settings.name

    @cached_property
    def fingerprint(self) -> str:
        """The executor's fingerprint; the ledger is told, and shards of another one become stale."""
        fingerprint = self.executor.fingerprint()
        # Loading a model takes its time: what is stale here is not so under a root that the name has moved to.
        self.ledger.check_place(self.name, self.place)
        note_fingerprint(self.ledger, self.name, fingerprint)
        return fingerprint

    @property
    def known_fingerprint(self) -> str:
        """The fingerprint of the last time the model was looked at; empty before the first."""
        row = self.ledger.pipeline(self.name)
        return (row.fingerprint if row else None) or ""

    @property
    def poll_seconds(self) -> float:
        """How often a service is asked."""
        return _of_service(self).poll_seconds

    @property
    def queue_url(self) -> str | None:
        """The queue of the service's events, if there is one."""
        return _of_service(self).queue_url

    @property
    def budget(self) -> Budget:
        """The most that the pipeline may spend."""
        executor = self.settings.executor
        return Budget(executor.budget_usd if isinstance(executor, PaidSettings) else None)

    def summary_of(self, shard: str) -> PlanSummary:
        """What the shard's generation was planned from; each is read once."""
        generation = paths.shard_generation(shard)
        if generation not in self._summaries:
            self._summaries[generation] = read_summary(self.storage, generation)
        return self._summaries[generation]

    @cached_property
    def _summaries(self) -> dict[int, PlanSummary]:
        return {}

    @cached_property
    def pools(self) -> dict[str, list[Member]]:
        """The jobs of submissions that carry several, as far as they were looked up; names stay."""
        return {}

    def plan_shards(self, keys: Iterable[str]) -> dict[str, Shard]:
        """The planned shards of these keys, by key, from the plan's files."""
        by_generation: dict[int, list[str]] = {}
        for key in keys:
            by_generation.setdefault(paths.shard_generation(key), []).append(key)
        found: dict[str, Shard] = {}
        for generation, wanted in by_generation.items():
            found |= {shard.key: shard for shard in read_shards(self.storage, generation, wanted)}
        return found


def runner(pipeline: Pipeline) -> ShardRunner:
    """The pipeline's executor, which must be a shard runner."""
    assert pipeline.executor.in_place, pipeline.executor.kind
    return cast("ShardRunner", pipeline.executor)


def deferred(pipeline: Pipeline) -> ServiceJobs:
    """The pipeline's executor, which must be a deferred one."""
    assert not pipeline.executor.in_place, pipeline.executor.kind
    return cast("ServiceJobs", pipeline.executor)


def with_results(pipeline: Pipeline) -> BatchService:
    """The pipeline's executor, whose jobs' results are fetched."""
    assert not deferred(pipeline).commits, pipeline.executor.kind
    return cast("BatchService", pipeline.executor)


def with_workers(pipeline: Pipeline) -> WorkerService:
    """The pipeline's executor, whose workers commit their shards."""
    assert deferred(pipeline).commits, pipeline.executor.kind
    return cast("WorkerService", pipeline.executor)


def _of_service(pipeline: Pipeline) -> ServiceSettings:
    """The settings of the pipeline's executor, which must be one at a service."""
    executor = pipeline.settings.executor
    assert isinstance(executor, ServiceSettings), executor.type
    return executor


def note_fingerprint(ledger: Ledger, name: str, fingerprint: str) -> None:
    """Tell the ledger the pipeline's fingerprint; shards embedded under another one become ready again."""
    ledger.set_fingerprint(name, fingerprint)
    if stale := ledger.mark_stale(name, fingerprint):
        logger.warning(
            "%d shards of pipeline %s are stale: they were embedded under another fingerprint than %s "
            "(another model, prompt or dtype) and are embedded again",
            len(stale),
            name,
            fingerprint,
        )


def open_pipeline(
    settings: PipelineSettings, ledger: Ledger, executor: Executor, *, add_source: bool = False
) -> Pipeline:
    """Take the root for this pipeline and this ledger; repeatable. One without a plan is taken by `take_root`.

    Raises ConfigurationError where the root belongs to another pipeline, or was filled from
    another source and `add_source` does not allow for that.
    """
    storage = open_storage(settings.output.root)
    attached = attach(settings, ledger, storage, add_source=add_source)
    ledger.set_configuration(settings.name, settings.model_dump_json())
    ledger.set_deferred(settings.name, not executor.in_place)
    pipeline = pipeline_at_its_place(settings, ledger, executor, add_source=add_source)
    if pipeline.place is not None:
        _catch_up(pipeline, attached)
    return pipeline


def take_root(pipeline: Pipeline) -> None:
    """Make sure that the root is still this pipeline's, and take it where nobody has: a plan is about to be written.

    Raises ConfigurationError where another pipeline, or source, has come to the root since this one was opened,
    and ClaimLost where this one has moved to another root since: the ledger would forget that one's shards.
    """
    ledger, root = pipeline.ledger, pipeline.storage.uri
    row = ledger.pipeline(pipeline.name)
    # A root that nobody had may have been taken for this very pipeline meanwhile.
    if pipeline.place is not None or row is None or not same_place(row.root, root):
        ledger.check_place(pipeline.name, pipeline.place or Place(root, None))
    attached = attach(pipeline.settings, ledger, pipeline.storage, add_source=pipeline.add_source, take=True)
    pipeline.place = _place_of(ledger.pipeline(pipeline.name))
    _name_jobs(pipeline)
    if attached:
        _catch_up(pipeline, attached=True)


def known_pipeline(settings: PipelineSettings, ledger: Ledger, executor: Executor) -> Pipeline | None:
    """The pipeline where this ledger works on its root already; None where a run must open it first.

    For ticks: nothing is written, and the root is not looked at.
    """
    storage = open_storage(settings.output.root)
    row = ledger.pipeline(settings.name)
    if row is None or not same_place(row.root, storage.uri) or not row.recovered:
        return None
    return pipeline_at_its_place(settings, ledger, executor)


def pipeline_at_its_place(
    settings: PipelineSettings, ledger: Ledger, executor: Executor, *, add_source: bool = False
) -> Pipeline:
    """The pipeline at the place where the ledger knows it, if anywhere; nothing is written, and no root looked at."""
    place = _place_of(ledger.pipeline(settings.name))
    storage = open_storage(settings.output.root)
    pipeline = Pipeline(settings, storage, ledger, executor, Holder.current(), add_source, place)
    _name_jobs(pipeline)
    return pipeline


def _place_of(row: PipelineRow | None) -> Place | None:
    """Where the pipeline is; None before its root is taken, by whomever."""
    return None if row is None or row.epoch == UNTAKEN else Place(row.root, row.deployment)


def _name_jobs(pipeline: Pipeline) -> None:
    """Have the executor name jobs by the output root's random id: no job of an earlier root is met at the service."""
    if pipeline.place is not None and not pipeline.executor.in_place:
        deferred(pipeline).deployment = pipeline.place.deployment


def _catch_up(pipeline: Pipeline, attached: bool) -> None:
    """Tell the ledger what the root holds and it does not know: plans, and what commit markers prove.

    A crash in here is mended by the next call for the plans, and for the markers when a shard
    is claimed: nobody computes a shard without having looked for its marker.
    """
    register_plans(pipeline)
    if attached:
        collected = pipeline.ledger.shards(pipeline.name, states=[State.COLLECTED])
        listed = (info.path for info in pipeline.storage.list("shards") if info.path.endswith("/shard.json"))
        keys = (path.split("/")[1] for path in listed)
        found = list(map_in_order(lambda key: _marker_of(pipeline, key), keys, threads_for(pipeline.storage)))
        adoptions = [_adoption_of(marker) for marker in found if marker is not None]
        pipeline.ledger.adopt_all(pipeline.name, adoptions, pipeline.place)
        if isinstance(pipeline.executor, PaidRunner):
            # A lost ledger has forgotten it; of a service's jobs `recovery.py` tells.
            known = pipeline.ledger.money(pipeline.name).spent_usd
            told = sum(marker.spent_usd for marker in found if marker is not None)
            pipeline.ledger.set_spent(pipeline.name, max(known, told))
        gone = {row.key for row in collected} - {adoption.key for adoption in adoptions}
        why = "its commit marker is gone"
        pipeline.ledger.recompute(pipeline.name, sorted(gone), why=why, place=pipeline.place)
    row = pipeline.ledger.pipeline(pipeline.name)
    if not pipeline.executor.in_place and row is not None and not row.recovered:
        from batch_assets.control.recovery import recover_jobs

        recover_jobs(pipeline)
        pipeline.ledger.set_recovered(pipeline.name)


def register_plans(pipeline: Pipeline) -> list[str]:
    """Put the generations that the ledger does not know into it, whoever planned them; the keys of their shards."""
    row = pipeline.ledger.pipeline(pipeline.name)
    known = row.generation if row is not None else 0
    # All names are looked at: one behind a gap would else never be embedded.
    new = [generation for generation in generations(pipeline.storage) if generation > known]
    return [key for generation in new for key in _register_generation(pipeline, generation)]


def register_next_plans(pipeline: Pipeline) -> list[str]:
    """The same for the generations that follow the newest known one without a gap; looks at no older plan."""
    row = pipeline.ledger.pipeline(pipeline.name)
    generation, keys = row.generation if row is not None else 0, list[str]()
    while pipeline.storage.info(paths.plan(generation + 1)) is not None:
        generation += 1
        keys += _register_generation(pipeline, generation)
    return keys


def _register_generation(pipeline: Pipeline, generation: int) -> list[str]:
    """Put one generation's shards and files into the ledger; repeatable. Returns the shard keys."""
    summary, shards = read_plan(pipeline.storage, generation)
    files = [(file.path, file.size, file.version) for file in summary.files]
    pipeline.ledger.add_files(pipeline.name, generation, files)
    # Last: with its shards a generation counts as known, and a crash before that repeats all of it.
    rows = [(shard.key, number, shard.records, shard.bytes) for number, shard in enumerate(shards)]
    pipeline.ledger.add_shards(pipeline.name, generation, rows, summary.superseded)
    crash_point("shards-added")
    return [row[0] for row in rows]


def adopt_marker(pipeline: Pipeline, key: str) -> bool:
    """Tell the ledger what a commit marker says; False where there is none or it does not count."""
    marker = _marker_of(pipeline, key)
    return marker is not None and bool(
        pipeline.ledger.adopt_all(pipeline.name, [_adoption_of(marker)], pipeline.place)
    )


def _marker_of(pipeline: Pipeline, key: str) -> ShardMarker | None:
    try:
        found = read_marker(pipeline.storage, key)
    except AccountingError as error:
        logger.warning("%s", error)
        return None
    return None if found is None else found[0]


def _adoption_of(marker: ShardMarker) -> Adoption:
    counts = (marker.counts["embedded"], marker.counts["rejected"], marker.counts["failed"])
    return Adoption(marker.shard, marker.fence, marker.fingerprint, *counts, marker.tokens)
