"""A pipeline or a queue that cannot be loaded, as Dagster shows it: its assets, which say why and make nothing.

They keep their keys and partitions: what depends on them stays in its place, a run that was asked for before
says why it fails, and once the file is mended all goes on. No sensor acts for them.
"""

import re
from collections.abc import Collection, Sequence

import dagster as dg

from batch_assets.orchestration import metadata
from batch_assets.orchestration.markdown import markdown_list
from batch_assets.orchestration.partitions import SHARDS_PER_RUN, shard_partitions
from batch_assets.orchestration.request_queue import queue_keys
from batch_assets.plain_text import plain_text
from batch_assets.settings.pipeline import PIPELINE_NAME

ASSETS = ("shard_plan", "input_shards", "submitted_jobs", "embedding_outputs", "merged_embeddings")
OF_ALL_SHARDS = ("shard_plan", "merged_embeddings")
BROKEN = "broken"


def build_broken_definitions(name: str, reasons: Sequence[str]) -> dg.Definitions:
    """The assets of the pipeline `name`, which cannot be loaded for these reasons."""
    shown = name_shown(name)
    keys = [dg.AssetKey([shown, asset]) for asset in ASSETS]
    return dg.Definitions(
        assets=[
            _build(key, before, shown, reasons, kind="pipeline", by_shard=key.path[-1] not in OF_ALL_SHARDS)
            for key, before in zip(keys, [None, *keys[:-1]], strict=True)
        ]
    )


def build_broken_queue(name: str, reason: str) -> dg.Definitions:
    """The assets of the queue of requests `name`, which cannot be loaded."""
    shown = name_shown(name)
    requests, results = queue_keys(shown)
    return dg.Definitions(
        assets=[
            _build(requests, None, shown, [reason], kind="queue"),
            _build(results, requests, shown, [reason], kind="queue"),
        ]
    )


def name_shown(name: str) -> str:
    """`name`, or what Dagster takes in place of one that is no pipeline's: it begins with `_`, as theirs never do."""
    if PIPELINE_NAME.fullmatch(name):
        return name
    return "_" + re.sub(r"[^A-Za-z0-9_]", "_", name).lstrip("_")


def shown_beside(name: str, others: Collection[str]) -> str:
    """The name under which one that is called `name` is shown, where `others` are loaded: none of theirs."""
    return name_shown(f"_{name}" if name in others else name)


def _build(
    key: dg.AssetKey,
    before: dg.AssetKey | None,
    name: str,
    reasons: Sequence[str],
    *,
    kind: str,
    by_shard: bool = False,
) -> dg.AssetsDefinition:
    @dg.asset(
        key=key,
        group_name=name,
        tags={metadata.OWN_TAG: ""},
        deps=[before] if before else [],
        partitions_def=shard_partitions(name) if by_shard else None,
        backfill_policy=dg.BackfillPolicy.multi_run(SHARDS_PER_RUN) if by_shard else None,
        description=f"**This {kind} cannot be loaded, and does nothing:**\n\n{markdown_list(reasons)}",
        kinds={BROKEN},
    )
    def broken() -> None:
        raise dg.Failure(description="; ".join(plain_text(reason) for reason in reasons), allow_retries=False)

    return broken
