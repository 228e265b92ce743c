"""A pipeline's requests in Dagster: looked at every minute, as figures and checks of its `shard_plan`.

How many are open, since when, and how long the last ones took. A look changes nothing.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import numpy as np

from batch_assets.errors import BatchAssetsError
from batch_assets.ledger.ledger import Ledger
from batch_assets.orchestration import metadata
from batch_assets.patience import in_a_tick, pause
from batch_assets.plain_text import plain_text
from batch_assets.requests.account import RequestAccount, read_account
from batch_assets.requests.batches.store import BatchStore
from batch_assets.requests.database import deployment_database
from batch_assets.requests.latency import recent_latencies
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.settings.retention import write_age

ACCOUNT, ANSWERS, BATCHES = "account", "answers", "batches"
FAILED_WITHIN_SECONDS, NAMED = 24 * 3600.0, 5
SECONDS_BETWEEN_LOOKS = 60
LOOKS_AT_ACCOUNT, PAUSE_SECONDS = 5, 0.2
"""While requests move from one place to the next, an account may be out: it is read again."""


def request_checks(settings: PipelineSettings) -> list[dg.AssetCheckSpec]:
    """What is checked of a pipeline's requests; nothing where it has none."""
    rules = settings.source.requests
    if rules is None:
        return []
    plan = _plan(settings)
    return [
        dg.AssetCheckSpec(
            ACCOUNT,
            asset=plan,
            description="accepted = completed + failed + cancelled + expired + open: none is lost, none there twice.",
        ),
        dg.AssetCheckSpec(
            ANSWERS,
            asset=plan,
            description=f"No open request is older than {write_age(rules.answer_within)} "
            "(source.requests.answer_within).",
        ),
        dg.AssetCheckSpec(
            BATCHES,
            asset=plan,
            description="Of the batches that completed in the last 24 h, each has a result.",
        ),
    ]


def check_requests(settings: PipelineSettings, ledger: Ledger) -> Iterator[dg.AssetCheckResult]:
    """The verdicts of these checks now."""
    if settings.source.requests is None:
        return
    account = _settled_account(settings, ledger)
    for name, passed, told, found in _verdicts(settings, account, ledger.now()):
        yield dg.AssetCheckResult(
            asset_key=_plan(settings), check_name=name, passed=passed, description=told, metadata=found
        )


def build_request_observation(settings: PipelineSettings) -> dg.SensorDefinition:
    """The sensor that looks at the pipeline's requests."""
    plan = _plan(settings)

    @dg.sensor(
        name=f"{settings.name}_requests",
        minimum_interval_seconds=SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks at the pipeline's requests: how many are open, since when, how long the last ones took.",
    )
    @in_a_tick()
    def observation(
        context: dg.SensorEvaluationContext, batch_assets_ledger: dg.ResourceParam[Ledger]
    ) -> dg.SensorResult | dg.SkipReason:
        ledger = batch_assets_ledger
        try:
            account = _settled_account(settings, ledger)
            latencies = recent_latencies(deployment_database(), ledger, settings.name)
        except BatchAssetsError as error:
            return dg.SkipReason(plain_text(str(error)))
        now = ledger.now()
        return dg.SensorResult(
            asset_events=[
                dg.AssetObservation(plan, metadata=_figures(account, latencies, now)),
                *(
                    dg.AssetCheckEvaluation(
                        asset_key=plan, check_name=name, passed=passed, description=told, metadata=found
                    )
                    for name, passed, told, found in _verdicts(settings, account, now)
                ),
            ]
        )

    return observation


def _plan(settings: PipelineSettings) -> dg.AssetKey:
    return dg.AssetKey([settings.name, "shard_plan"])


def _settled_account(settings: PipelineSettings, ledger: Ledger) -> RequestAccount:
    database = deployment_database()
    account = read_account(database, ledger, settings.name)
    for _ in range(LOOKS_AT_ACCOUNT - 1):
        if not account.missing:
            break
        pause(PAUSE_SECONDS)
        account = read_account(database, ledger, settings.name)
    return account


def _age(account: RequestAccount, now: float) -> float:
    return max(now - account.oldest, 0.0) if account.oldest is not None else 0.0


def _figures(account: RequestAccount, latencies: list[float], now: float) -> dict[str, Any]:
    found: dict[str, Any] = {
        metadata.OPEN: account.open,
        metadata.BACKLOG: account.waiting,
        metadata.OLDEST_SECONDS: round(_age(account, now), 1),
        metadata.ACCEPTED: account.accepted,
        metadata.COMPLETED: account.completed,
        metadata.FAILURES: account.failed,
    }
    if latencies:
        for name, share in ((metadata.LATENCY_P50, 50), (metadata.LATENCY_P99, 99)):
            found[name] = round(float(np.percentile(latencies, share)), 3)
    return found


def _verdicts(
    settings: PipelineSettings, account: RequestAccount, now: float
) -> Iterator[tuple[str, bool, str, dict[str, Any]]]:
    """Of each check: its name, whether it passes, why, and its figures."""
    rules = settings.source.requests
    assert rules is not None, settings.name
    told = account.line().removeprefix("requests: ")
    if account.missing:
        what = "that nobody accounts for" if account.missing > 0 else "that are counted twice"
        counted = f"requests {what}: {abs(account.missing):,} ({told})"
        yield ACCOUNT, False, f"{counted}; `batch-assets status {settings.name}` counts them again", {}
    else:
        yield ACCOUNT, True, told, {}
    age = _age(account, now)
    found = {metadata.OPEN: account.open, metadata.OLDEST_SECONDS: round(age, 1)}
    if age <= rules.answer_within.total_seconds():
        oldest = f", the oldest of them for {age:,.0f} s" if account.open else ""
        yield ANSWERS, True, f"{account.open:,} requests are open{oldest}", found
    else:
        yield (
            ANSWERS,
            False,
            f"the oldest open request, of {account.open:,}, came {age:,.0f} s ago, and answer_within is "
            f"{write_age(rules.answer_within)}: see whether `batch-assets serve` or Dagster's daemon is at work, and "
            f"what `batch-assets status {settings.name}` says of the shards",
            found,
        )
    failed = BatchStore(deployment_database()).all_failed(settings.name, FAILED_WITHIN_SECONDS, NAMED + 1)
    if not failed:
        yield BATCHES, True, "no batch of the last 24 h ended without a result", {}
    else:
        named = ", ".join(f"{one.id} ({one.failed:,} lines)" for one in failed[:NAMED])
        more = " and others" if len(failed) > NAMED else ""
        yield BATCHES, False, f"every line failed of {named}{more}; their error files say why", {}
