"""A pipeline that cannot be loaded, as Dagster shows it: its five assets, each of which says why and makes nothing.

They keep their keys and partitions: what depends on them stays in its place, a run that was asked for before
says why it fails, and once the file is mended all goes on. No sensor acts for them.
"""

import re
from collections.abc import Collection, Sequence

import dagster as dg

from batch_assets.orchestration import metadata
from batch_assets.orchestration.markdown import markdown_list
from batch_assets.orchestration.partitions import SHARDS_PER_RUN, shard_partitions
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
            _build(key, before, shown, reasons) for key, before in zip(keys, [None, *keys[:-1]], strict=True)
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
    key: dg.AssetKey, before: dg.AssetKey | None, name: str, reasons: Sequence[str]
) -> dg.AssetsDefinition:
    of_all = key.path[-1] in OF_ALL_SHARDS

    @dg.asset(
        key=key,
        group_name=name,
        tags={metadata.OWN_TAG: ""},
        deps=[before] if before else [],
        partitions_def=None if of_all else shard_partitions(name),
        backfill_policy=None if of_all else dg.BackfillPolicy.multi_run(SHARDS_PER_RUN),
        description=f"**This pipeline cannot be loaded, and does nothing:**\n\n{markdown_list(reasons)}",
        kinds={BROKEN},
    )
    def broken() -> None:
        raise dg.Failure(description="; ".join(plain_text(reason) for reason in reasons), allow_retries=False)

    return broken
