"""The component: one `defs.yaml` becomes one pipeline's whole graph.

Field descriptions and checks are in `settings/`; the assets, in `orchestration/`.
"""

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pydantic
from dagster.components.core.component_tree import TestComponentTree

from batch_assets.components.attributes import parse_attributes
from batch_assets.components.scaffolding import PipelineScaffolder
from batch_assets.orchestration.pipeline import build_pipeline_definitions
from batch_assets.orchestration.shared import build_shared_definitions
from batch_assets.settings.pipeline import PipelineSettings

_BUILT_FIRST: "weakref.WeakKeyDictionary[Any, tuple[str, str]]" = weakref.WeakKeyDictionary()
"""Of each component tree, by its state, the pipeline that was built first: its file and name."""


class EmbeddingPipelineAttributes(pydantic.BaseModel):
    """A `defs.yaml`'s attributes as written, before `{{ env.X }}` is filled in.

    Takes anything, so that wrong fields are refused in one place and in our words
    (`settings.parse_pipeline`); its JSON schema is the settings', for editors and `dg check yaml`.
    """

    model_config = pydantic.ConfigDict(extra="allow")

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return _allow_templates(PipelineSettings.model_json_schema(*args, **kwargs))


@dg.scaffold_with(PipelineScaffolder)
class EmbeddingPipeline(dg.Component):
    """One dataset × one model × one executor: records in, verified embeddings out.

    Makes the assets shard_plan, input_shards, submitted_jobs, embedding_outputs and
    merged_embeddings under the pipeline's name, with their checks and partitions.
    """

    def __init__(self, settings: PipelineSettings) -> None:
        self.settings = settings

    @classmethod
    def get_model_cls(cls) -> type[pydantic.BaseModel]:
        return EmbeddingPipelineAttributes

    @classmethod
    def load(
        cls, attributes: pydantic.BaseModel | None, context: dg.ComponentLoadContext
    ) -> "EmbeddingPipeline":
        written: Mapping[str, Any] = attributes.model_dump() if attributes else {}
        file = Path(context.path) / "defs.yaml"
        return cls(parse_attributes(written, file, context.resolution_context, context.defs_module_path))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        own, tree = build_pipeline_definitions(self.settings), context.component_tree
        if isinstance(tree, TestComponentTree):  # stands for none: `build_defs_for_component`
            return own
        # Dagster takes a sensor once, so the first pipeline that is built brings what all of them share.
        place = (str(context.component_path), self.settings.name)
        if _BUILT_FIRST.setdefault(tree.state_tracker, place) != place:
            return own
        pipelines = [self, *tree.get_all_components(EmbeddingPipeline)]
        project = {key for pipeline in pipelines for key in pipeline.settings.resources}
        return dg.Definitions.merge(build_shared_definitions(project), own)


def _allow_templates(schema: Any) -> Any:
    """Let a `{{ template }}` stand for any number, boolean or choice of the schema."""
    if isinstance(schema, list):
        return [_allow_templates(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {key: _allow_templates(value) for key, value in schema.items()}
    scalar = (
        changed.get("type") in ("integer", "number", "boolean") or "enum" in changed or "const" in changed
    )
    if not scalar:
        return changed
    kept = {key: changed.pop(key) for key in ("title", "description", "default") if key in changed}
    # Not anyOf: of that, a checker can only say that the value fits neither.
    return kept | {"if": {"type": "string", "pattern": r"\{\{.*\}\}"}, "then": {}, "else": changed}
