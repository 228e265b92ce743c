"""Taking up again what was given up: whole shards, and committed ones with failed records."""

from collections.abc import Collection, Sequence

from batch_assets.errors import ConfigurationError
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import Place
from batch_assets.ledger.states import State
from batch_assets.settings.pipeline import PipelineSettings


def retry_shards(
    settings: PipelineSettings, ledger: Ledger, keys: Sequence[str] | None, *, recompute: bool
) -> list[str]:
    """Make shards ready again: exhausted and stopped ones, those with failed records, all if `recompute`.

    `keys` restricts it to those shards. Returns the keys that are ready now. Raises
    ConfigurationError for a key that is not planned.
    """
    name = settings.name
    if keys:
        known = {row.key for row in ledger.shards(name, keys=keys)}
        if missing := [key for key in keys if key not in known]:
            raise ConfigurationError(
                f"{', '.join(missing)}: no such shard in pipeline {name}; see `batch-assets status {name}`"
            )
    ledger.clear_stop(name)
    ledger.clear_blocked(name)
    ledger.probe_anew(name)
    ready = ledger.retry(name, keys or None) + ledger.start_again(name, keys or None)
    committed = ledger.shards(name, keys=keys or None, states=[State.COLLECTED])
    again = [row.key for row in committed if recompute or row.failed]
    # The old rows stay published until the shard is committed anew. What is paid for is not paid
    # for again: at a service, only the failed records are.
    keep = not settings.executor.in_place and not recompute
    return sorted(set(ready + ledger.recompute(name, again, keep=keep)))


def recompute_shards(
    ledger: Ledger, name: str, keys: Sequence[str], done_by: Collection[str], place: Place | None
) -> None:
    """Have committed shards computed again, but those that a run of `done_by` has computed.

    `done_by` are the runs of one order, so that its second try goes on where the first ended. None is where
    the pipeline is not at `place` any more.
    """
    committed = ledger.shards(name, keys=keys, states=[State.COLLECTED])
    ledger.recompute(name, [row.key for row in committed if row.run_id not in done_by], place=place)
