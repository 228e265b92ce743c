"""What runs of `shard_plan` and `merged_embeddings` have to do with orders to start a pipeline, and with people.

A run of `shard_plan` with an order's key as its tag begins that order; a merge ends it. What else
becomes of an order is `control/triggers.py`'s business.
"""

import contextlib
from collections.abc import Iterator

import dagster as dg

from batch_assets.control.alerts import tell_blocked, tell_published
from batch_assets.control.pipeline import Pipeline
from batch_assets.control.triggers import fail_orders, settle_orders, unattended
from batch_assets.errors import AccountingError
from batch_assets.ledger.triggers import TriggerState
from batch_assets.merge.base import Manifest
from batch_assets.orchestration.metadata import START_TAG
from batch_assets.orchestration.resources import notifiers_of
from batch_assets.plain_text import plain_text


@contextlib.contextmanager
def starting(context: dg.AssetExecutionContext, pipeline: Pipeline) -> Iterator[None]:
    """Plan within this block: the order that the run's tag names is given before, and begun afterwards.

    Where the source cannot be planned the order has failed. A run that dies in between leaves it
    waiting, and `new_input` asks for another.
    """
    key, ledger, name = context.run.tags.get(START_TAG), pipeline.ledger, pipeline.name
    if key is None:
        yield
        return
    ledger.open_trigger(name, key, "schedule")
    # One plan begins all orders that were given before it.
    keys = [order.key for order in unattended(ledger, name) if order.state is TriggerState.WAITING]
    try:
        yield
    except Exception as error:
        for given in keys:
            ledger.close_trigger(name, given, TriggerState.FAILED, str(error))
        raise
    # Not before: a merge of what was planned earlier does not carry an order out.
    ledger.begin_triggers(name, keys)
    _settle(context, pipeline)


@contextlib.contextmanager
def publishing(context: dg.AssetExecutionContext, pipeline: Pipeline) -> Iterator[None]:
    """Merge and publish within this block: where that is blocked, a person is told, and what was begun for it fails."""
    try:
        yield
    except AccountingError as error:
        tell_blocked(pipeline, error, notifiers_of(context))
        fail_orders(pipeline.ledger, pipeline.name, str(error))
        raise


def announce(context: dg.AssetExecutionContext, pipeline: Pipeline, manifest: Manifest, uri: str) -> None:
    """Tell that this version was published, and end the orders that this carries out."""
    tell_published(pipeline, manifest, uri, notifiers_of(context))
    _settle(context, pipeline)


def _settle(context: dg.AssetExecutionContext, pipeline: Pipeline) -> None:
    for sentence in settle_orders(pipeline.settings, pipeline.ledger, at_work=True):
        context.log.info(plain_text(sentence))
