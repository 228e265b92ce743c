"""All doors of requests, put together: what they hold, and what runs beside them while they are open.

Each door is in a module of its own; who computes is `computing.py`'s business.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from batch_assets.ledger.ledger import Ledger
from batch_assets.requests.batches.files import FileStore
from batch_assets.requests.batches.store import BatchStore
from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.group_commit import GroupCommit
from batch_assets.requests.results import Results
from batch_assets.requests.store import RequestStore
from batch_assets.server.accepting import Accepting, add_accepting
from batch_assets.server.ends import BatchEnds, JobEnds
from batch_assets.server.jobs import Jobs, add_jobs
from batch_assets.server.metrics import add_metrics
from batch_assets.server.open_requests import OpenRequests
from batch_assets.server.openai.batches import Batches, add_batches
from batch_assets.server.openai.files import Files, add_files
from batch_assets.server.openai.models import Models, add_models
from batch_assets.server.pipelines import RequestPipelines
from batch_assets.server.webhooks import WebhookSender, why_refused

if TYPE_CHECKING:
    from fastapi import FastAPI


@contextlib.contextmanager
def taking_requests(
    application: "FastAPI",
    pipelines: RequestPipelines,
    database: RequestsDatabase,
    ledger: Ledger,
    *,
    webhook_secret: bytes | None = None,
    allow_private_webhooks: bool = False,
) -> Iterator[None]:
    """Add the doors to the application; what was taken is durable when the block ends.

    Without a `webhook_secret` nobody is told of an end.
    """
    store, results = RequestStore(database), Results(database, ledger)
    database.prepare()
    why_no_webhook = functools.partial(
        why_refused, can_sign=webhook_secret is not None, allow_private=allow_private_webhooks
    )
    with contextlib.ExitStack() as running:
        commits = running.enter_context(GroupCommit(store))
        opened = OpenRequests(database, ledger)
        add_accepting(application, Accepting(pipelines, commits, store, opened, why_no_webhook))
        add_jobs(application, Jobs(pipelines, store, results))
        add_metrics(application, pipelines, database, ledger)
        files = Files(pipelines, FileStore(database))
        add_files(application, files)
        add_batches(application, Batches(pipelines, files, BatchStore(database), opened, why_no_webhook))
        add_models(application, Models(pipelines))
        if webhook_secret is not None:
            ends = (JobEnds(database, results, pipelines), BatchEnds(database))
            sender = WebhookSender(ends, webhook_secret, allow_private=allow_private_webhooks)
            running.enter_context(sender)
        yield
