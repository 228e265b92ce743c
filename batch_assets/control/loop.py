"""The control loop of deferred executors: one bounded turn at a time.

A turn hears events, asks the service for the truth where that is due, moves the ledger, and
starts queued jobs in free slots. Turns may overlap, in one process or in many: every step is
compare-and-set in the ledger. Collecting results is a run's work (`collection.py`).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from batch_assets.control.completion import drain_events
from batch_assets.control.pipeline import Pipeline, deferred
from batch_assets.control.pooling import release_pool
from batch_assets.control.reconciler import ACTIVE, Snapshots, is_due, reconcile
from batch_assets.control.submission import submit_queued
from batch_assets.errors import BatchAssetsError, ClaimLost, SubmissionRefused
from batch_assets.executors.service_jobs import SlotsFull, Unanswered
from batch_assets.ledger.rows import SubmissionRow, Waiting
from batch_assets.ledger.states import State
from batch_assets.patience import in_a_tick
from batch_assets.plain_text import plain_logger

SUBMISSIONS_A_TURN = 100
logger = plain_logger(__name__)


@dataclass
class Turn:
    """What a turn came to: jobs started, submissions that have ended, why the queue waits, what went wrong.

    `silent` are the pipelines whose service, or store, was asked and did not answer, with its words.
    """

    started: int = 0
    ended: list[SubmissionRow] = field(default_factory=list)
    waiting: dict[str, Waiting] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def take_turn(pipelines: Sequence[Pipeline], *, submit: bool = True, gather: bool = True) -> Turn:
    """One turn for these pipelines, which share one ledger; those with an executor in place have none.

    A service that does not answer costs its own pipelines this turn, nobody else. `submit=False`
    starts nothing; unless `gather`, nothing waits for others that may share its submission. Raises
    ClaimLost where one of them is not at its place any more.
    """
    turn = Turn()
    by_scope: dict[str, list[Pipeline]] = defaultdict(list)
    by_queue: dict[str, list[Pipeline]] = defaultdict(list)
    for pipeline in pipelines:
        if not pipeline.executor.in_place:
            by_scope[deferred(pipeline).quota_group].append(pipeline)
            if pipeline.queue_url is not None:
                by_queue[pipeline.queue_url].append(pipeline)
    snapshots = Snapshots()
    for scope, sharing in by_scope.items():
        try:
            with in_a_tick():
                _take_turn(scope, sharing, by_queue, snapshots, turn, submit, gather)
        except (Unanswered, SlotsFull) as error:
            turn.problems.append(f"{scope}: the service does not answer ({error}); asked again soon")
            turn.silent |= {
                pipeline.name: f"{scope}: the service does not answer ({error})" for pipeline in sharing
            }
        except ClaimLost:
            raise  # a pipeline's name is on another root by now: whoever took it for this one begins again
        except BatchAssetsError as error:
            turn.problems.append(f"{scope}: {error}")
            for pipeline in sharing:
                if isinstance(error, SubmissionRefused):
                    turn.refused[pipeline.name] = str(error)
                else:
                    turn.silent[pipeline.name] = str(error)
        except Exception as error:  # other scopes are not to stand still for it
            logger.exception("%s", scope)
            turn.problems.append(f"{scope}: {type(error).__name__}: {error}; tried again soon")
    return turn


def _take_turn(
    scope: str,
    sharing: list[Pipeline],
    by_queue: dict[str, list[Pipeline]],
    snapshots: Snapshots,
    turn: Turn,
    submit: bool,
    gather: bool,
) -> None:
    first, ledger = sharing[0], sharing[0].ledger
    _check_places(sharing)
    if not any(map(_is_waiting, sharing)) and not ledger.submissions(scope=scope, states=ACTIVE, limit=1):
        return  # nobody is asked for what nobody waits for
    others, heard = False, first.queue_url is not None
    for pipeline in sharing:
        # Once a turn, for all of the queue's pipelines, whatever their services are.
        if hearing := by_queue.pop(pipeline.queue_url or "", None):
            try:
                ended, freed = drain_events(hearing)
            except Unanswered as error:
                # Asking the service tells the same, only later.
                turn.problems.append(f"{scope}: no events are heard ({error}); polling goes on")
                heard = False
                continue
            others |= freed
            turn.ended += ended
    waiting = any(_is_waiting(pipeline) for pipeline in sharing)
    now = ledger.now()
    if (others and waiting) or is_due(first, waiting=waiting, heard=heard, now=now):
        reconciled = reconcile(first, sharing, snapshots, now)
        turn.ended += reconciled.ended
        turn.silent |= reconciled.silent
        for pipeline in sharing:
            _settle_abandoned(pipeline)
    if not waiting or not submit:
        return
    done = submit_queued(scope, sharing, SUBMISSIONS_A_TURN, gather=gather)
    turn.started += done.started
    turn.silent |= done.silent
    for pipeline, message in done.refused:
        turn.refused[pipeline.name] = message
    if done.waiting is not None:
        for pipeline in sharing:
            turn.waiting[pipeline.name] = done.waiting
    for pipeline in sharing:
        release_pool(pipeline)
        if refused := ledger.money(pipeline.name).refused:
            turn.refused.setdefault(pipeline.name, refused)


def _check_places(pipelines: Sequence[Pipeline]) -> None:
    for pipeline in pipelines:
        pipeline.ledger.check_place(pipeline.name, pipeline.place)


def _settle_abandoned(pipeline: Pipeline) -> None:
    """Count jobs that nobody will collect any more (their shard was replaced) with the most that they can have cost."""
    for job in pipeline.ledger.unsettled(pipeline.name):
        pipeline.ledger.settle(pipeline.name, job.shard, job.fence, job.bound_usd)


def _is_waiting(pipeline: Pipeline) -> bool:
    return pipeline.ledger.counts(pipeline.name)[State.QUEUED] > 0
