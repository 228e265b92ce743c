"""The component: one `defs.yaml` becomes a queue of requests as assets.

Its fields are in `settings/request_queue.py`, its assets in `orchestration/request_queue.py`. A queue that cannot be
loaded is an error for `dg check`, and elsewhere shows itself beside the others.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pydantic
from dagster.components.core.component_tree import TestComponentTree

from batch_assets.components.declared_queues import DeclaredQueue, queue_definitions, read_queue
from batch_assets.components.scaffolding import QueueScaffolder
from batch_assets.components.written_attributes import WrittenAttributes
from batch_assets.settings.request_queue import RequestQueueSettings


class RequestQueueAttributes(WrittenAttributes):
    """A queue's."""

    settings_model = RequestQueueSettings


@dg.scaffold_with(QueueScaffolder)
class RequestQueue(dg.Component):
    """A queue of requests and the queue of their results, observed every minute.

    Makes the assets requests and results under the queue's name, and the check deadlines. What works on the queue is
    `batch-assets dispatch`.
    """

    def __init__(self, found: DeclaredQueue) -> None:
        self.found = found

    @classmethod
    def get_model_cls(cls) -> type[pydantic.BaseModel]:
        return RequestQueueAttributes

    @classmethod
    def load(cls, attributes: pydantic.BaseModel | None, context: dg.ComponentLoadContext) -> "RequestQueue":
        written: Mapping[str, Any] = attributes.model_dump() if attributes else {}
        file = Path(context.path) / "defs.yaml"
        place = context.component_path.get_relative_key(context.defs_module_path)
        return cls(read_queue(written, file, place, context.resolution_context))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        tree = context.component_tree
        if isinstance(tree, TestComponentTree):  # stands for none: `build_defs_for_component`
            return queue_definitions(self.found, [self.found])
        return queue_definitions(self.found, [each.found for each in tree.get_all_components(RequestQueue)])
