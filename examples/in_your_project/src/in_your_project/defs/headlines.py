"""An asset with partitions of another kind: a file of headlines for each day."""

import json
from pathlib import Path

import dagster as dg

HEADLINES = Path(__file__).parents[3] / "data" / "headlines"


@dg.asset(
    partitions_def=dg.DailyPartitionsDefinition(start_date="2026-01-01"), required_resource_keys={"gpu"}
)
def headlines(context: dg.AssetExecutionContext) -> None:
    """What was on the front page that day."""
    HEADLINES.mkdir(parents=True, exist_ok=True)
    day = context.partition_key
    record = {"id": day, "text": f"What happened on {day}, and what did not"}
    (HEADLINES / f"{day}.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    context.log.info(f"the picture beside it comes from {context.resources.gpu}")
