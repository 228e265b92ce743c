"""Whose an output root is: `pipeline.json`, written before the first plan, and after it is made.

Each ledger that comes to a root gets an epoch of its own, and with it its own range of fences.
What lies under the root otherwise is told to the ledger by `pipeline.py`.
"""

import hashlib
import itertools
import secrets
from collections.abc import Mapping
from typing import Any

import orjson

from batch_assets import paths
from batch_assets.crash_points import crash_point
from batch_assets.errors import ConfigurationError
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import PipelineRow
from batch_assets.ledger.schema import FENCES_PER_EPOCH
from batch_assets.ledger.states import LIVE_SUBMISSION, State
from batch_assets.retry_policy import ATTACH_TRIES
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan_files import generations, read_plan
from batch_assets.sharding.planner import source_uri
from batch_assets.sources.shards import normalize_source
from batch_assets.storage import Storage, normalize_uri, open_storage, same_place
from batch_assets.storage.conditions import require_conditions
from batch_assets.storage.owner import parse_owner

NAMES_LOOKED_AT = 1_000
NAMED = 5
UNTAKEN = 0
"""The epoch of a root that is not taken yet."""


def adhoc_name(root: str) -> str:
    """Name of the ad hoc pipeline whose output root this is."""
    return "adhoc_" + hashlib.sha256(normalize_uri(root).encode()).hexdigest()[:8]


def adhoc_names(owner: Mapping[str, Any], root: str) -> set[str]:
    """What an ad hoc pipeline with this output root may be called: by this way to it, or by that of whoever took it."""
    return {adhoc_name(root), *map(adhoc_name, _taken_as(owner, root))}


def adhoc_name_of(root: str) -> str:
    """Name of the ad hoc pipeline that has this output root, or will have: whatever way leads there, one name."""
    owner = read_owner(open_storage(root))
    taken = [] if owner is None else [name for name in adhoc_names(owner, root) if name == owner["pipeline"]]
    return taken[0] if taken else adhoc_name(root)


def _taken_as(owner: Mapping[str, Any], root: str) -> list[str]:
    """The root as whoever took it spelled it, if that is the same place."""
    try:
        written = owner["configuration"]["output"]["root"]
        return [written] if same_place(written, root) else []
    except (ConfigurationError, KeyError, TypeError, ValueError):  # what a root says of itself is data
        return []


def read_owner(storage: Storage) -> dict[str, Any] | None:
    """What `pipeline.json` says, or None where nobody has taken the root."""
    found = storage.read_versioned(paths.PIPELINE)
    return None if found is None else _parse_owner(storage, found[0])


def _parse_owner(storage: Storage, data: bytes) -> dict[str, Any]:
    if (owner := parse_owner(data)) is not None:
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
    if owner["pipeline"] not in (settings.name, *adhoc_names(owner, storage.uri)):
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


def refuse_remains(storage: Storage) -> None:
    """Raise ConfigurationError where a root without a plan holds what a pipeline has written.

    A new plan would write over it, and take its shards for its own.
    """
    if generations(storage):
        return
    for folder in ("shards", "merged", "plan"):
        for info in itertools.islice(storage.list(folder), NAMES_LOOKED_AT):
            if paths.is_own_name(info.path) or info.path in (paths.CURRENT, paths.plan_summary(1)):
                raise ConfigurationError(
                    f"output root {storage.uri} holds {info.path}, but no plan that it would belong to; restore the "
                    "root's plan/ from a copy, or name another output root"
                )


def attach(
    settings: PipelineSettings,
    ledger: Ledger,
    storage: Storage,
    *,
    add_source: bool = False,
    take: bool = False,
) -> bool:
    """Agree with the root on an epoch; True if the root may hold shards that the ledger does not know of.

    Each ledger that comes to a root gets an epoch of its own, and with it its own range of
    fences: two ledgers never write a data file of one name. Where two work by turns on the
    same plans, neither forgets what it has queued: they would keep each other from finishing.

    A root that nobody has and nothing is planned under is taken only with `take`. Until then
    nothing is written, so that a first plan that cannot be made leaves nothing that would have to be
    deleted. Each taking has a random id: a root that was removed and made anew is another one.

    Raises ConfigurationError where the name is at work on another root: the ledger would forget
    that root's shards while they are embedded; and where the root's store ignores conditions on writes, which is
    found out before anything is written there.
    """
    _refuse_moving_at_work(settings.name, ledger, storage.uri)
    source = source_identity(settings)
    for _ in range(ATTACH_TRIES):
        row = ledger.pipeline(settings.name)
        same = row is not None and same_place(row.root, storage.uri)
        known = row.epoch if row is not None and same else 0
        # One that is reached by another way, such as a link, stays what it was.
        root = row.root if row is not None and same else storage.uri
        found = check_owner(settings, storage, add_source=add_source)
        if found is None:
            if not (take or generations(storage)):
                if row is None or not known or row.generation:  # what the ledger knew is gone with the root
                    ledger.attach(settings.name, root, known + 1 if known else UNTAKEN)
                    crash_point("pipeline-attached")
                return False
            require_conditions(storage)
            epoch = max(known, _epoch_in_use(storage)) + 1
            # Where nothing but the file was lost it is the same root, and its jobs keep their names.
            keeps_id = known and generations(storage) and _knows_plans(ledger, settings.name, storage)
            deployment = (row.deployment if row is not None and keeps_id else None) or secrets.token_hex(8)
            if storage.create(paths.PIPELINE, _owner(settings, epoch, [source], deployment, _new_taking())):
                crash_point("root-taken")
                ledger.attach(settings.name, root, epoch, deployment=deployment)
                return True
            continue
        owner, data, version = found
        fresh = row is None or not is_known(owner, row) or not known
        epoch, deployment = max(known, owner["epoch"]) + 1 if fresh else known, owner.get("deployment")
        sources = list(dict.fromkeys([*owner["source"], source]))
        taking = _new_taking() if fresh else owner.get("taking")
        changed = _owner(settings, epoch, sources, deployment, taking, *_taken_as(owner, storage.uri))
        if changed == data:
            return False
        require_conditions(storage)
        if storage.replace(paths.PIPELINE, changed, version):
            if fresh:
                agreed = row is not None and row.deployment == deployment
                keep = agreed and 0 < known < owner["epoch"] and _knows_plans(ledger, settings.name, storage)
                ledger.attach(settings.name, root, epoch, keep=keep, deployment=deployment)
            return fresh
    raise ConfigurationError(
        f"{storage.uri}/{paths.PIPELINE} was changed by others {ATTACH_TRIES} times in a row; "
        "is another ledger working on this root? Give both the same BATCH_ASSETS_LEDGER_URL"
    )


def is_known(owner: Mapping[str, Any], row: PipelineRow) -> bool:
    """Whether `owner`, of `pipeline.json`, is what the ledger has agreed on with this very root."""
    told = (owner["pipeline"], owner["epoch"], owner.get("deployment"))
    return told == (row.name, row.epoch, row.deployment)


def _epoch_in_use(storage: Storage) -> int:
    """The epoch of the newest fence in the names under a root whose `pipeline.json` was lost; 0 where there is none."""
    files = (info.path for folder in ("shards", "jobs") for info in storage.list(folder))
    fences = (fence for path in files if (fence := paths.fence_of(path)) is not None)
    newest = max(fences, default=0)
    return -(-newest // FENCES_PER_EPOCH)


def _refuse_moving_at_work(name: str, ledger: Ledger, root: str) -> None:
    row = ledger.pipeline(name)
    if row is None or same_place(row.root, root):
        return
    # Whoever renders a shard's requests holds it too, while it stays PREPARED.
    for shard in ledger.shards(
        name, states=[State.PREPARED, State.RUNNING, State.COLLECTING], superseded=True
    ):
        if shard.holder is not None and ledger.is_held(name, shard.key):
            raise ConfigurationError(
                f"pipeline {name!r} is at work on output root {row.root} (shard {shard.key} is held by "
                f"{shard.holder}), so it cannot move to {root}; give the pipeline of {root} another `name`"
            )
    if under_way := ledger.submissions(pipeline=name, states=LIVE_SUBMISSION):
        names = ", ".join(submission.name for submission in under_way[:NAMED])
        more = f" and {len(under_way) - NAMED} more" if len(under_way) > NAMED else ""
        raise ConfigurationError(
            f"pipeline {name!r} has jobs under way for output root {row.root} ({names}{more}), whose results would "
            f"find no shard any more if it moved to {root}; wait until they have ended, or end them with "
            f"`batch-assets stop {name}`, or give the pipeline of {root} another `name`"
        )


def _knows_plans(ledger: Ledger, name: str, storage: Storage) -> bool:
    """Whether the plans that the ledger knows are still those of the root, which may have been made anew."""
    row = ledger.pipeline(name)
    known = {shard.key: shard.records for shard in ledger.shards(name, superseded=True)}
    planned: dict[str, int] = {}
    for generation in generations(storage):
        if row is not None and generation <= row.generation:
            planned |= {shard.key: shard.records for shard in read_plan(storage, generation)[1]}
    return known == planned


def source_identity(settings: PipelineSettings) -> str:
    """The source in one spelling."""
    return normalize_source(source_uri(settings))


def _new_taking() -> str:
    """Differs each time an epoch is taken: it tells whose the write was where its answer was lost."""
    return secrets.token_hex(8)


def _owner(
    settings: PipelineSettings,
    epoch: int,
    sources: list[str],
    deployment: str | None,
    taking: str | None,
    root: str | None = None,
) -> bytes:
    """What `pipeline.json` says; `root` is how whoever took it spelled it, by which an ad hoc pipeline is called."""
    configuration = settings.model_dump(mode="json")
    configuration["output"]["root"] = root or settings.output.root
    content = {
        # Older roots have no id, and stay so: whoever knew them would take them for other ones.
        **({"deployment": deployment} if deployment is not None else {}),
        **({"taking": taking} if taking is not None else {}),
        "pipeline": settings.name,
        "epoch": epoch,
        "source": sources,
        "configuration": configuration,
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"
