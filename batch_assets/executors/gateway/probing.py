"""What a server says of its model, and one small call to see whether it takes what will be sent."""

from typing import Any, cast

import orjson

from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.schema import GENERATE
from batch_assets.errors import ModelError
from batch_assets.executors.gateway.answers import AnswerCalls
from batch_assets.executors.gateway.embeddings import EmbeddingCalls
from batch_assets.executors.gateway.requests import Requests
from batch_assets.gateway.delivery import Server, ServerRefuses
from batch_assets.gateway.verdicts import Verdict, judge

MODELS = "/v1/models"
_TOLD = ("root", "revision")
"""What some servers say of where a model's weights are from; vLLM the first."""
_TEXT = "A small call, to see whether the server takes what will be sent."


async def served_model(server: Server, model: str) -> dict[str, str]:
    """What the server says of where the model is from, as far as it does: `root` and `revision`.

    Raises ServerAway, and ServerRefuses for a key that is refused.
    """
    answer = await server.ask(MODELS)
    judgement = judge(answer)
    if judgement.status in (401, 403):
        raise ServerRefuses(
            f"{server.client.base_url}{MODELS} answers {judgement.text}; look at the key in executor.api_key_env"
        )
    if judgement.verdict is not Verdict.DONE:
        return {}  # it has no such list
    try:
        entries: Any = orjson.loads(answer.body)["data"]
        known = {str(each["id"]): cast("dict[str, Any]", each) for each in entries}
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return {}
    found = known.get(model)
    if found is None:
        return {}  # a router may serve more than it lists; the first call tells
    return {name: str(found[name]) for name in _TOLD if found.get(name) and found[name] != model}


async def try_out(server: Server, requests: Requests) -> None:
    """Make one small call, as the pipeline's will be. Raises ModelError with what the server answers."""
    attempts, facts = requests.options.max_attempts, JobFacts()
    if requests.task == GENERATE:
        found = await AnswerCalls(requests, attempts, None).answer(server, _TEXT, None, facts)
        made = found.text is not None or found.output_tokens > 0
    else:
        [found] = await EmbeddingCalls(requests, attempts).embed(server, [_TEXT], facts)
        made = found.vector is not None
    if not made:
        raise ModelError(
            f"{server.client.base_url}{requests.path}: a first small call failed with {found.message} ({found.code}); "
            "look at the server, model.id, model.dimensions and executor.body"
        )
