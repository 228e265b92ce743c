"""When an order to start a pipeline has come to its end, where no process answers for it alone.

`batch-assets serve` answers for the orders that it carries out, and has the pipeline's `start_lease`
meanwhile: those are left to it. All others are carried out by the sensors, a step at a time, so what
has become of them is read from the ledger, here.
"""

import datetime
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from batch_assets.control.chaining import is_chained, look_upstream
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import PipelineRow
from batch_assets.ledger.states import AT_SERVICE, ENDED, State
from batch_assets.ledger.triggers import TriggerRow, TriggerState, start_lease
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.settings.timing import MergeAtFraction, MergeAtTime

IDLE_SECONDS = 3_600.0
"""So long nothing may come of an order's pipeline, nobody being at it, until the order has failed."""
UNBEGUN_SECONDS = 86_400.0
"""So long an order may wait for its plan, with nobody there to carry it out, until it has failed."""
FORGOTTEN_SECONDS = 7 * 86_400.0

Verdict = tuple[Literal[TriggerState.DONE, TriggerState.FAILED], str | None]


@dataclass(frozen=True)
class Standing:
    """How a pipeline stands, as one look at the ledger shows it."""

    row: PipelineRow
    counts: dict[State, int]

    @property
    def unfinished(self) -> int:
        """Shards that are neither committed nor given up."""
        ended = self.counts.get(State.COLLECTED, 0) + self.counts.get(State.EXHAUSTED, 0)
        return sum(self.counts.values()) - ended

    @property
    def merged(self) -> bool:
        """Whether what is published was made from all that there is now."""
        return self.row.merged_revision == self.row.revision

    def any_in(self, *states: State) -> bool:
        return any(self.counts.get(state, 0) for state in states)


def standing(ledger: Ledger, name: str) -> Standing | None:
    """How the pipeline stands; None where this ledger does not know it."""
    row = ledger.pipeline(name)
    return None if row is None else Standing(row, ledger.counts(name))


def unattended(ledger: Ledger, name: str) -> list[TriggerRow]:
    """The pipeline's open orders, oldest first, that are for the sensors to carry out."""
    orders = ledger.open_triggers(name)
    return orders if orders and ledger.lease_holder(start_lease(name)) is None else []


def settle_orders(settings: PipelineSettings, ledger: Ledger, *, at_work: bool) -> list[str]:
    """End the orders that have come to their end; a sentence on each.

    `at_work`: something is under way that the ledger does not show, such as a run in Dagster's queue.
    """
    orders = unattended(ledger, settings.name)
    if not orders:
        return []
    now, said = ledger.now(), list[str]()
    merging = ledger.lease_holder(f"merge:{settings.name}") is not None
    busy = at_work or merging or ledger.is_worked_on(settings.name)
    for order in orders:
        if order.state is TriggerState.RUNNING:
            verdict = _verdict(settings, ledger, order, busy)
        elif not busy and now - order.updated_at > UNBEGUN_SECONDS:
            verdict = (
                TriggerState.FAILED,
                "its source could not be planned within a day; see the runs of shard_plan",
            )
        else:
            verdict = None
        if verdict is not None and ledger.close_trigger(settings.name, order.key, *verdict):
            state, reason = verdict
            said.append(
                f"{settings.name}: start {order.key} is {state.value}{f': {reason}' if reason else ''}"
            )
    return said


def forget_orders(ledger: Ledger, known: Collection[str]) -> None:
    """End old orders of pipelines that are not among `known`: none of these sensors carries them out."""
    for order in ledger.open_triggers():
        if order.pipeline in known or not unattended(ledger, order.pipeline):
            continue
        since = max(order.updated_at, ledger.last_collected(order.pipeline) or 0.0)
        if ledger.now() - since > FORGOTTEN_SECONDS:
            reason = "nothing has carried it out for a week; its pipeline may be declared no more"
            ledger.close_trigger(order.pipeline, order.key, TriggerState.FAILED, reason)


def fail_orders(ledger: Ledger, name: str, reason: str) -> None:
    """End the orders that were begun: what they were for cannot be had."""
    for order in unattended(ledger, name):
        if order.state is TriggerState.RUNNING:
            ledger.close_trigger(name, order.key, TriggerState.FAILED, reason)


def _verdict(settings: PipelineSettings, ledger: Ledger, order: TriggerRow, busy: bool) -> Verdict | None:
    """How the order, which was begun, has ended; None while it goes on."""
    name, found = settings.name, standing(ledger, settings.name)
    if found is None:
        return TriggerState.FAILED, "the ledger does not know the pipeline any more; give the order again"
    if not found.counts:
        return TriggerState.DONE, "there is nothing to embed"
    if not found.unfinished and found.merged:
        return TriggerState.DONE, None
    if found.row.stop_requested:
        return TriggerState.FAILED, f"the pipeline was stopped; `batch-assets run {name}` goes on"
    if not found.unfinished and _lacks_too_many(settings, ledger, found):
        exhausted = found.counts[State.EXHAUSTED]
        reason = (
            f"{exhausted} shards are given up, so that merge_when allows no merge{_example(ledger, name)}"
        )
        return TriggerState.FAILED, f"{reason}. `batch-assets retry {name}` takes them up again"
    # What runs may give money back, and lets the next job go.
    going_on = found.any_in(*AT_SERVICE, *ENDED, State.COLLECTING) or found.row.held_usd
    if found.row.blocked and not going_on:
        return TriggerState.FAILED, found.row.blocked
    at_service = found.row.deferred and found.any_in(State.QUEUED, *AT_SERVICE)
    now, since = ledger.now(), max(order.updated_at, ledger.last_collected(name) or 0.0)
    if busy or at_service or now - since <= _patience(settings, found, now):
        return None
    if is_chained(settings):
        upstream = look_upstream(settings, ledger)
        if upstream.at_work:
            return None
        if upstream.exhausted or upstream.keys:
            reason = upstream.given_up() if upstream.exhausted else upstream.stands_still()
            return TriggerState.FAILED, reason
    what = (
        f"{found.unfinished} shards wait{_example(ledger, name)}"
        if found.unfinished
        else "nothing was published"
    )
    return TriggerState.FAILED, f"nothing has moved for an hour: {what}; see the runs in the UI"


def _lacks_too_many(settings: PipelineSettings, ledger: Ledger, found: Standing) -> bool:
    """Whether so many shards are given up that the others may not be merged."""
    if not found.counts.get(State.EXHAUSTED, 0):
        return False
    if isinstance(settings.merge_when, MergeAtFraction):
        collected = ledger.records_in(settings.name, State.COLLECTED)
        return collected / max(found.row.planned, 1) < settings.merge_when.fraction
    return settings.merge_when in ("all", "complete")


def _patience(settings: PipelineSettings, found: Standing, now: float) -> float:
    """Seconds for which nothing may come of the pipeline, from now back: longer where a merge has its time."""
    if found.unfinished or not isinstance(settings.merge_when, MergeAtTime):
        return IDLE_SECONDS
    at = settings.merge_when.at
    if isinstance(at, datetime.datetime):
        return IDLE_SECONDS if at.timestamp() <= now else math.inf
    return IDLE_SECONDS + 86_400.0  # it comes each day


def _example(ledger: Ledger, name: str) -> str:
    """What went wrong with one of the shards that are not committed, if anything did."""
    states = [state for state in State if state is not State.COLLECTED]
    rows = ledger.shards(name, states=states, limit=20)
    return next((f" ({row.key}: {row.error})" for row in rows if row.error), "")
