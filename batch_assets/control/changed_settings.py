"""Whether a pipeline that is held back has settings that were not tried: one submission shows whether they work.

Why it is held back is in `breaker.py`.
"""

import hashlib

from batch_assets.control.pipeline import Pipeline
from batch_assets.ledger.rows import BreakerRow
from batch_assets.plain_text import plain_logger

logger = plain_logger(__name__)


def follow_settings(pipeline: Pipeline) -> None:
    """Send a probe where the pipeline is held back, and has settings that have not been tried."""
    row = pipeline.ledger.breaker(pipeline.name)
    if row is not None and pipeline.ledger.probe_anew(pipeline.name, settings_digest(pipeline)):
        logger.info(
            "pipeline %s: its settings have changed; one submission shows whether they work", pipeline.name
        )


def settings_digest(pipeline: Pipeline) -> str:
    """Of all that is asked of the service, and as whom: model, prompt and request, role, region, places, limits.

    By what is written, not by the model's own files: each turn of the control loop asks, and must not fetch a model.
    """
    settings = pipeline.settings
    asked = f"{settings.model.model_dump_json()} {settings.executor.model_dump_json()}"
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


def probing_sentence(row: BreakerRow) -> str:
    """What a pipeline waits for while one submission at a time is sent."""
    return (
        f"how one more submission ends, since the last jobs failed as a whole. If it does, too: {row.message}"
    )
