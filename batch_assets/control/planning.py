"""Planning rounds: from the source's files to registered shards.

How files are cut is `sharding/planner.py`'s business; this module decides when a new
generation is due, and makes it known to the ledger.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from batch_assets.control.pipeline import Pipeline, register_generation
from batch_assets.errors import ConfigurationError, NotReady, SourceError
from batch_assets.settings import PipelineSettings
from batch_assets.sharding.plan import PlanSummary
from batch_assets.sharding.plan_files import generations, read_summary, write_plan
from batch_assets.sharding.planner import plan_generation


@dataclass
class PlanningResult:
    """What a planning round did. `new_keys` is empty where the source held nothing new."""

    generation: int
    new_keys: list[str]
    all_keys: list[str]
    records: int
    bytes: int
    touched: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)
