"""Vectors of a model server: each record has its own, or a reason, whatever the server does."""

from pathlib import Path

import pytest

from batch_assets_tests.executors.gateway.shards import DIMENSIONS, Sent, pipeline_at, records_of, send, texts
from batch_assets_tests.gateway.computing import count_tokens, digest_of, vectors_of
from batch_assets_tests.gateway.model_servers import model_server
from batch_assets_tests.gateway.scenario import Fault, Refusal, Scenario

BAD = "r37"
TEXTS = texts(100)
ONLY_BAD = "number 37 "


def sent(folder: Path, *faults: Fault, **executor: object) -> Sent:
    with model_server(folder, Scenario(faults=list(faults), dimensions=DIMENSIONS)) as server:
        return send(pipeline_at(folder, server.url, records_of(TEXTS), executor=executor))


@pytest.mark.parametrize(
    "kind",
    [
        "shuffled", "missing_vector", "null_vector", "zero_vector", "nan_vector", "wrong_width", "duplicate_index",
        "wrong_index", "html", "error_inside", "drop", "cut", "cut_with_length", "no_usage",
    ],
)  # fmt: skip
def test_what_goes_wrong_once_costs_no_record(tmp_path: Path, kind: str) -> None:
    """A missing vector, for one, is asked for again by itself: nothing goes by the position in an answer."""
    found = sent(tmp_path, Fault(kind=kind, calls=(1, 3)))
    assert found.codes == {}
    assert found.own_vectors(TEXTS)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("null_vector", "missing_result"),
        ("zero_vector", "zero_norm"),
        ("nan_vector", "non_finite"),
        ("wrong_width", "unexpected_output"),
        ("html", "unexpected_output"),
        ("drop", "no_answer"),
        ("error_inside", "server_error_500"),
    ],
)
def test_what_goes_wrong_for_one_record_each_time_costs_that_record(
    tmp_path: Path, kind: str, code: str
) -> None:
    found = sent(tmp_path, Fault(kind=kind, text=ONLY_BAD), max_attempts=2)
    assert found.codes == {BAD: code}
    assert found.own_vectors(TEXTS)


def test_a_record_that_the_server_refuses_is_found_among_those_of_its_call(tmp_path: Path) -> None:
    refusal = Refusal(status=422, message="this text is against the rules")
    found = sent(tmp_path, Fault(kind="refuse", text=ONLY_BAD, refusal=refusal))
    assert found.codes == {BAD: "refused_422"}
    assert found.tries == {BAD: 1}
    assert "against the rules" in found.failures["error_message"][0]
    assert found.own_vectors(TEXTS)


def test_where_the_server_has_no_room_records_wait_at_no_attempt(tmp_path: Path) -> None:
    full = Refusal(status=429, retry_after=0.01)
    found = sent(tmp_path, Fault(kind="refuse", calls=(1, 12), refusal=full), max_attempts=1)
    assert found.codes == {}
    assert found.own_vectors(TEXTS)


def test_tokens_are_counted_once_and_add_up(tmp_path: Path) -> None:
    found = sent(tmp_path, inputs_per_call=7)
    assert found.rows["token_count"].sum() == sum(map(count_tokens, TEXTS.values()))
    assert found.marker.tokens == found.rows["token_count"].sum()


def test_a_prompt_stands_before_each_text_and_dimensions_are_asked_for(tmp_path: Path) -> None:
    with model_server(tmp_path) as server:
        settings = pipeline_at(
            tmp_path, server.url, records_of(TEXTS), model={"prompt": "passage: ", "dimensions": 64}
        )
        found = send(settings)
        computed = server.computed()
    assert found.rows["embedding"].to_numpy().shape == (100, 64)
    assert {digest_of("passage: " + text) for text in TEXTS.values()} == set(computed)


def test_a_text_that_is_too_long_is_cut_to_what_the_model_takes(tmp_path: Path) -> None:
    """To the last token: the vector is that of the longest beginning which the server accepts."""
    known = {"short": "one two three", "long": " ".join(f"word{number}" for number in range(50))}
    with model_server(tmp_path, Scenario(context_tokens=10)) as server:
        found = send(pipeline_at(tmp_path, server.url, records_of(known)))
    assert found.codes == {}
    [vector] = found.rows.filter(record_id="long")["embedding"].to_numpy()
    beginnings = [known["long"][:length] for length in range(len(known["long"]))]
    [kept] = [
        text
        for text, own in zip(beginnings, vectors_of(beginnings, DIMENSIONS), strict=True)
        if own @ vector > 0.9999
    ]
    assert count_tokens(kept) == 10


def test_a_text_that_is_too_long_is_failed_where_that_is_asked_for(tmp_path: Path) -> None:
    known = {"short": "one two three", "long": "four " * 50}
    with model_server(tmp_path, Scenario(context_tokens=10)) as server:
        found = send(pipeline_at(tmp_path, server.url, records_of(known), executor={"too_long": "reject"}))
    assert found.codes == {"long": "too_long"}
    assert found.rows["record_id"].to_list() == ["short"]
