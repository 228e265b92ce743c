"""State-change events of jobs, brought to EventBridge's default bus, by best effort as AWS does.

The bus is moto's: its rules, their patterns and targets. Targets that moto's own delivery
does not know (SNS) or gives another form (the odd `time`) are served here.
"""

import copy
import json
import logging
import queue
import threading
import uuid
from datetime import UTC, datetime
from typing import Any, cast

from batch_assets.rehearsal.clock import Timeline
from batch_assets.rehearsal.faults import Scenario
from batch_assets.rehearsal.job import ACCOUNT, TERMINAL, Job
from batch_assets.rehearsal.models import model_arn

MOST_WAITING = 1_000
logger = logging.getLogger(__name__)


def event_of(job: Job, now: float) -> dict[str, Any]:
    """The event of the job's present state, dates in the two forms that AWS's own example has."""
    created = datetime.fromtimestamp(job.submitted, UTC)
    hour = created.strftime("%I").lstrip("0")
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Batch Inference Job State Change",
        "source": "aws.bedrock",
        "account": ACCOUNT,
        "time": datetime.fromtimestamp(now, UTC).strftime("%a %b %d %H:%M:%S UTC %Y"),
        "region": job.region,
        "resources": [job.arn],
        "detail": {
            "version": "0.0",
            "accountId": ACCOUNT,
            "batchJobName": job.name,
            "batchJobArn": job.arn,
            "batchModelId": model_arn(job.request["modelId"], job.region),
            "status": job.status,
            "failureMessage": job.message or "",
            "creationTime": f"{created:%b} {created.day}, {created.year}, {hour}:{created:%M:%S %p}",
        },
    }


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

    def publish(self, job: Job) -> None:
        """Send the event of the job's present state, or let the scenario's faults befall it."""
        if job.foreign and self._queue.qsize() > MOST_WAITING:
            return  # a fast clock makes more of them than anybody could deliver, and delivery is best effort
        event = event_of(job, self._timeline.clock.now())
        faults = self.scenario.events
        chance = self.scenario.draw("event", job.name, job.status)
        held = self._held.pop(job.id, None)
        dropped, doubled, late, swapped = (chance.random() for _ in range(4))
        if dropped >= faults.dropped:
            if swapped < faults.swapped and job.status not in TERMINAL:
                self._held[job.id] = event
            elif late < faults.late:
                self._timeline.after(chance.uniform(*faults.late_seconds), lambda: self._queue.put(event))
            else:
                self._queue.put(event)
            if doubled < faults.doubled:
                self._queue.put(event)
        if held:
            self._queue.put(held)

    def _loop(self) -> None:
        while (event := self._queue.get()) is not None and not self._closed:
            try:
                deliver(event)
            except Exception:
                logger.exception("an event of %s could not be delivered", event["detail"]["batchJobName"])


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
