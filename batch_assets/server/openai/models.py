"""`GET /v1/models`, and which pipeline a model's name means: its own name, or the model of exactly one."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from batch_assets.embeddings.schema import EMBED
from batch_assets.requests.batches.lines import ENDPOINTS
from batch_assets.server.answers import Refused, answer
from batch_assets.server.pipelines import RequestPipeline, RequestPipelines

if TYPE_CHECKING:
    from fastapi import FastAPI

OWNER = "batch-assets"


def pipeline_of(
    pipelines: Mapping[str, RequestPipeline], model: str | None, endpoint: str | None = None
) -> RequestPipeline | None:
    """The pipeline that a model names, of those that answer an endpoint; None where there is none, or several."""
    fitting = [one for one in pipelines.values() if endpoint is None or _answers(one, endpoint)]
    named = [one for one in fitting if one.name == model]
    if not named:
        named = [one for one in fitting if one.settings.model_name == model]
    return named[0] if len(named) == 1 else None


def _answers(pipeline: RequestPipeline, endpoint: str) -> bool:
    return ENDPOINTS[endpoint] == (pipeline.settings.task or EMBED)


class Models:
    """The pipelines of one deployment as OpenAI's clients list them."""

    def __init__(self, pipelines: RequestPipelines) -> None:
        self._pipelines = pipelines

    def listed(self) -> Response:
        """All pipelines that take requests."""
        return answer({"object": "list", "data": [_shown(name) for name in sorted(self._pipelines.all())]})

    def one(self, model: str) -> Response:
        """One of them."""
        found = pipeline_of(self._pipelines.all(), model)
        if found is None:
            raise Refused(
                404, f"no pipeline that takes requests is called {model[:100]!r}", code="model_not_found"
            )
        return answer(_shown(found.name))


def _shown(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": OWNER}


def add_models(application: "FastAPI", models: Models) -> None:
    """The doors."""
    application.add_api_route("/v1/models", models.listed, methods=["GET"], response_class=Response)
    application.add_api_route("/v1/models/{model}", models.one, methods=["GET"], response_class=Response)
