"""A look at a queue on SQS from outside: it makes no queue, and sends nothing."""

import pytest

from batch_assets.dispatch.observing import look_at
from batch_assets.dispatch.queues.base import Ending
from batch_assets.dispatch.queues.sqs_results import beside
from batch_assets.errors import ConfigurationError
from batch_assets.requests.database import RequestsDatabase
from batch_assets_tests.dispatch.queues.sqs.steps import REGION, claim, client, finished, opened, put, run


def test_a_look_makes_no_queue(name: str, database: RequestsDatabase) -> None:
    look = look_at(f"sqs://{REGION}/{name}", None, lambda: database)
    assert (look.depth.waiting, look.depth.results) == (0, 0)
    urls = client().list_queues(QueueNamePrefix=name)["QueueUrls"]
    assert [url.rpartition("/")[2] for url in urls] == [name]


def test_what_there_is(name: str, database: RequestsDatabase) -> None:
    with opened(name, database) as queue:
        put(queue, "a", "b", "c")
        run(queue.finish([finished(each) for each in claim(queue, 1)]))
        claim(queue, 1)
        look = look_at(f"sqs://{REGION}/{name}", None, lambda: database)
    assert (look.depth.waiting, look.depth.claimed, look.depth.results) == (1, 1, 1)
    assert look.endings[Ending.COMPLETED] == 1
    other = look_at(f"sqs://{REGION}/{name}", f"sqs://{REGION}/{beside(name, 'dead')}", lambda: database)
    assert other.depth.results == 0


def test_a_queue_that_is_not_there_is_named(database: RequestsDatabase) -> None:
    with pytest.raises(ConfigurationError, match="nowhere: there is no such queue on SQS"):
        look_at(f"sqs://{REGION}/nowhere", None, lambda: database)
