"""Answers of a model server: each record has its own, or a reason."""

from pathlib import Path
from typing import Any

import pytest

from batch_assets.errors import ConfigurationError
from batch_assets_tests.executors.gateway.shards import Sent, pipeline_at, records_of, send, texts
from batch_assets_tests.gateway.computing import count_tokens
from batch_assets_tests.gateway.model_servers import model_server
from batch_assets_tests.gateway.scenario import Fault, Refusal, Scenario
from batch_assets_tests.pictures import image_file

BAD = "r17"
TEXTS = texts(40)
ONLY_BAD = "number 17 "
SCHEMA: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "answer",
        "schema": {
            "type": "object",
            "properties": {"summary": {"type": "string"}, "stars": {"type": "integer"}},
            "required": ["summary", "stars"],
        },
    },
}


def answered(folder: Path, *faults: Fault, records: Any = None, **attributes: Any) -> Sent:
    with model_server(folder, Scenario(faults=list(faults))) as server:
        known = records or records_of(TEXTS)
        return send(pipeline_at(folder, server.url, known, task="generate", **attributes))


def test_each_record_has_its_own_answer_with_its_tokens(tmp_path: Path) -> None:
    found = answered(tmp_path)
    assert found.responses == {key: f"echo: {text}" for key, text in TEXTS.items()}
    assert found.rows["input_tokens"].to_list() == [count_tokens(text) for text in TEXTS.values()]
    assert found.marker.tokens == found.rows["input_tokens"].sum()
    assert found.marker.output_tokens == found.rows["output_tokens"].sum() > 0


def test_prompts_are_made_of_columns_and_a_column_without_a_value_is_empty(tmp_path: Path) -> None:
    records = [{"id": "a", "text": "Moin", "language": "German"}, {"id": "b", "text": "Hi", "language": None}]
    prompt = "Translate from {language}: {text}"
    found = answered(tmp_path, records=records, model={"prompt": prompt})
    assert found.responses == {"a": "echo: Translate from German: Moin", "b": "echo: Translate from : Hi"}


def test_a_prompt_that_names_no_column_of_the_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"model.prompt: it names \{lang\}, and records have id, text"
    ):
        answered(tmp_path, model={"prompt": "{lang}: {text}"})


@pytest.mark.parametrize("kind", ["html", "error_inside", "drop", "cut", "cut_with_length", "null_answer"])
def test_what_goes_wrong_once_costs_no_record(tmp_path: Path, kind: str) -> None:
    found = answered(tmp_path, Fault(kind=kind, calls=(1, 5)))
    assert found.codes == {}
    assert found.responses == {key: f"echo: {text}" for key, text in TEXTS.items()}


@pytest.mark.parametrize(
    ("fault", "code", "tries"),
    [
        (Fault(kind="finish_length", text=ONLY_BAD), "cut_off", 1),
        (Fault(kind="null_answer", text=ONLY_BAD), "unexpected_output", 2),
        (Fault(kind="refuse", text=ONLY_BAD, refusal=Refusal(status=400)), "refused_400", 1),
        (Fault(kind="refuse", text=ONLY_BAD, refusal=Refusal(status=500)), "server_error_500", 2),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else str(value),
)
def test_what_goes_wrong_each_time_costs_that_record(
    tmp_path: Path, fault: Fault, code: str, tries: int
) -> None:
    found = answered(tmp_path, fault, executor={"max_attempts": 2})
    assert found.codes == {BAD: code}
    assert found.tries == {BAD: tries}
    assert found.rows.height == len(TEXTS) - 1


def test_answers_are_checked_against_the_schema_that_is_asked_for(tmp_path: Path) -> None:
    unfit = Fault(kind="not_json", text=ONLY_BAD)
    found = answered(tmp_path, unfit, executor={"max_attempts": 2, "body": {"response_format": SCHEMA}})
    assert found.codes == {BAD: "schema_mismatch"}
    assert '"summary":"echo: the text number 3 ."' in found.responses["r3"]


def test_completions_are_asked_with_a_prompt(tmp_path: Path) -> None:
    found = answered(tmp_path, executor={"path": "/v1/completions"})
    assert found.responses["r3"] == "echo: the text number 3 ."


def test_images_are_shown_as_data_urls_and_a_file_that_is_none_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(image_file(0, "PNG"))
    (tmp_path / "b.txt").write_bytes(b"no image")
    records = [
        {"id": key, "caption": "a cat", "url": str(tmp_path / name)}
        for key, name in (("a", "a.png"), ("b", "b.txt"), ("c", "missing.png"))
    ]
    with model_server(tmp_path) as server:
        settings = pipeline_at(
            tmp_path, server.url, records, task="generate", model={"prompt": "Describe {caption}: "}
        )
        source = settings.source.model_copy(update={"image_column": "url"})
        found = send(settings.model_copy(update={"source": source}))
    assert list(found.responses) == ["a"]
    assert found.responses["a"].startswith("echo: Describe a cat:  [image ")
    assert found.codes == {"b": "no_image", "c": "image_missing"}
    assert found.marker.counts == {"planned": 3, "embedded": 1, "rejected": 2, "failed": 0}
