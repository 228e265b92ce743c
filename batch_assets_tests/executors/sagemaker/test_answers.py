"""Where a result is in whatever a container answers."""

import json
from typing import Any

import numpy as np
import orjson
import pytest
import simdjson

from batch_assets.executors.aws.answers import BadAnswer
from batch_assets.executors.sagemaker.answers import (
    AnswerFormat,
    TokenLevel,
    csv_answer,
    csv_parts,
)

V = [0.5, -1, 2.25]
TOKENS = [V, V, V]


def both(output: Any) -> list[Any]:
    """As Python's values, and as simdjson shows them."""
    shown: Any = simdjson.Parser().parse(orjson.dumps({"x": output}))
    return [output, shown["x"]]


@pytest.mark.parametrize(
    "output",
    [
        V,
        [V],
        [[V]],
        {"embedding": V},
        {"vectors": [V], "model": "m"},
        {"predictions": [V]},
        {"predictions": [{"embedding": V, "id": 1}]},
        [{"sentence_embedding": V}],
        {"data": [{"object": "embedding", "index": 0, "embedding": V}], "usage": {"prompt_tokens": 7}},
        {"outputs": {"output": {"data": [V]}}, "id": "x"},
        {"my_own": V},
    ],
)
def test_a_vector_of_any_shape(output: Any) -> None:
    for value in both(output):
        answer = AnswerFormat().read(value)
        assert answer.vector is not None
        assert np.frombuffer(answer.vector).tolist() == V
        assert answer.input_tokens == (7 if "usage" in output else 0)


@pytest.mark.parametrize("output", [TOKENS, [TOKENS], {"embeddings": [TOKENS]}, {"outputs": TOKENS}])
def test_a_vector_for_each_token(output: Any) -> None:
    for value in both(output):
        with pytest.raises(TokenLevel, match="3 rows of 3 numbers"):
            AnswerFormat().read(value)


@pytest.mark.parametrize(
    "output",
    ["ERROR", None, 7, True, [], [[]], {}, ["a"], [1, "a"], [1, None], [1, [2, 3]], [True, False], {"a": 1, "b": V},
     [{"embedding": V}, {"embedding": V}], {"embedding": {"a": 1, "b": 2}}, {"embedding": None}],
)  # fmt: skip
def test_what_is_no_vector_is_told(output: Any) -> None:
    for value in both(output):
        with pytest.raises(BadAnswer):
            AnswerFormat().read(value)


def test_a_named_field_is_the_only_one_looked_at() -> None:
    output = {"embedding": [9.0], "dense": {"vecs": [V]}}
    for value in both(output):
        answer = AnswerFormat(output_field="dense.vecs").read(value)
        assert answer.vector is not None and np.frombuffer(answer.vector).tolist() == V
        with pytest.raises(BadAnswer, match="no field 'sparse'"):
            AnswerFormat(output_field="sparse").read(value)


@pytest.mark.parametrize(
    "output",
    [
        "It says",
        {"generated_text": "It says"},
        [{"generated_text": "It says"}],
        [[{"generated_text": "It says"}]],
        {"choices": [{"index": 0, "message": {"role": "assistant", "content": "It says"}}], "id": "x"},
        {"outputs": ["It says"], "took": 3},
    ],
)
def test_a_text_of_any_shape(output: Any) -> None:
    for value in both(output):
        assert AnswerFormat(task="generate").read(value).text == "It says"
    for wrong in both([1.0, 2.0]):
        with pytest.raises(BadAnswer):
            AnswerFormat(task="generate").read(wrong)


def test_tokens_are_counted_where_they_are_told() -> None:
    usage = {"usage": {"prompt_tokens": 12, "completion_tokens": 5}, "generated_text": "x"}
    for value in both(usage):
        assert AnswerFormat(task="generate").read(value)[2:] == (12, 5)


@pytest.mark.parametrize(
    "columns",
    ["0.5,-1,2.25", '"[0.5, -1, 2.25]"', "[0.5, -1, 2.25]", '"{""embedding"": [0.5, -1, 2.25]}"', "[[0.5,-1,2.25]]"],
)  # fmt: skip
@pytest.mark.parametrize("text", ['"a, ""b"""', "plain", '""'])
def test_vectors_in_csv(columns: str, text: str) -> None:
    found = csv_parts(f"00000000012,{text},{columns}\r".encode())
    assert found is not None and found[0] == "00000000012"
    answer = AnswerFormat(csv=True).read(csv_answer(found[1], "embed"))
    assert answer.vector is not None and np.frombuffer(answer.vector).tolist() == V


@pytest.mark.parametrize(
    "columns", ['"Well, it says"', "Well, it says", json.dumps({"text": "Well, it says"})]
)
def test_a_text_in_csv_keeps_its_commas(columns: str) -> None:
    assert (
        AnswerFormat("generate", csv=True).read(csv_answer(columns.encode(), "generate")).text
        == "Well, it says"
    )


def test_what_is_no_csv() -> None:
    for line in (b"", b"12,a,1", b"00000000012", b"00000000012,a", b'00000000012,"a,1.0', b"abc,def,1.0"):
        assert csv_parts(line) is None
    for columns in (b"", b"a,b", b'"', b"1.0,x"):
        with pytest.raises(BadAnswer):
            AnswerFormat(csv=True).read(csv_answer(columns, "embed"))
