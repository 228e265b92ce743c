"""Stages chained by shard: a shard may begin when its namesake upstream is done, and not before.

The ledger carries these dependencies, in one query, whatever their number. What a shard's records
then are is `sharding/upstream.py`'s business; what follows where the upstream computes one again is
in `upstream_changes.py`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from batch_assets import paths
from batch_assets.control.ownership import is_known, read_owner
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import PipelineRow, ShardRow
from batch_assets.ledger.states import State
from batch_assets.retry_policy import QUIET_SECONDS
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.upstream import upstream_root
from batch_assets.sources.shards import reads_shards_of
from batch_assets.storage import Storage, open_storage, same_place
from batch_assets.storage.threads import map_in_order, threads_for

NAMED = 5
ASKED_ONE_BY_ONE = 100


def is_chained(settings: PipelineSettings) -> bool:
    """Whether the pipeline's source is another one's shards."""
    return settings.source.pipeline is not None


def upstream_name(settings: PipelineSettings) -> str:
    """The pipeline whose shards are the source."""
    assert settings.source.pipeline is not None, settings.name
    return settings.source.pipeline


def upstream_storage(settings: PipelineSettings) -> Storage:
    """The upstream's output root."""
    assert settings.source.uri is not None, settings.name
    return upstream_root(settings.source.uri)


def known_upstream(settings: PipelineSettings, ledger: Ledger) -> PipelineRow | None:
    """The upstream, where this ledger is the one that works on its root; None where only its files tell."""
    row = ledger.pipeline(upstream_name(settings))
    storage = upstream_storage(settings)
    if row is None or not same_place(row.root, storage.uri):
        return None
    owner = read_owner(storage)
    return row if owner is not None and is_known(owner, row) else None


def ready_shards(settings: PipelineSettings, ledger: Ledger, keys: Sequence[str]) -> set[str]:
    """Those of `keys` whose records are there: all of them, unless another pipeline is to make them first."""
    if not is_chained(settings) or not keys:
        return set(keys)
    upstream = known_upstream(settings, ledger)
    if upstream is not None:
        return {row.key for row in ledger.shards(upstream.name, keys=keys, states=[State.COLLECTED])}
    return _committed(upstream_storage(settings), keys)


def _committed(root: Storage, keys: Collection[str]) -> set[str]:
    """Those of `keys` that have a commit marker."""
    if len(keys) > ASKED_ONE_BY_ONE:
        listed = (info.path for info in root.list("shards") if info.path.endswith("/shard.json"))
        return {path.split("/")[1] for path in listed} & set(keys)
    there = map_in_order(lambda key: root.info(paths.shard_marker(key)), keys, threads_for(root))
    return {key for key, info in zip(keys, there, strict=True) if info is not None}


def startable_shards(
    settings: PipelineSettings, ledger: Ledger, states: Collection[State], limit: int | None = None
) -> list[ShardRow]:
    """Shards in `states` that may go on now, ordered by key, at most `limit`: planned ones only if ready."""
    if not is_chained(settings) or State.PLANNED not in states:
        return ledger.shards(settings.name, states=states, limit=limit)
    upstream = known_upstream(settings, ledger)
    if upstream is not None:
        ready = ledger.ready_after(settings.name, upstream.name, limit)
    else:
        planned = ledger.shards(settings.name, states=[State.PLANNED])
        there = ready_shards(settings, ledger, [row.key for row in planned])
        ready = [row for row in planned if row.key in there]
    others = ledger.shards(settings.name, states=set(states) - {State.PLANNED}, limit=limit)
    return sorted([*ready, *others], key=lambda row: row.key)[:limit]


def waiting_sentence(settings: PipelineSettings, keys: Sequence[str]) -> str:
    """Why these shards cannot begin yet."""
    name = upstream_name(settings)
    several = f"shards {_named(keys)} wait for the shards of the same names" if len(keys) > 1 else ""
    what = several or f"shard {keys[0]} waits for the shard of the same name"
    return f"{what} in pipeline {name}, not collected there yet; see `batch-assets status {name}`"


@dataclass(frozen=True)
class Waiting:
    """What the planned shards wait for: `keys` for the upstream, while `ready` ones could begin.

    `exhausted` are those whose namesake the upstream has given up, with its reason; `at_work`
    whether somebody is at the others.
    """

    upstream: str
    keys: Sequence[str] = ()
    exhausted: dict[str, str] = field(default_factory=dict)
    at_work: bool = False
    ready: bool = False

    def sentence(self) -> str:
        """For how many shards of which pipeline."""
        return f"waiting for {len(self.keys):,} shards of pipeline {self.upstream}"

    def stands_still(self) -> str:
        """That nobody is at them, and what to do about it."""
        return (
            f"{len(self.keys):,} shards wait for pipeline {self.upstream} ({_named(self.keys)}), and nobody is at work "
            f"there; `batch-assets run {self.upstream}` goes on with it, then the same command here"
        )

    def given_up(self) -> str:
        """Which shards will not come."""
        [reason, *_] = self.exhausted.values()
        return (
            f"{len(self.exhausted):,} shards are given up in pipeline {self.upstream} ({_named(list(self.exhausted))}: "
            f"{reason}), and so are missing here; mend it, then `batch-assets retry {self.upstream}`"
        )


def _named(keys: Sequence[str]) -> str:
    return ", ".join(keys[:NAMED]) + (", …" if len(keys) > NAMED else "")


def look_upstream(settings: PipelineSettings, ledger: Ledger) -> Waiting:
    """What this pipeline's planned shards wait for."""
    name = upstream_name(settings)
    planned = [row.key for row in ledger.shards(settings.name, states=[State.PLANNED])]
    ready = ready_shards(settings, ledger, planned)
    waiting = [key for key in planned if key not in ready]
    upstream = known_upstream(settings, ledger)
    if not waiting or upstream is None:
        return Waiting(name, waiting, ready=bool(ready))
    given_up = ledger.shards(name, keys=waiting, states=[State.EXHAUSTED])
    exhausted = {row.key: row.error or "no reason is known" for row in given_up}
    return Waiting(
        name,
        [key for key in waiting if key not in exhausted],
        exhausted,
        at_work=_is_at_work(ledger, upstream),
        ready=bool(ready),
    )


def _is_at_work(ledger: Ledger, upstream: PipelineRow) -> bool:
    """Whether somebody is at its shards, or at those that it waits for itself: it moves when they do."""
    seen, above = set[str](), upstream
    while above is not None and above.name not in seen and not above.stop_requested:
        if _moves(ledger, above):
            return True
        seen.add(above.name)
        above = _above(ledger, above)
    return False


def _above(ledger: Ledger, pipeline: PipelineRow) -> PipelineRow | None:
    """The pipeline whose shards are this one's source, where this ledger knows it."""
    owner = read_owner(open_storage(pipeline.root))
    sources = owner["source"] if owner is not None else ()
    found = (row for row in ledger.pipelines() if reads_shards_of(row.root, sources))
    return next(found, None)


def _moves(ledger: Ledger, upstream: PipelineRow) -> bool:
    """Whether a shard of the pipeline is queued, and will be submitted, or is held, or has moved of late."""
    counts = ledger.counts(upstream.name)
    if any(counts[state] for state in (State.SUBMITTING, State.SUBMITTED)):
        return True
    # What is refused stays queued until a person has mended it.
    if counts[State.QUEUED] and ledger.money(upstream.name).refused is None:
        return True
    running = ledger.shards(upstream.name, states=[State.RUNNING, State.COLLECTING])
    at_service = upstream.deferred and any(
        row.state is State.RUNNING and row.holder is None for row in running
    )
    if at_service or any(ledger.is_held(upstream.name, row.key) for row in running):
        return True
    return ledger.now() - ledger.last_change(upstream.name) < QUIET_SECONDS
