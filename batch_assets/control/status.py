"""How far a pipeline is, in numbers. How they are shown belongs to `cli/` and the UI."""

from dataclasses import dataclass

from batch_assets.embeddings.accounting import Accounting
from batch_assets.executors.registry import create_host
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State
from batch_assets.merge.publishing import open_current
from batch_assets.settings import PipelineSettings
from batch_assets.storage import open_storage

RECENT_SHARDS = 20
ACTIVE = (State.SUBMITTING, State.SUBMITTED, State.RUNNING, State.COLLECTING)


@dataclass(frozen=True)
class Status:
    """What `status --json` prints; `accounting` is of the published version where there is one.

    `records_per_second` is over the last shards; `eta_seconds` is None while no rate is known.
    """

    pipeline: str
    generation: int
    shards: dict[str, int]
    records: dict[str, int]
    slots: dict[str, int]
    cost_usd: float
    expected_usd: float
    eta_seconds: float | None
    version: str | None
    records_per_second: float | None
    stale_shards: int
    accounting: Accounting

    @property
    def finished_records(self) -> int:
        """Records of which the outcome is known."""
        return self.records["embedded"] + self.records["rejected"] + self.records["failed"]


def read_status(settings: PipelineSettings, ledger: Ledger) -> Status:
    """The state of a pipeline from the ledger's sums and the published manifest; cheap at any size."""
    name = settings.name
    row = ledger.pipeline(name)
    counts = {state.value: count for state, count in ledger.counts(name).items() if count}
    totals = ledger.totals(name)
    manifest = open_current(open_storage(settings.output.root))
    records = {
        "planned": totals.planned,
        "embedded": totals.embedded,
        "rejected": totals.rejected,
        "failed": totals.failed,
    }
    rate = ledger.recent_rate(name, RECENT_SHARDS)
    collected = totals.embedded + totals.rejected + totals.failed
    left = max(0, totals.planned - collected)
    used = sum(counts.get(state.value, 0) for state in ACTIVE)
    limit = create_host(settings.executor.type).executor(settings).limits.jobs
    return Status(
        pipeline=name,
        generation=row.generation if row else 0,
        shards=counts,
        records=records,
        slots={"used": used, "limit": max(used, limit or 0)},
        cost_usd=0.0,
        expected_usd=0.0,
        eta_seconds=0.0 if not left else (left / rate if rate else None),
        version=manifest.version if manifest else None,
        records_per_second=rate,
        stale_shards=totals.stale_shards,
        accounting=manifest.accounting if manifest else Accounting(**records),
    )
