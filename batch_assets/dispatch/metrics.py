"""What the worker counts, as Prometheus reads it; every series is there from the start.

Names and labels are part of what people rely on: they stand in docs/queues.md.
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from batch_assets.dispatch.queues.base import Depth, Ending

PREFIX = "batch_assets_dispatch"
REPEATED = "repeated"
ENDS = (*(ending.value for ending in Ending), REPEATED)
"""What becomes of messages; repeated: delivered again after their result was stored."""
RETRIES = ("refused", "broken", "not_reached")
VERDICTS = ("pass", "held", "open", "closed", "unreadable")
"""Of messages, that they pass or go back; of readings, that they leave room or none, or cannot be had."""
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 100_000)


class Metrics:
    """All series of one worker."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, told: str, labels: Iterable[str]) -> Counter:
            return Counter(f"{PREFIX}_{name}", told, list(labels), registry=self.registry)

        def gauge(name: str, told: str, labels: Iterable[str]) -> Gauge:
            return Gauge(f"{PREFIX}_{name}", told, list(labels), registry=self.registry)

        def histogram(name: str, told: str) -> Histogram:
            return Histogram(f"{PREFIX}_{name}", told, ["queue"], registry=self.registry, buckets=_SECONDS)

        self.requests = counter("requests", "Messages that have ended, by how", ["queue", "result"])
        self.retries = counter("retries", "Calls after which a message is tried again", ["queue", "reason"])
        self.shed = counter("shed", "Calls for which the server had no room", ["queue"])
        self.in_flight = gauge("in_flight_requests", "Calls in flight", ["pool"])
        self.window = gauge("window_requests", "Calls that may be in flight", ["pool"])
        self.backlog = gauge("backlog_messages", "Messages in the queue that nobody holds", ["queue"])
        self.held = gauge("held_messages", "Messages claimed, or to be tried again later", ["queue"])
        self.unread = gauge("unread_results", "Results that nobody has read", ["queue"])
        self.oldest = gauge(
            "oldest_message_seconds", "Age of the oldest message, where the queue knows", ["queue"]
        )
        self.overdue = gauge("overdue_seconds", "By how much the first deadline has passed", ["queue"])
        self.verdicts = counter("gate_verdicts", "What gates have said", ["gate", "verdict"])
        self.readable = gauge("gate_source_available", "Whether what a gate reads can be read", ["gate"])
        self.call = histogram("inference_seconds", "Time of a call that was answered")
        self.latency = histogram("message_seconds", "From a message's arrival to its end")
        self.residence = histogram("queue_residence_seconds", "From a message's arrival to its first claim")

    def of_queue(self, name: str) -> "QueueMetrics":
        """The series of one queue."""
        return QueueMetrics(self, name)

    def add_pool(self, name: str) -> None:
        """Have a pool's series from the start."""
        self.in_flight.labels(name)
        self.window.labels(name)

    def of_gate(self, name: str) -> "GateMetrics":
        """The series of one gate."""
        return GateMetrics(self, name)


class GateMetrics:
    """Series of one gate, looked up once."""

    def __init__(self, metrics: Metrics, gate: str) -> None:
        self.passed, self.held, self.open, self.closed, self.unreadable = (
            metrics.verdicts.labels(gate, verdict) for verdict in VERDICTS
        )
        self.readable = metrics.readable.labels(gate)


class QueueMetrics:
    """Series of one queue, looked up once."""

    def __init__(self, metrics: Metrics, queue: str) -> None:
        self._ends = {end: metrics.requests.labels(queue, end) for end in ENDS}
        self._retries = {reason: metrics.retries.labels(queue, reason) for reason in RETRIES}
        self._shed = metrics.shed.labels(queue)
        self._backlog, self._held = metrics.backlog.labels(queue), metrics.held.labels(queue)
        self._unread, self._oldest = metrics.unread.labels(queue), metrics.oldest.labels(queue)
        self._overdue, self._call = metrics.overdue.labels(queue), metrics.call.labels(queue)
        self._latency, self._residence = metrics.latency.labels(queue), metrics.residence.labels(queue)

    def ended(self, end: str, arrived: float | None = None, now: float = 0.0) -> None:
        self._ends[end].inc()
        if arrived is not None:
            self._latency.observe(max(0.0, now - arrived))

    def waited(self, arrived: float | None, now: float) -> None:
        if arrived is not None:
            self._residence.observe(max(0.0, now - arrived))

    def called(self, seconds: float) -> None:
        self._call.observe(seconds)

    def retried(self, reason: str) -> None:
        self._retries[reason].inc()
        if reason == "refused":
            self._shed.inc()

    def depth(self, depth: Depth, now: float) -> None:
        self._backlog.set(depth.waiting)
        self._held.set(depth.claimed)
        self._unread.set(depth.results)
        self._oldest.set(0.0 if depth.oldest is None else max(0.0, now - depth.oldest))
        self._overdue.set(0.0 if depth.first_deadline is None else max(0.0, now - depth.first_deadline))
