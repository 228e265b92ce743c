"""`GET /metrics`: each pipeline's requests for Prometheus, counted when they are asked for. The operator's alone."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from batch_assets.ledger.ledger import Ledger
from batch_assets.requests.account import read_account
from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.due_ends import GIVEN_UP, TOLD
from batch_assets.requests.store import RequestStore
from batch_assets.server.answers import Refused
from batch_assets.server.pipelines import RequestPipelines
from batch_assets.server.tokens import OPERATOR

if TYPE_CHECKING:
    from fastapi import FastAPI
    from prometheus_client import Metric

PREFIX = "batch_assets_requests"


def add_metrics(
    application: "FastAPI", pipelines: RequestPipelines, database: RequestsDatabase, ledger: Ledger
) -> None:
    """The door."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
    from prometheus_client.registry import Collector

    class Accounts(Collector):
        def collect(self) -> "Iterator[Metric]":
            yield from _metrics(pipelines, database, ledger)

    registry = CollectorRegistry()
    registry.register(Accounts())

    def metrics(request: Request) -> Response:
        if request.state.tenant != OPERATOR:
            raise Refused(403, "metrics tell of every tenant, and are for the operator's token alone")
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    application.add_api_route("/metrics", metrics, methods=["GET"], response_class=Response)


def _metrics(pipelines: RequestPipelines, database: RequestsDatabase, ledger: Ledger) -> "Iterator[Metric]":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    accepted = CounterMetricFamily(f"{PREFIX}_accepted", "Requests accepted", labels=["pipeline"])
    ended = CounterMetricFamily(
        f"{PREFIX}_ended", "Requests that have ended, by how", labels=["pipeline", "status"]
    )
    opened = GaugeMetricFamily(f"{PREFIX}_open", "Requests that have no result yet", labels=["pipeline"])
    waiting = GaugeMetricFamily(f"{PREFIX}_waiting", "Of these, in no window yet", labels=["pipeline"])
    oldest = GaugeMetricFamily(
        f"{PREFIX}_oldest_timestamp_seconds",
        "When the oldest open request came, 0: none",
        labels=["pipeline"],
    )
    told = CounterMetricFamily(
        f"{PREFIX}_webhooks",
        "Webhooks that will be sent no more, by how they ended",
        labels=["pipeline", "result"],
    )
    for name in pipelines.names():
        totals = RequestStore(database).totals(name)
        told.add_metric([name, "told"], totals.get(TOLD, 0))
        told.add_metric([name, "given_up"], totals.get(GIVEN_UP, 0))
        account = read_account(database, ledger, name)
        accepted.add_metric([name], account.accepted)
        for status in ("completed", "failed", "cancelled", "expired"):
            ended.add_metric([name, status], getattr(account, status))
        opened.add_metric([name], account.open)
        waiting.add_metric([name], account.waiting)
        oldest.add_metric([name], account.oldest or 0)
    yield from (accepted, ended, opened, waiting, oldest, told)
