"""A shard that a worker has committed, as outcomes: what another executor would have given."""

from collections.abc import Iterator

from batch_assets import paths
from batch_assets.embeddings.committed import load_committed
from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.job_rows import JobRows
from batch_assets.embeddings.marker import read_marker
from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.embeddings.parquet_files import open_parquet
from batch_assets.errors import AccountingError
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan import Shard
from batch_assets.sharding.plan_files import read_summary
from batch_assets.sharding.reading import read_shard
from batch_assets.storage import Storage


def committed_outcomes(
    root: Storage, settings: PipelineSettings, shard: Shard, facts: JobFacts
) -> Iterator[Outcomes]:
    """Every record of the shard once, in source order. Raises AccountingError where nothing is committed."""
    found = read_marker(root, shard.key)
    if found is None:
        raise AccountingError(f"shard {shard.key}: its worker has committed nothing")
    marker = found[0]
    facts.model, facts.dtype, facts.device = marker.model, marker.dtype, marker.device
    facts.dimensions, facts.cost_usd = marker.dimensions, marker.cost_usd
    facts.timings.update(marker.timings)
    plan = read_summary(root, paths.shard_generation(shard.key))
    with open_parquet(root, marker.failures.path) as file:
        table = file.read(
            ["source_file", "source_row", "error_code", "error_message", "attempts"]
        ).to_pylist()
    failed = {(row["source_file"], row["source_row"]): row for row in table}
    with JobRows(shard.records) as rows:
        load_committed(root, marker.embeddings.path, read_shard(settings, shard, plan, root), rows)
        for records in read_shard(settings, shard, plan, root):
            for ordinal, *origin in zip(
                records.ordinals, records.source_files, records.source_rows, strict=True
            ):
                row = failed.get((origin[0], origin[1]))
                if row is not None:
                    rows.fail(ordinal, row["error_code"], row["error_message"], row["attempts"])
            yield rows.outcomes(records)
