"""What tests with the model server rely on: its answers, its faults, and books that agree with both."""

import base64
import threading
from collections import Counter
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from batch_assets_tests.gateway.computing import digest_of, vectors_of
from batch_assets_tests.gateway.model_servers import RunningServer, model_server
from batch_assets_tests.gateway.scenario import Fault, Kind, Latency, Refusal, Scenario
from batch_assets_tests.waiting import PATIENCE_SECONDS

TEXTS = ["a first text", "a second one", "the third"]


def post(server: RunningServer, path: str = "/v1/embeddings", **body: Any) -> requests.Response:
    return requests.post(server.url + path, json={"model": "test-model", **body}, timeout=PATIENCE_SECONDS)


def ask(server: RunningServer, question: str, **body: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]
    answer = post(server, "/v1/chat/completions", messages=messages, **body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def one_fault(kind: Kind, **conditions: Any) -> Scenario:
    return Scenario(faults=[Fault(kind=kind, **conditions)])


def digests(texts: list[str]) -> Counter[str]:
    return Counter(map(digest_of, texts))


def test_each_text_gets_its_own_vector_in_either_encoding(tmp_path: Path) -> None:
    with model_server(tmp_path) as server:
        plain, encoded = (
            post(server, input=TEXTS, encoding_format=encoding).json() for encoding in ("float", "base64")
        )
        short = post(server, input=TEXTS[0], dimensions=8).json()
        computed = server.computed()
    expected = vectors_of(TEXTS, 384)
    np.testing.assert_allclose([item["embedding"] for item in plain["data"]], expected, rtol=1e-6)
    found = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in encoded["data"]]
    np.testing.assert_array_equal(found, expected)
    assert plain["usage"]["prompt_tokens"] == sum(len(text.split()) for text in TEXTS)
    assert np.linalg.norm(short["data"][0]["embedding"]) == pytest.approx(1)
    assert len(short["data"][0]["embedding"]) == 8
    assert computed == digests([*TEXTS, *TEXTS, TEXTS[0]])


def test_each_question_gets_its_own_answer_of_the_schema_asked_for(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "words": {"type": "integer"}}}
    asked = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    with model_server(tmp_path) as server:
        plain, cut = ask(server, "who are you"), ask(server, "who are you", max_tokens=2)
        structured = ask(server, "who", response_format=asked)
        completed = post(server, "/v1/completions", prompt=["once", "twice"]).json()
    assert plain["choices"][0]["message"]["content"] == "echo: who are you"
    assert plain["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert (cut["choices"][0]["message"]["content"], cut["choices"][0]["finish_reason"]) == (
        "echo: who",
        "length",
    )
    assert structured["choices"][0]["message"]["content"] == '{"name":"echo: who","words":2}'
    assert [choice["text"] for choice in completed["choices"]] == ["echo: once", "echo: twice"]


def test_books_outlive_a_crash_and_go_on_after_the_restart(tmp_path: Path) -> None:
    scenario = one_fault("crash", calls=(2, 2))
    with model_server(tmp_path, scenario) as server:
        assert post(server, input=TEXTS).status_code == 200
        with pytest.raises(requests.ConnectionError):
            post(server, input=TEXTS[:1])
        assert server.wait_ended() == -9
        url = server.url
        server.restart(scenario)
        assert server.url == url
        assert post(server, input=TEXTS[:1]).status_code == 200
        entries = server.entries()
        assert server.computed() == digests([*TEXTS, TEXTS[0], TEXTS[0]])
    assert [(entry.call, entry.status, entry.fault) for entry in entries] == [
        *[(1, 200, None)] * 3,
        (2, 0, "crash"),
        (3, 200, None),
    ]


def test_a_refusal_says_when_to_come_again_and_computes_nothing(tmp_path: Path) -> None:
    dropped = {"x-llm-d-request-dropped-reason": "saturated"}
    faults = [
        Fault(kind="refuse", calls=(1, 1), refusal=Refusal(retry_after=2)),
        Fault(
            kind="refuse",
            calls=(2, 2),
            refusal=Refusal(status=503, retry_after=2, retry_after_as_date=True, headers=dropped),
        ),
        Fault(kind="refuse", text="second", refusal=Refusal(status=400, message="not this one")),
    ]
    with model_server(tmp_path, Scenario(faults=faults, api_key="secret")) as server:
        server_says = [
            requests.post(
                f"{server.url}/v1/embeddings",
                json={"model": model, "input": TEXTS},
                headers={"Authorization": f"Bearer {key}"},
                timeout=PATIENCE_SECONDS,
            )
            for key, model in [("secret", "test-model")] * 3 + [("wrong", "test-model"), ("secret", "other")]
        ]
        assert server.computed() == Counter()
        assert [entry.status for entry in server.entries()] == [429, 503, 400, 401, 404]
    first, second, third, fourth, fifth = server_says
    assert (first.status_code, first.headers["Retry-After"]) == (429, "2")
    assert parsedate_to_datetime(second.headers["Retry-After"]).tzinfo is not None
    assert second.headers["x-llm-d-request-dropped-reason"] == "saturated"
    assert (third.status_code, third.json()["error"]["message"]) == (400, "not this one")
    assert (fourth.status_code, fourth.json()["error"]["code"]) == (401, "invalid_api_key")
    assert (fifth.status_code, fifth.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("kind", ["drop", "cut"])
def test_a_connection_that_is_cut_was_paid_for(tmp_path: Path, kind: Kind) -> None:
    with model_server(tmp_path, one_fault(kind, times=1)) as server:
        with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            post(server, input=TEXTS)
        assert server.computed() == digests(TEXTS)
        assert post(server, input=TEXTS).status_code == 200


def test_damage_is_where_the_scenario_puts_it(tmp_path: Path) -> None:
    kinds: list[Kind] = [
        "null_vector", "zero_vector", "nan_vector", "wrong_width", "missing_vector", "shuffled",
        "duplicate_index", "wrong_index", "html", "error_inside", "cut_with_length", "no_usage",
    ]  # fmt: skip
    faults = [Fault(kind=kind, calls=(number, number), text="second") for number, kind in enumerate(kinds, 1)]
    with model_server(tmp_path, Scenario(faults=faults)) as server:
        answers = {kind: post(server, input=TEXTS) for kind in kinds}
    assert {answer.status_code for answer in answers.values()} == {200}
    expected = vectors_of(TEXTS, 384)
    vectors = {kind: [item["embedding"] for item in answers[kind].json()["data"]] for kind in kinds[:8]}
    indices = {kind: [item["index"] for item in answers[kind].json()["data"]] for kind in kinds[:8]}
    for kind in kinds[:4]:
        np.testing.assert_allclose(vectors[kind][::2], expected[::2], rtol=1e-6)
    assert vectors["null_vector"][1] is None
    assert not np.any(vectors["zero_vector"][1])
    assert np.isnan(vectors["nan_vector"][1][0])
    assert len(vectors["wrong_width"][1]) == 383
    assert indices["missing_vector"] == [0, 1]
    assert sorted(indices["shuffled"]) == [0, 1, 2] != indices["shuffled"]
    np.testing.assert_allclose(vectors["shuffled"], expected[indices["shuffled"]], rtol=1e-6)
    assert indices["duplicate_index"] == [0, 1, 0]
    assert indices["wrong_index"] == [0, 1, 3]
    assert answers["html"].headers["Content-Type"].startswith("text/html")
    assert "error" in answers["error_inside"].json()
    with pytest.raises(requests.JSONDecodeError):
        answers["cut_with_length"].json()
    assert "usage" not in answers["no_usage"].json()


def test_answers_are_damaged_too(tmp_path: Path) -> None:
    kinds: list[Kind] = ["finish_length", "null_answer", "not_json"]
    faults = [Fault(kind=kind, calls=(number, number)) for number, kind in enumerate(kinds, 1)]
    with model_server(tmp_path, Scenario(faults=faults)) as server:
        cut, empty, plain = (ask(server, "hello")["choices"][0] for _ in kinds)
    assert (cut["message"]["content"], cut["finish_reason"]) == ("echo:", "length")
    assert empty["message"]["content"] is None
    assert plain["message"]["content"].startswith("I am sorry")


def test_a_text_too_long_is_refused_as_vllm_does_it_unless_truncation_is_asked_for(tmp_path: Path) -> None:
    with model_server(tmp_path, Scenario(context_tokens=2)) as server:
        refused = post(server, input=TEXTS)
        taken = post(server, input=TEXTS[0], truncate_prompt_tokens=-1).json()
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].startswith(
        "This model's maximum context length is 2 tokens. However, you requested 3 tokens"
    )
    assert taken["usage"]["prompt_tokens"] == 2
    np.testing.assert_allclose(taken["data"][0]["embedding"], vectors_of(["a first"], 384)[0], rtol=1e-6)


def test_above_its_slots_a_server_refuses(tmp_path: Path) -> None:
    latency = Latency(slots=1, seconds=10 * PATIENCE_SECONDS, above="refuse", refusal=Refusal(status=503))
    statuses: list[int] = []
    refused = threading.Event()
    with model_server(tmp_path, Scenario(latency=latency)) as server:

        def call() -> None:
            try:
                statuses.append(post(server, input=TEXTS).status_code)
                refused.set()
            except requests.ConnectionError:
                statuses.append(0)

        threads = [threading.Thread(target=call) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert refused.wait(PATIENCE_SECONDS)
        server.close()  # while the other call holds the slot
        for thread in threads:
            thread.join()
    assert statuses == [503, 0]
    assert server.computed() == Counter()


def test_a_share_is_drawn_alike_by_a_seed(tmp_path: Path) -> None:
    def statuses(seed: int, folder: str) -> list[int]:
        (tmp_path / folder).mkdir()
        scenario = Scenario(seed=seed, faults=[Fault(kind="refuse", share=0.5)])
        with model_server(tmp_path / folder, scenario) as server:
            return [post(server, input="text").status_code for _ in range(40)]

    first = statuses(1, "first")
    assert set(first) == {200, 429}
    assert statuses(1, "again") == first
    assert statuses(2, "other") != first
