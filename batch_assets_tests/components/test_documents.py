"""A YAML file of which no one knows who wrote it is read, or refused in one line."""

from pathlib import Path

import pytest

from batch_assets.components.attributes import COMPONENT_TYPE, load_file
from batch_assets.components.documents import DEPTH, NODES, load_documents
from batch_assets.errors import ConfigurationError

TYPE = f"type: {COMPONENT_TYPE}\n"
BOMB = "a0: &a0 [x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 10)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}\n" for level in range(1, 10)
)
REFUSED = [
    (TYPE + "attributes: " + "[" * 5000, f"more than {DEPTH} levels deep"),
    (TYPE + "attributes: " + "{a: " * 5000, f"more than {DEPTH} levels deep"),
    ("- " * 5000, f"more than {DEPTH} levels deep"),
    (BOMB + TYPE + "attributes: *a9\n", f"more than {NODES} values"),
    (MERGES + TYPE + "attributes: *a9\n", f"more than {NODES} values"),
    (TYPE + "attributes: [" + "x, " * NODES + "]\n", f"more than {NODES} values"),
    (TYPE + "attributes: &a {source: *a}\n", "*a holds itself"),
    (TYPE + "attributes: *a\n", "undefined alias"),
    (TYPE + "attributes: {source: " + "1" * 5000 + "}\n", "integer string conversion"),
    (TYPE + "attributes: {source: 2026-99-99}\n", "month must be in 1..12"),
    (TYPE + "attributes: {source: !!int ''}\n", "index out of range"),
    (TYPE + "attributes: {source: !!timestamp x}\n", ""),
    (TYPE + "attributes: {source: !!bool x}\n", "x"),
]


@pytest.mark.parametrize(("text", "told"), REFUSED)
def test_what_cannot_be_a_pipeline_is_refused_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "defs.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        load_file(file)
    sentence = str(refused.value)
    assert sentence.startswith(f"{file}: cannot be read as YAML: ") and told in sentence
    assert "\n" not in sentence and len(sentence) < len(str(file)) + 300


def test_aliases_are_followed() -> None:
    text = "a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]\n---\na: &a 3\nb: *a\n"
    assert load_documents(text) == [
        {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}, {"x": 1}]},
        {"a": 3, "b": 3},
    ]


@pytest.mark.parametrize(
    "attributes", ["x" * 5000, "{source: {uri: in/}, output: {root: out/}, model: " + "x" * 5000 + "}"]
)
def test_a_value_is_quoted_in_part(tmp_path: Path, attributes: str) -> None:
    file = tmp_path / "defs.yaml"
    file.write_text(TYPE + f"attributes: {attributes}\n")
    with pytest.raises(ConfigurationError, match="xxx…") as refused:
        load_file(file)
    assert len(str(refused.value)) < len(str(file)) + 400
