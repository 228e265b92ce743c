"""State-change events of jobs, brought to EventBridge's default bus, as reliably as the scenario lets them.

What an event says is its service's matter (`bedrock_events.py`, `sagemaker/`, `batch/`).
The bus is moto's: its rules, their patterns and targets. Targets that moto's own delivery
does not know (SNS) or gives another form (the odd `time`) are served here.
"""

import copy
import json
import queue
import threading
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from batch_assets.plain_text import plain_logger
from batch_assets.rehearsal.account import ACCOUNT
from batch_assets.rehearsal.clock import Timeline
from batch_assets.rehearsal.faults import Events, Scenario

MOST_WAITING = 1_000
logger = plain_logger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """A job's change of state. `job` and `state` name it for chance; `last`: nothing comes after it."""

    job: str
    state: str
    last: bool
    event: dict[str, Any]


def envelope(
    source: str, detail_type: str, region: str, resource: str, time: str, detail: dict[str, Any]
) -> dict[str, Any]:
    """What every event of EventBridge has around its detail."""
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": detail_type,
        "source": source,
        "account": ACCOUNT,
        "time": time,
        "region": region,
        "resources": [resource],
        "detail": detail,
    }


def iso_time(moment: float) -> str:
    """The time of most services' events, such as 2026-11-20T10:47:53Z."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Publisher:
    """Sends events in order, in a thread of its own, except where the scenario says otherwise."""

    def __init__(self, timeline: Timeline, scenario: Scenario) -> None:
        self.scenario = scenario
        self._timeline = timeline
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._held: dict[str, dict[str, Any]] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="rehearsal-events", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End at once; events that wait are lost."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()

    @property
    def is_behind(self) -> bool:
        """Whether a fast clock makes more events than anybody could deliver."""
        return self._queue.qsize() > MOST_WAITING

    def publish(self, change: Change, faults: Events) -> None:
        """Send an event, or let faults befall it."""
        chance = self.scenario.draw("event", change.job, change.state)
        held = self._held.pop(change.job, None)
        dropped, doubled, late, swapped = (chance.random() for _ in range(4))
        if dropped >= faults.dropped:
            if swapped < faults.swapped and not change.last:
                self._held[change.job] = change.event
            elif late < faults.late:
                delay = chance.uniform(*faults.late_seconds)
                self._timeline.after(delay, lambda: self._queue.put(change.event))
            else:
                self._queue.put(change.event)
            if doubled < faults.doubled:
                self._queue.put(change.event)
        if held:
            self._queue.put(held)

    def _loop(self) -> None:
        while (event := self._queue.get()) is not None and not self._closed:
            try:
                deliver(event)
            except Exception:
                logger.exception("an event of %s could not be delivered", event["resources"][0])


def deliver(event: dict[str, Any]) -> None:
    """Give the event to the targets of every enabled rule of the default bus that it matches."""
    from moto.core.utils import unix_time
    from moto.events.models import events_backends

    bus = events_backends[ACCOUNT][event["region"]].describe_event_bus("default")
    for rule in list(bus.rules.values()):
        if str(rule.state).startswith("DISABLED") or not rule.event_pattern.matches_event(cast(Any, event)):
            continue
        others = copy.copy(rule)
        others.targets = [target for target in list(rule.targets) if not _sent_as_is(event, target)]
        others.send_to_targets(cast(Any, event | {"time": unix_time()}))


def _sent_as_is(event: dict[str, Any], target: dict[str, Any]) -> bool:
    """Deliver to a queue or topic; False: the target wants something else, which moto knows."""
    from moto.sns.models import sns_backends
    from moto.sqs.models import sqs_backends

    _, _, service, region, account, name = target["Arn"].split(":", 5)
    if "InputTransformer" in target or service not in ("sqs", "sns"):
        return False
    body = json.dumps(event)
    if service == "sns":
        sns_backends[account][region].publish(arn=target["Arn"], message=body)
    else:
        group = target.get("SqsParameters", {}).get("MessageGroupId")
        sqs_backends[account][region].send_message(queue_name=name, message_body=body, group_id=group)
    return True
