"""Shards that the upstream has computed again since they were made: found cheaply, replaced by order.

The ledger's files remember, for each chained shard, which commit of the upstream it was prepared
from. Where the ledger knows the upstream, only shards with another fence by now are looked at
in the files; a commit with the same rows in it is no change.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from batch_assets.control.chaining import known_upstream, upstream_storage
from batch_assets.errors import SourceError
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import ShardRow
from batch_assets.ledger.states import State
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.upstream import UpstreamCommit, current_commit, noted_commit
from batch_assets.sources.shards import shard_file
from batch_assets.storage import open_storage
from batch_assets.storage.threads import map_in_order, threads_for

SHARDS_PER_LOOK = 1_000
AT_REST = (State.PREPARED, State.READY, State.COLLECTED, State.EXHAUSTED)


@dataclass(frozen=True)
class Look:
    """Keys of shards that are touched; `cursor` is where the next look goes on, if there is more."""

    touched: list[str]
    cursor: str | None


def find_touched(settings: PipelineSettings, ledger: Ledger) -> list[str]:
    """All shards, by key, that were made from a commit that the upstream has replaced since."""
    touched: list[str] = []
    after = None
    while rows := ledger.shards(settings.name, after=after, limit=SHARDS_PER_LOOK):
        touched += _touched_among(settings, ledger, rows)
        after = rows[-1].key
    return touched


def look_for_touched(settings: PipelineSettings, ledger: Ledger, cursor: str | None) -> Look:
    """The same for what the upstream has committed behind `cursor`, a bounded number of shards at a time.

    With None it begins at the first shard. Where the ledger does not know the upstream, it goes
    through all shards, over and over.
    """
    upstream = known_upstream(settings, ledger)
    if upstream is None:
        behind = cursor.removeprefix("key:") if cursor is not None and cursor.startswith("key:") else None
        rows = ledger.shards(settings.name, after=behind, limit=SHARDS_PER_LOOK)
        more = len(rows) == SHARDS_PER_LOOK
        return Look(_touched_among(settings, ledger, rows), f"key:{rows[-1].key}" if more else None)
    known = cursor is not None and cursor.startswith("revision:")
    revision = int(cursor.removeprefix("revision:")) if known and cursor is not None else 0
    changed = ledger.changes(revision, SHARDS_PER_LOOK, upstream.name)
    keys = [row.key for row in changed if row.state is State.COLLECTED]
    rows = ledger.shards(settings.name, keys=keys)
    newest = changed[-1].revision if changed else revision
    return Look(_touched_among(settings, ledger, rows), f"revision:{newest}")


def _touched_among(settings: PipelineSettings, ledger: Ledger, rows: Iterable[ShardRow]) -> list[str]:
    """The keys of the touched ones; the ledger is told of them, and of those that are as they were again."""
    begun = [row.key for row in rows if row.state is not State.PLANNED]
    commits = _noted(settings, ledger, begun)
    suspects = _suspects(settings, ledger, commits)
    root = upstream_storage(settings)

    def differs(key: str) -> bool:
        try:
            return current_commit(root, key).embeddings.sha256 != commits[key].sha256
        except SourceError:
            return False  # not committed any more, or not to be read: whoever reads it says so

    found = zip(suspects, map_in_order(differs, suspects, threads_for(root)), strict=True)
    touched = [key for key, changed in found if changed]
    ledger.mark_files(settings.name, [shard_file(key) for key in touched], "touched")
    whole = commits.keys() - set(touched)
    ledger.restore_files(settings.name, [shard_file(key) for key in sorted(whole)])
    return touched


def _suspects(settings: PipelineSettings, ledger: Ledger, commits: dict[str, UpstreamCommit]) -> list[str]:
    """Shards whose namesake may have another commit by now: with another fence, as far as the ledger knows."""
    upstream = known_upstream(settings, ledger)
    if upstream is None:
        return sorted(commits)
    rows = ledger.shards(upstream.name, keys=sorted(commits), states=[State.COLLECTED])
    return [row.key for row in rows if row.fence != commits[row.key].fence]


def _noted(settings: PipelineSettings, ledger: Ledger, keys: Sequence[str]) -> dict[str, UpstreamCommit]:
    """The commits that these shards were prepared from; what a new ledger lacks, the input manifests tell."""
    versions = ledger.file_versions(settings.name, [shard_file(key) for key in keys])
    found = {key: UpstreamCommit.parse(versions.get(shard_file(key), "")) for key in keys}
    storage = open_storage(settings.output.root)
    unknown = [key for key, commit in found.items() if commit is None]
    read = map_in_order(lambda key: noted_commit(storage, key), unknown, threads_for(storage))
    told = {key: commit for key, commit in zip(unknown, read, strict=True) if commit is not None}
    note_commits(settings, ledger, told)
    return {key: commit for key, commit in {**found, **told}.items() if commit is not None}


def note_commits(settings: PipelineSettings, ledger: Ledger, commits: dict[str, UpstreamCommit]) -> None:
    """Tell the ledger which commits these shards are prepared from."""
    ledger.set_versions(settings.name, {shard_file(key): commit.version for key, commit in commits.items()})


def begin_anew(
    settings: PipelineSettings, ledger: Ledger, keys: Sequence[str], states: Collection[State] = AT_REST
) -> list[str]:
    """Have these shards prepared and computed again from what the upstream has now; those that could be.

    What is published stays until then. A shard that somebody is at is left as it is.
    """
    moved = ledger.plan_again(settings.name, keys, states)
    ledger.set_versions(settings.name, {shard_file(key): "" for key in moved})
    return moved
