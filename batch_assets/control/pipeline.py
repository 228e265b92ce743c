"""A pipeline at work: its settings with its output root, its ledger and its executor, opened together.

What belongs here: ownership of the root (`pipeline.json`) and the way a ledger comes to know
what the root holds. What is then done with a shard has its own file beside this one.
"""

import contextlib
import datetime
import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from batch_assets import paths
from batch_assets.embeddings.marker import read_marker
from batch_assets.errors import ConfigurationError
from batch_assets.executors.base import Executor
from batch_assets.ledger.holder import Holder
from batch_assets.ledger.ledger import Ledger
from batch_assets.settings import PipelineSettings
from batch_assets.sharding.plan import PlanSummary, Shard
from batch_assets.sharding.plan_files import generations, read_plan, read_shards, read_summary
from batch_assets.storage import Storage, is_local, normalize_uri, open_storage

ATTACH_TRIES = 10
logger = logging.getLogger(__name__)


@dataclass
class Pipeline:
    """Everything that acting on one pipeline takes. Made by `open_pipeline`."""

    settings: PipelineSettings
    storage: Storage
    ledger: Ledger
    executor: Executor
    holder: Holder

    @property
    def name(self) -> str:
        return self.settings.name

    @cached_property
    def fingerprint(self) -> str:
        """The executor's fingerprint; the ledger is told, and shards of another one become stale."""
        fingerprint = self.executor.fingerprint()
        note_fingerprint(self.ledger, self.name, fingerprint)
        return fingerprint

    @property
    def known_fingerprint(self) -> str:
        """The fingerprint of the last time the model was looked at; empty before the first."""
        row = self.ledger.pipeline(self.name)
        return (row.fingerprint if row else None) or ""

    def summary_of(self, shard: str) -> PlanSummary:
        """What the shard's generation was planned from; each is read once."""
        generation = paths.shard_generation(shard)
        if generation not in self._summaries:
            self._summaries[generation] = read_summary(self.storage, generation)
        return self._summaries[generation]

    @cached_property
    def _summaries(self) -> dict[int, PlanSummary]:
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
    """Take the root for this pipeline and this ledger; repeatable.

    Raises ConfigurationError where the root belongs to another pipeline, or was filled from
    another source and `add_source` does not allow for that.
    """
    storage = open_storage(settings.output.root)
    attached = _attach(settings, ledger, storage, add_source)
    pipeline = Pipeline(settings, storage, ledger, executor, Holder.current())
    _catch_up(pipeline, attached)
    return pipeline


def adhoc_name(root: str) -> str:
    """Name of the ad hoc pipeline whose output root this is."""
    return "adhoc_" + hashlib.sha256(normalize_uri(root).encode()).hexdigest()[:8]


def read_owner(storage: Storage) -> dict[str, Any] | None:
    """What `pipeline.json` says, or None where nobody has taken the root."""
    found = storage.read_versioned(paths.PIPELINE)
    return None if found is None else _parse_owner(storage, found[0])


def _parse_owner(storage: Storage, data: bytes) -> dict[str, Any]:
    with contextlib.suppress(orjson.JSONDecodeError):
        owner = orjson.loads(data)
        if isinstance(owner, dict) and {"pipeline", "epoch", "source"} <= owner.keys():
            return owner
    raise ConfigurationError(
        f"{storage.uri}/{paths.PIPELINE} is not what this program writes; name another output root"
    )


def check_owner(
    settings: PipelineSettings, storage: Storage, *, add_source: bool = False
) -> tuple[dict[str, Any], bytes, str] | None:
    """What `pipeline.json` says, as it was read, with its version; None where nobody has the root.

    Raises ConfigurationError where this pipeline, with this source, may not write there.
    """
    found = storage.read_versioned(paths.PIPELINE)
    if found is None:
        return None
    owner = _parse_owner(storage, found[0])
    # A pipeline that began ad hoc may be given a name later (`--save`).
    if owner["pipeline"] not in (settings.name, adhoc_name(storage.uri)):
        raise ConfigurationError(
            f"output root {storage.uri} belongs to pipeline {owner['pipeline']!r}, not to "
            f"{settings.name!r}; give each pipeline a root of its own"
        )
    source = source_identity(settings)
    if source not in owner["source"] and not add_source:
        raise ConfigurationError(
            f"output root {storage.uri} was filled from {', '.join(owner['source'])}, not from {source}; "
            "use another output, or --add-source to add this one to it"
        )
    return owner, *found


def _attach(settings: PipelineSettings, ledger: Ledger, storage: Storage, add_source: bool) -> bool:
    """Agree with the root on an epoch; True if the ledger knows nothing of the root's shards yet.

    Each ledger that comes to a root gets an epoch of its own, and with it its own range of
    fences: two ledgers never write a data file of one name.
    """
    source = source_identity(settings)
    for _ in range(ATTACH_TRIES):
        row = ledger.pipeline(settings.name)
        known = row.epoch if row is not None and row.root == storage.uri else 0
        found = check_owner(settings, storage, add_source=add_source)
        if found is None:
            if storage.create(paths.PIPELINE, _owner(settings, known + 1, [source])):
                ledger.attach(settings.name, storage.uri, known + 1)
                return True
            continue
        owner, data, version = found
        fresh = (known, settings.name) != (owner["epoch"], owner["pipeline"])
        epoch = max(known, owner["epoch"]) + 1 if fresh else known
        changed = _owner(settings, epoch, list(dict.fromkeys([*owner["source"], source])))
        if changed == data:
            return False
        if storage.replace(paths.PIPELINE, changed, version):
            if fresh:
                ledger.attach(settings.name, storage.uri, epoch)
            return fresh
    raise ConfigurationError(
        f"{storage.uri}/{paths.PIPELINE} was changed by others {ATTACH_TRIES} times in a row; "
        "is another ledger working on this root? Give both the same BATCH_ASSETS_LEDGER_URL"
    )


def source_identity(settings: PipelineSettings) -> str:
    """The source in one spelling."""
    if settings.source.uri is None:
        return f"pipeline:{settings.source.pipeline}"
    return normalize_uri(settings.source.uri)


def _owner(settings: PipelineSettings, epoch: int, sources: list[str]) -> bytes:
    content = {
        "pipeline": settings.name,
        "epoch": epoch,
        "source": sources,
        "configuration": settings.model_dump(mode="json"),
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"


def _catch_up(pipeline: Pipeline, attached: bool) -> None:
    """Tell the ledger what the root holds and it does not know: plans, and what commit markers prove.

    A crash in here is mended by the next call for the plans, and for the markers when a shard
    is claimed: nobody computes a shard without having looked for its marker.
    """
    row = pipeline.ledger.pipeline(pipeline.name)
    known = row.generation if row is not None else 0
    for generation in generations(pipeline.storage):
        if generation > known:
            register_generation(pipeline, generation)
    if attached:
        for info in pipeline.storage.list("shards"):
            if info.path.endswith("/shard.json"):
                adopt_marker(pipeline, info.path.split("/")[1])


def leave_root(pipeline: Pipeline) -> None:
    """Give up a root that nothing was planned under, as if it had never been taken."""
    storage = pipeline.storage
    storage.delete([paths.PIPELINE, *(info.path for info in storage.list("spool"))])
    if is_local(storage.uri):
        for folder in (Path(storage.uri) / "spool", Path(storage.uri)):
            with contextlib.suppress(OSError):  # somebody's own files keep the folder
                folder.rmdir()


def register_generation(pipeline: Pipeline, generation: int) -> list[str]:
    """Put one generation's shards and files into the ledger; repeatable. Returns the shard keys."""
    summary, shards = read_plan(pipeline.storage, generation)
    rows = [(shard.key, number, shard.records, shard.bytes) for number, shard in enumerate(shards)]
    pipeline.ledger.add_shards(pipeline.name, generation, rows)
    pipeline.ledger.supersede(pipeline.name, summary.superseded)
    files = [(file.path, file.size, file.version) for file in summary.files]
    pipeline.ledger.add_files(pipeline.name, generation, files)
    return [row[0] for row in rows]


def adopt_marker(pipeline: Pipeline, key: str) -> bool:
    """Tell the ledger what a commit marker says; False where there is none or it does not count."""
    found = read_marker(pipeline.storage, key)
    if found is None:
        return False
    marker = found[0]
    return pipeline.ledger.adopt(
        pipeline.name,
        key,
        fence=marker.fence,
        fingerprint=marker.fingerprint,
        embedded=marker.counts["embedded"],
        rejected=marker.counts["rejected"],
        failed=marker.counts["failed"],
        tokens=marker.tokens,
    )


def now() -> str:
    """This moment, UTC, as ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
