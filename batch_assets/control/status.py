"""How far a pipeline is, in numbers. How they are shown belongs to `cli/` and the UI."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from batch_assets.control.changed_settings import probing_sentence
from batch_assets.control.estimate import expected_cost
from batch_assets.embeddings.accounting import Accounting
from batch_assets.executors.base import Executor
from batch_assets.executors.registry import create_host
from batch_assets.executors.service_jobs import ServiceJobs, has_results
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import AT_SERVICE, ENDED, LIVE_SUBMISSION, BreakerState, State
from batch_assets.merge.parity import read_parity
from batch_assets.merge.publishing import open_current
from batch_assets.requests.account import RequestAccount, read_account
from batch_assets.requests.database import deployment_database
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.unreadable import describe_unreadable, read_unreadable
from batch_assets.storage import open_storage

RECENT_SHARDS = 20
ACTIVE = (State.SUBMITTING, State.SUBMITTED, State.RUNNING, State.COLLECTING)


@dataclass(frozen=True)
class Status:
    """What `status --json` prints; `accounting` is of the published version where there is one.

    `blocked` says why nothing more is submitted, `parity` what that check found of the published
    version, None where it was not made; `unreadable`, which source files no plan could read, so that they are
    left out; `requests`, of a pipeline of requests, their account. `records_per_second` is over the last shards;
    `eta_seconds` is None while no rate is known.
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
    blocked: str | None = None
    parity: str | None = None
    unreadable: str | None = None
    requests: RequestAccount | None = None

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
    storage = open_storage(settings.output.root)
    manifest = open_current(storage)
    parity = read_parity(storage, manifest.version) if manifest else None
    records = {
        "planned": totals.planned,
        "embedded": totals.embedded,
        "rejected": totals.rejected,
        "failed": totals.failed,
    }
    rate = ledger.recent_rate(name, RECENT_SHARDS)
    collected = totals.embedded + totals.rejected + totals.failed
    left = max(0, totals.planned - collected)
    executor = create_host(settings.executor.type).executor(settings)
    money = ledger.money(name) if row is not None else None
    spent = money.spent_usd if money is not None else 0.0
    return Status(
        pipeline=name,
        generation=row.generation if row else 0,
        shards=counts,
        records=records,
        slots=_slots(executor, ledger, counts),
        cost_usd=spent,
        expected_usd=_expected(executor, ledger, name, spent, collected, totals.planned),
        eta_seconds=0.0 if not left else (left / rate if rate else None),
        version=manifest.version if manifest else None,
        records_per_second=rate,
        stale_shards=totals.stale_shards,
        accounting=manifest.accounting if manifest else Accounting(**records),
        blocked=_blocked(ledger, name) if row is not None else None,
        parity=parity.sentence if parity else None,
        unreadable=describe_unreadable(unreadable) if (unreadable := read_unreadable(storage)) else None,
        requests=None
        if settings.source.requests is None
        else read_account(deployment_database(), ledger, name),
    )


def _blocked(ledger: Ledger, name: str) -> str | None:
    """Why nothing more is submitted, or one submission at a time."""
    row = ledger.breaker(name)
    if row is not None and row.state is BreakerState.PROBING:
        counts = ledger.counts(name)
        if any(counts[state] for state in (State.QUEUED, *AT_SERVICE, *ENDED)):
            return probing_sentence(row)
    return ledger.money(name).blocked


def _slots(executor: Executor, ledger: Ledger, counts: Mapping[str, int]) -> dict[str, int]:
    """Slots in use, others' jobs among them, and how many there are, as the ledger saw them last."""
    if executor.in_place:
        used = sum(counts.get(state.value, 0) for state in ACTIVE)
        return {"used": used, "limit": max(used, executor.limits.jobs or 0)}
    name = cast("ServiceJobs", executor).quota_group
    scope = ledger.scope(name)
    used = len(ledger.submissions(scope=name, states=LIVE_SUBMISSION)) + scope.foreign_jobs
    return {"used": used, "limit": max(used, scope.slots or 0)}


def _expected(
    executor: Executor, ledger: Ledger, name: str, spent: float, collected: int, planned: int
) -> float:
    """What the whole pipeline will have cost: by what is collected, else by its estimated tokens."""
    if executor.in_place:
        return 0.0
    if spent and collected:
        return round(spent * planned / collected, 6)
    if not has_results(executor):
        return 0.0  # priced by time, of which nothing is known yet
    tokens, answers = ledger.totals(name).tokens, executor.token_bounds()[1] * planned
    small = ledger.small_shards(name, executor.limits.min_records)
    return round(expected_cost(executor, tokens, answers, small, planned) or 0.0, 6)
