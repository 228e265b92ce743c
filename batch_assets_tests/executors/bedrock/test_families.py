"""Families: what each model is asked, what of its answer is taken, and what no model can do."""

from io import BytesIO
from typing import Any

import numpy as np
import orjson
import pytest
import simdjson

from batch_assets.errors import ConfigurationError
from batch_assets.executors.aws.answers import BadAnswer
from batch_assets.executors.bedrock.account import BedrockAccount
from batch_assets.executors.bedrock.families.registry import family_for
from batch_assets.executors.bedrock.model_ids import base_model_id, model_name
from batch_assets.executors.bedrock.on_demand import embed_text
from batch_assets_tests.executors.bedrock.builders import (
    CLAUDE,
    DIMENSIONS,
    NOVA_CHAT,
    TITAN,
    family,
    pipeline,
    unit,
)

IMAGE, NOVA = "amazon.titan-embed-image-v1", "amazon.nova-2-multimodal-embeddings-v1:0"


def test_titan_text() -> None:
    asked = family(TITAN, model={"dimensions": 512, "normalize": False})
    assert asked.request("text") == {"inputText": "text", "dimensions": 512, "normalize": False}
    assert family(TITAN, model={}).dimensions == 1024


def test_titan_multimodal() -> None:
    asked = family(IMAGE, model={"dimensions": 384})
    assert asked.request("text") == {"inputText": "text", "embeddingConfig": {"outputEmbeddingLength": 384}}


@pytest.mark.parametrize(("too_long", "mode"), [("truncate", "END"), ("reject", "NONE")])
def test_nova_multimodal(too_long: str, mode: str) -> None:
    asked = family(NOVA, executor={"too_long": too_long}, model={"dimensions": 1024})
    assert asked.request("text") == {
        "schemaVersion": "nova-multimodal-embed-v1",
        "taskType": "SINGLE_EMBEDDING",
        "singleEmbeddingParams": {
            "embeddingPurpose": "GENERIC_INDEX",
            "embeddingDimension": 1024,
            "text": {"truncationMode": mode, "value": "text"},
        },
    }


def test_a_query_is_asked_with_its_own_prompt_and_purpose() -> None:
    asked: list[dict[str, Any]] = []

    class Runtime:
        """The one call of the service that a query takes."""

        def invoke_model(self, body: bytes, **_: Any) -> dict[str, Any]:
            asked.append(orjson.loads(body))
            answer = {"embedding": unit(1), "embeddings": [{"embedding": unit(1)}]}
            return {"body": BytesIO(orjson.dumps(answer))}

    account = BedrockAccount("us-east-1")
    for model_id, model in (
        (TITAN, {"prompt": "text: "}),
        (TITAN, {"prompt": "text: ", "query_prompt": "find: "}),
        (NOVA, {"query_prompt": "find: "}),
    ):
        settings = pipeline(model_id, model={"dimensions": DIMENSIONS, **model})
        assert embed_text(account.executor(settings), Runtime(), "cat").shape == (DIMENSIONS,)
    assert [request.get("inputText") for request in asked] == ["cat", "find: cat", None]
    nova = asked[2]["singleEmbeddingParams"]
    assert (nova["embeddingPurpose"], nova["text"]["value"]) == ("TEXT_RETRIEVAL", "find: cat")


def test_claude() -> None:
    asked = family(CLAUDE, model={"max_tokens": 64})
    assert (asked.task, asked.invocation_type, asked.dimensions) == ("generate", "InvokeModel", 0)
    assert asked.request("text") == {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "text"}]}],
    }


def test_converse() -> None:
    asked = family(NOVA_CHAT)
    assert (asked.task, asked.invocation_type) == ("generate", "Converse")
    assert asked.request("text") == {
        "messages": [{"role": "user", "content": [{"text": "text"}]}],
        "inferenceConfig": {"maxTokens": 1024},
    }


@pytest.mark.parametrize(
    ("model_id", "name"),
    [
        ("arn:aws:bedrock:us-east-1::foundation-model/amazon.titan-embed-text-v2:0", "titan_text"),
        ("amazon.titan-embed-image-v1:0", "titan_multimodal"),
        (NOVA, "nova_multimodal"),
        ("global.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude"),
        ("arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-3-haiku", "claude"),
        ("us.amazon.nova-pro-v1:0", "converse"),
        ("meta.llama3-1-8b-instruct-v1:0", "converse"),
        ("mistral.mistral-large-2407-v1:0", "converse"),
    ],
)  # fmt: skip
def test_a_model_finds_its_family(model_id: str, name: str) -> None:
    assert family_for(pipeline(model_id)).name == name


def test_another_chat_model_is_asked_by_converse_when_told_so() -> None:
    profile = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3d4e5f6"
    assert family_for(pipeline(profile, task="generate")).name == "converse"
    with pytest.raises(ConfigurationError, match="of no known family"):
        family_for(pipeline(profile))


@pytest.mark.parametrize(
    ("model_id", "fields", "says"),
    [
        (TITAN, {"model": {"dimensions": 768}}, "model.dimensions: 768 .* use 1024, 512 or 256"),
        (TITAN, {"model": {"revision": "main"}}, "model.revision"),
        (TITAN, {"model": {"dtype": "bfloat16"}}, "model.dtype"),
        (TITAN, {"model": {"pooling": "mean"}}, "model.pooling: 'mean'"),
        (TITAN, {"model": {"max_tokens": 99}}, "model.max_tokens: 99"),
        (TITAN, {"model": {"id": "some/model"}}, "model.id: 'some/model'"),
        (TITAN, {"task": "generate"}, "task: 'generate' .* write task: embed"),
        (CLAUDE, {"task": "embed"}, "task: 'embed' .* write task: generate"),
        (CLAUDE, {"model": {"dimensions": 256}}, "answers have none"),
        ("cohere.embed-english-v3", {}, "not offered for batch inference; use amazon.titan-embed-text-v2"),
        ("acme.words-v1", {}, "known family"),
    ],
)
def test_what_a_model_cannot_do_is_refused(model_id: str, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        family_for(pipeline(model_id, **fields))


ANSWERS = [
    (TITAN, {"model": {"dimensions": 256}}, {"embedding": unit(3), "inputTextTokenCount": 7}),
    (
        TITAN,
        {"model": {"dimensions": 256}},
        {"embeddingsByType": {"float": unit(3)}, "inputTextTokenCount": 7},
    ),
    (
        IMAGE,
        {"model": {"dimensions": 256}},
        {"embedding": unit(3), "inputTextTokenCount": 7, "message": None},
    ),
    (NOVA, {"model": {"dimensions": 256}}, {"embeddings": [{"embeddingType": "TEXT", "embedding": unit(3)}]}),
]


@pytest.mark.parametrize(
    "view", [lambda data: simdjson.Parser().parse(data), orjson.loads], ids=["simd", "dict"]
)
@pytest.mark.parametrize(("model_id", "fields", "output"), ANSWERS)
def test_vectors_are_found(model_id: str, fields: dict[str, Any], output: dict[str, Any], view: Any) -> None:
    answer = family(model_id, **fields).answer(view(orjson.dumps(output)))
    assert answer.vector is not None
    assert np.frombuffer(answer.vector).tolist() == unit(3)
    assert answer.input_tokens == (0 if model_id == NOVA else 7)


@pytest.mark.parametrize(
    "view", [lambda data: simdjson.Parser().parse(data), orjson.loads], ids=["simd", "dict"]
)
@pytest.mark.parametrize(
    "embedding",
    [None, [], unit(0, 255), [*unit(0), 0.0], "text", 3, {}, [unit(0)], [unit(0, 128), unit(0, 128)],
     ["1.0"] * 256, [None] * 256, [True] * 256],
)  # fmt: skip
def test_what_is_no_vector_is_no_answer(embedding: Any, view: Any) -> None:
    with pytest.raises(BadAnswer):
        family().answer(view(orjson.dumps({"embedding": embedding, "inputTextTokenCount": 1})))


@pytest.mark.parametrize(
    "view", [lambda data: simdjson.Parser().parse(data), orjson.loads], ids=["simd", "dict"]
)
def test_answers_are_found(view: Any) -> None:
    claude = {
        "content": [{"type": "thinking", "thinking": "hm"}, *({"type": "text", "text": text} for text in "ab")],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 5, "output_tokens": 2},
    }  # fmt: skip
    converse = {
        "output": {"message": {"role": "assistant", "content": [{"reasoningContent": {}}, {"text": "ab"}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 5, "outputTokens": 2, "totalTokens": 7},
    }
    for model_id, output in ((CLAUDE, claude), (NOVA_CHAT, converse)):
        asked = family(model_id)
        answer = asked.answer(view(orjson.dumps(output)))
        assert (answer.text, answer.input_tokens, answer.output_tokens) == ("ab", 5, 2)
        for bad in ({}, {"content": "text"}, {"output": {"message": {}}}, {"content": None}):
            with pytest.raises(BadAnswer, match="no content"):
                asked.answer(view(orjson.dumps(bad)))


def test_options_tell_pipelines_apart_that_make_other_vectors() -> None:
    options = [
        dict(family(model_id, model=model).options())
        for model_id, model in [
            (TITAN, {}),
            (TITAN, {"dimensions": 256}),
            (TITAN, {"normalize": False}),
            (NOVA, {}),
        ]
    ]
    assert all(one not in options[:place] for place, one in enumerate(options))


def test_model_ids() -> None:
    profile = (
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-3-haiku-20240307-v1:0"
    )
    assert model_name(profile) == "us.anthropic.claude-3-haiku-20240307-v1:0"
    assert base_model_id(profile) == "anthropic.claude-3-haiku-20240307-v1:0"
    custom = "arn:aws:bedrock:us-east-1:123456789012:custom-model/amazon.titan-embed-text-v2:0/abcdefghijkl"
    assert base_model_id(custom) == TITAN
    assert base_model_id("us-gov.amazon.nova-lite-v1:0") == "amazon.nova-lite-v1:0"
    assert base_model_id("ai21.jamba-1-5-mini-v1:0") == "ai21.jamba-1-5-mini-v1:0"
