"""The component: one `defs.yaml` becomes one pipeline's whole graph.

Field descriptions and checks are in `settings/`; the assets, in `orchestration/`. A pipeline that cannot be loaded
is an error for `dg check`, and elsewhere shows itself beside the others.
"""

import weakref
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pydantic
from dagster.components.core.component_tree import TestComponentTree

from batch_assets.components.attributes import parse_attributes
from batch_assets.components.declared import BrokenPipeline, broken_pipeline, compare_declarations, validating
from batch_assets.components.scaffolding import PipelineScaffolder
from batch_assets.components.written_attributes import WrittenAttributes
from batch_assets.errors import ConfigurationError
from batch_assets.orchestration.broken import build_broken_definitions, shown_beside
from batch_assets.orchestration.pipeline import build_pipeline_definitions
from batch_assets.orchestration.shared import build_shared_definitions
from batch_assets.plain_text import plain_logger
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.settings.project import RESOURCE_KEYS

logger = plain_logger(__name__)


def loaded_or_broken(settings: PipelineSettings) -> dg.Definitions:
    """The pipeline's definitions; where Dagster cannot take them, those that say why, or for `dg check` the error."""
    try:
        return build_pipeline_definitions(settings)
    except ConfigurationError as error:
        if validating():
            raise
        logger.error("left out: %s", error)
        return build_broken_definitions(settings.name, [str(error)])


class _PipelinesOfTree:
    """The pipelines of a component tree.

    `first` is the place of the one that was built first, `reasons` has why those that are broken are so, by the name
    under which they are shown, and `shown` the place of the one that shows them.
    """

    def __init__(self, first: str, pipelines: Iterable["EmbeddingPipeline"]) -> None:
        self.first = first
        declared = compare_declarations((pipeline.found, pipeline.declared_in) for pipeline in pipelines)
        self.loaded = declared.pipelines
        self.reasons: dict[str, list[str]] = {}
        self.shown: dict[str, str] = {}
        for one in declared.broken:
            self.reasons.setdefault(shown_beside(one.name, self.loaded), []).append(one.reason)


_OF_TREE: "weakref.WeakKeyDictionary[Any, _PipelinesOfTree]" = weakref.WeakKeyDictionary()
"""Of each component tree, by its state."""


class EmbeddingPipelineAttributes(WrittenAttributes):
    """A pipeline's (`settings.parse_pipeline`)."""

    settings_model = PipelineSettings


@dg.scaffold_with(PipelineScaffolder)
class EmbeddingPipeline(dg.Component):
    """One dataset × one model × one executor: records in, verified embeddings out.

    Makes the assets shard_plan, input_shards, submitted_jobs, embedding_outputs and
    merged_embeddings under the pipeline's name, with their checks and partitions.
    """

    def __init__(self, settings: PipelineSettings) -> None:
        self.found: PipelineSettings | BrokenPipeline = settings
        self.resources: Collection[str] = settings.resources
        self.declared_in = Path("Python")

    @property
    def name(self) -> str:
        return self.found.name

    @classmethod
    def get_model_cls(cls) -> type[pydantic.BaseModel]:
        return EmbeddingPipelineAttributes

    @classmethod
    def load(
        cls, attributes: pydantic.BaseModel | None, context: dg.ComponentLoadContext
    ) -> "EmbeddingPipeline":
        written: Mapping[str, Any] = attributes.model_dump() if attributes else {}
        file = Path(context.path) / "defs.yaml"
        try:
            found = cls(parse_attributes(written, file, context.resolution_context, context.defs_module_path))
        except ConfigurationError as error:
            if validating():
                raise
            found = _BrokenPipeline(broken_pipeline(written, file, error), written.get("resources"))
        found.declared_in = file
        return found

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        tree = context.component_tree
        if isinstance(tree, TestComponentTree):  # stands for none: `build_defs_for_component`
            return self.own_definitions()
        place = f"{context.component_path} {self.name}"
        siblings = _OF_TREE.get(tree.state_tracker)
        if siblings is None:
            siblings = _PipelinesOfTree(place, tree.get_all_components(EmbeddingPipeline))
            _OF_TREE[tree.state_tracker] = siblings
        own = self._among(siblings, place)
        # Dagster takes a sensor once, so the first pipeline that is built brings what all of them share.
        if siblings.first != place:
            return own
        pipelines = [self, *tree.get_all_components(EmbeddingPipeline)]
        project = {key for pipeline in pipelines for key in pipeline.resources}
        return dg.Definitions.merge(build_shared_definitions(project), own)

    def own_definitions(self) -> dg.Definitions:
        """Its assets, checks and schedules."""
        if isinstance(self.found, BrokenPipeline):
            return build_broken_definitions(shown_beside(self.name, ()), [self.found.reason])
        return build_pipeline_definitions(self.found)

    def _among(self, siblings: _PipelinesOfTree, place: str) -> dg.Definitions:
        """The same where it is loaded; else why it is not, once for all that are shown under one name."""
        shown = shown_beside(self.name, siblings.loaded)
        reasons = siblings.reasons.get(shown)
        if siblings.loaded.get(self.name) == self.found or reasons is None:
            return (
                self.own_definitions()
                if isinstance(self.found, BrokenPipeline)
                else loaded_or_broken(self.found)
            )
        if siblings.shown.setdefault(shown, place) != place:
            return dg.Definitions()
        if validating():
            raise ConfigurationError("; ".join(reasons))
        for reason in reasons:
            logger.error("left out: %s", reason)
        return build_broken_definitions(shown, reasons)


class _BrokenPipeline(EmbeddingPipeline):
    """One that cannot be loaded, and says so in Dagster; the rest of the code location goes on."""

    def __init__(self, broken: BrokenPipeline, resources: object) -> None:
        self.found = broken
        # What the pipeline leaves to the project would else be there twice.
        self.resources = [key for key in RESOURCE_KEYS if isinstance(resources, Mapping) and key in resources]
