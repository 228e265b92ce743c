"""A queue of requests in Dagster: it and its results as external assets, looked at every minute.

What works on the queue is `batch-assets dispatch`, outside of Dagster. A look changes nothing in it.
"""

import json
from collections.abc import Mapping
from typing import Any

import dagster as dg

from batch_assets.dispatch.observing import Look, look_at
from batch_assets.dispatch.queues.base import Ending
from batch_assets.dispatch.queues.urls import knows_arrivals, knows_deadlines, shown
from batch_assets.errors import BatchAssetsError
from batch_assets.home import requests_url
from batch_assets.orchestration import metadata
from batch_assets.orchestration.markdown import markdown_text
from batch_assets.plain_text import plain_text
from batch_assets.requests.database import RequestsDatabase
from batch_assets.settings.request_queue import RequestQueueSettings

DEADLINES = "deadlines"
SECONDS_BETWEEN_LOOKS = 60
_FAILURES = (Ending.FAILED, Ending.EXPIRED, Ending.INVALID)


def queue_keys(name: str) -> tuple[dg.AssetKey, dg.AssetKey]:
    """Keys of the queue and of its results."""
    return dg.AssetKey([name, "requests"]), dg.AssetKey([name, "results"])


def build_queue_definitions(settings: RequestQueueSettings) -> dg.Definitions:
    """Both assets, the sensor that observes them and, where the queue knows deadlines, the check of them."""
    requests, results = queue_keys(settings.name)
    queue_shown = markdown_text(shown(settings.url))
    kinds = {"queue", *(kind for kind in ("redis", "sqs") if settings.url.startswith(kind))}
    told: Mapping[str, Any] = {metadata.URI: shown(settings.url)}
    specs = [
        dg.AssetSpec(
            requests,
            deps=[dg.AssetKey.from_user_string(dep) for dep in settings.deps],
            group_name=settings.name,
            kinds=kinds,
            metadata=told,
            description=f"Messages in the queue {queue_shown}, which `batch-assets dispatch` sends to a model server.",
        ),
        dg.AssetSpec(
            results,
            deps=[requests],
            group_name=settings.name,
            kinds=kinds,
            metadata={metadata.URI: shown(settings.results)} if settings.results else told,
            description=f"What became of the messages of the queue {queue_shown}, for whoever reads its results.",
        ),
    ]
    has_check = knows_deadlines(settings.url)
    return dg.Definitions(
        assets=specs,
        sensors=[_build_observation(settings, has_check=has_check)],
        asset_checks=[_build_check(settings)] if has_check else [],
    )


def _look(settings: RequestQueueSettings) -> Look:
    return look_at(settings.url, settings.results, lambda: RequestsDatabase(requests_url()))


def _build_check(settings: RequestQueueSettings) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=queue_keys(settings.name)[0],
        name=DEADLINES,
        description="No message that waits is past its deadline. It is past it where nobody works on the queue, or "
        "where the server does not take its messages in time.",
    )
    def check_deadlines() -> dg.AssetCheckResult:
        try:
            passed, told, found = _verdict(_look(settings))
        except BatchAssetsError as error:
            passed, told, found = False, plain_text(str(error)), {}
        return dg.AssetCheckResult(passed=passed, description=told, metadata=found)

    return check_deadlines


def _verdict(look: Look) -> tuple[bool, str, dict[str, Any]]:
    """Whether the check passes, why, and its figures."""
    late = look.overdue_seconds
    found = {metadata.OVERDUE_SECONDS: round(late, 1), metadata.BACKLOG: look.depth.waiting}
    if late <= 0:
        return True, f"{look.depth.waiting} messages wait, none of them past its deadline", found
    return (
        False,
        f"the first of {look.depth.waiting} messages that wait is {late:,.0f} seconds past its deadline: see whether "
        "batch-assets dispatch runs for this queue, and what its /metrics say of gates and refusals",
        found,
    )


def _build_observation(settings: RequestQueueSettings, *, has_check: bool) -> dg.SensorDefinition:
    requests, results = queue_keys(settings.name)

    @dg.sensor(
        name=f"{settings.name}_observation",
        minimum_interval_seconds=SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Looks at the queue {shown(settings.url)}: how much waits, how old it is, how messages end.",
    )
    def observation(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        def evaluated(passed: bool, told: str, found: Mapping[str, Any]) -> dg.AssetCheckEvaluation:
            return dg.AssetCheckEvaluation(
                asset_key=requests,
                check_name=DEADLINES,
                passed=passed,
                description=plain_text(told),
                metadata=found,
            )

        try:
            look = _look(settings)
        except BatchAssetsError as error:
            if has_check:
                context.instance.report_runless_asset_event(evaluated(False, str(error), {}))
            raise
        about_requests, about_results = _figures(settings, look, context.cursor)
        events: list[dg.AssetObservation | dg.AssetCheckEvaluation] = [
            dg.AssetObservation(requests, metadata=about_requests),
            dg.AssetObservation(results, metadata=about_results),
        ]
        if has_check:
            events.append(evaluated(*_verdict(look)))
        return dg.SensorResult(
            asset_events=events, cursor=json.dumps({"at": look.at, "endings": look.endings})
        )

    return observation


def _more(count: int, before: int) -> int:
    """By how much a count has grown; one that is lower than before began anew, with its queue."""
    return count - before if count >= before else count


def _figures(
    settings: RequestQueueSettings, look: Look, cursor: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is said of the queue and of its results; `cursor` holds the look before this one."""
    before: dict[str, Any] = json.loads(cursor) if cursor else {"at": look.at, "endings": look.endings}
    ended = {ending: _more(count, before["endings"].get(ending, 0)) for ending, count in look.endings.items()}
    seconds = look.at - before["at"]
    about_requests: dict[str, Any] = {
        metadata.BACKLOG: look.depth.waiting,
        metadata.HELD: look.depth.claimed,
        metadata.OVERDUE_SECONDS: round(look.overdue_seconds, 1),
        metadata.MESSAGES_PER_SECOND: round(sum(ended.values()) / seconds, 3) if seconds > 0 else 0.0,
        metadata.FAILURES: sum(ended[ending] for ending in _FAILURES),
    }
    if knows_arrivals(settings.url):
        about_requests[metadata.OLDEST_SECONDS] = round(look.oldest_seconds, 1)
    if look.depth.first_deadline is not None:
        about_requests[metadata.FIRST_DEADLINE] = metadata.moment(look.depth.first_deadline)
    return about_requests, {
        metadata.UNREAD_RESULTS: look.depth.results,
        **{ending.value: count for ending, count in look.endings.items()},
    }
