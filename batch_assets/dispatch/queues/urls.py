"""The queue that a URL names."""

import re
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit, urlunsplit

from batch_assets.dispatch.queues.base import Queue
from batch_assets.dispatch.queues.local import LocalQueue
from batch_assets.dispatch.queues.redis import RedisQueue
from batch_assets.dispatch.queues.redis_channel import RedisChannel
from batch_assets.dispatch.queues.redis_server import RedisURL
from batch_assets.dispatch.queues.sqs import SqsQueue
from batch_assets.errors import ConfigurationError
from batch_assets.requests.database import RequestsDatabase

HOW = (
    "write local:NAME, redis://host:6379/0?queue=NAME, redis+pubsub://host:6379/0?channel=NAME or "
    "sqs://region/queue-name"
)
OpenDatabase = Callable[[], RequestsDatabase]


def queue_of(url: str, results: str | None, open_database: OpenDatabase) -> Queue:
    """The queue at `url`, with its results at the URL `results`. Raises ConfigurationError for what cannot work.

    Results are of the queue's own kind, and on its server: storing one and taking its message out are one step there.
    """
    return _maker(url, results)(open_database)


def check_urls(url: str, results: str | None) -> None:
    """Raise ConfigurationError where `queue_of` would; nothing is made."""
    _maker(url, results)


def _maker(url: str, results: str | None) -> Callable[[OpenDatabase], Queue]:
    kind = kind_of(url)
    if results is not None and (kind_of(results) != kind or _server(results) != _server(url)):
        raise ConfigurationError(
            f"results {shown(results)}: they must be on the server of the queue {shown(url)}, and of its kind, so "
            "that a result is stored in the step that takes its message out"
        )
    if kind == "local":
        name, results_name = _name(url, "local"), _name(results, "local") or None
        return lambda open_database: LocalQueue(open_database(), name, results_name)
    if kind in ("redis", "rediss"):
        server, key, results_key = _redis_url(url), _name(url, "queue"), _name(results, "queue") or None
        return lambda _: RedisQueue(server, key, results_key)
    if kind in ("redis+pubsub", "rediss+pubsub"):
        server, channel = _redis_url(url), _name(url, "channel")
        retry = _parameters(url).get("retry", f"{channel}-retry")
        results_channel = _name(results, "channel") or None
        return lambda _: RedisChannel(server, channel, retry, results_channel)
    region, sqs_name = _sqs(url)
    results_queue = _sqs(results)[1] if results else None
    return lambda open_database: SqsQueue(region, sqs_name, open_database(), results_queue)


def kind_of(url: str) -> str:
    """What stands before the colon. Raises ConfigurationError for what is no kind of queue."""
    kind = url.partition(":")[0]
    if kind not in ("local", "redis", "rediss", "redis+pubsub", "rediss+pubsub", "sqs"):
        raise ConfigurationError(f"queue {shown(url)}: no such kind of queue; {HOW}")
    try:
        urlsplit(url)
    except ValueError:  # such as a bracket that is not closed
        raise ConfigurationError(f"queue {shown(url)}: that is no URL; {HOW}") from None
    return kind


def _server(url: str) -> str:
    parts = urlsplit(url)
    database = parts.path.strip("/") or "0"
    return (
        "local"
        if parts.scheme == "local"
        else f"{parts.netloc}" + ("" if parts.scheme == "sqs" else f"/{database}")
    )


def _name(url: str | None, parameter: str) -> str:
    if url is None:
        return ""
    name = url.partition(":")[2] if parameter == "local" else _parameters(url).get(parameter, "")
    if not name or not name.isprintable():
        where = "behind local:" if parameter == "local" else f"in the parameter {parameter}"
        raise ConfigurationError(f"queue {shown(url)}: its name is missing {where}; {HOW}")
    return name


def _parameters(url: str) -> dict[str, str]:
    return {key: values[-1] for key, values in parse_qs(urlsplit(url).query).items()}


def _redis_url(url: str) -> RedisURL:
    parts = urlsplit(url)
    try:
        port = parts.port or 6379
    except ValueError:
        raise ConfigurationError(f"queue {shown(url)}: its port is no number; {HOW}") from None
    if not parts.hostname or not re.fullmatch(r"/?|/\d+", parts.path):
        raise ConfigurationError(f"queue {shown(url)}: it needs a host and the number of a database; {HOW}")
    plain = urlunsplit((parts.scheme.removesuffix("+pubsub"), parts.netloc, parts.path, "", ""))
    return RedisURL(plain, f"redis {parts.hostname}:{port}{parts.path}")


def _sqs(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    name = parts.path.strip("/")
    if not re.fullmatch(r"[a-z0-9-]+", parts.netloc) or not re.fullmatch(
        r"[A-Za-z0-9_-]{1,80}(\.fifo)?", name
    ):
        raise ConfigurationError(f"queue {shown(url)}: region or name is none of SQS; {HOW}")
    return parts.netloc, name


def knows_deadlines(url: str) -> bool:
    """Whether the queue can tell the first deadline of what waits: SQS orders by none."""
    return kind_of(url) != "sqs"


def knows_arrivals(url: str) -> bool:
    """Whether the queue can tell when its oldest message came: producers add to Redis without saying."""
    return kind_of(url) == "local"


def shown(url: str) -> str:
    """The URL without a password, which may hold any character."""
    return re.sub(r"//.*@", "//…@", url, flags=re.DOTALL)
