"""Models that embed records otherwise than what they are searched by: each side as sentence-transformers embeds it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from batch_assets.encoders.fingerprint import fingerprint
from batch_assets.encoders.reference import reference_vectors
from batch_assets.encoders.registry import load_encoder, load_query_encoder
from batch_assets.settings.model import ModelSettings
from batch_assets_tests.builders import make_light_model
from batch_assets_tests.encoders.saved_model.builders import BERT, MEAN, Make, asymmetric, pooled, write
from batch_assets_tests.encoders.saved_model.embedding import TEXTS, assert_same, made, vectors
from batch_assets_tests.encoders.test_fingerprint import settings

BOTH = {"query": "find: ", "document": "the text: "}
# kind → model, sentence-transformers' own word for its records, and that for queries
SIDES: dict[str, tuple[Make, str]] = {
    "a prompt for each, none by default": (pooled(BERT, prompts=BOTH), "encode_document"),
    "that of documents by default": (pooled(BERT, prompts=BOTH, default_prompt_name="document"), "encode"),
    "that of queries by default": (pooled(BERT, prompts=BOTH, default_prompt_name="query"), "encode"),
    "a prompt by default, none for queries": (
        pooled(BERT, prompts={"d": "the text: "}, default_prompt_name="d"),
        "encode",
    ),
    "a prompt for passages": (
        pooled(BERT, prompts={"query": "find: ", "passage": "text: "}),
        "encode_document",
    ),
    "routes, documents by default": (asymmetric(default_route="document"), "encode_document"),
    "routes, the first by default": (asymmetric(), "encode_document"),
    "routes, none by default": (asymmetric(allow_empty_key=False), "encode_document"),
    "routes by mappings": (
        asymmetric(route_mappings={("document", None): "document", (None, "text"): "query"}),
        "encode_document",
    ),
}


@pytest.mark.parametrize("kind", SIDES)
def test_both_sides_as_sentence_transformers_embeds_them(kind: str, tmp_path: Path) -> None:
    make, of_records = SIDES[kind]
    folder = made(make, tmp_path)
    model = SentenceTransformer(str(folder), device="cpu")
    assert_same(vectors(folder), getattr(model, of_records)(TEXTS))
    assert_same(vectors(folder, side="query"), model.encode_query(TEXTS))
    own = ModelSettings(id=str(folder), normalize=False)
    assert_same(reference_vectors(own, TEXTS), getattr(model, of_records)(TEXTS))


def test_what_a_person_says_comes_first(tmp_path: Path) -> None:
    folder = made(pooled(BERT, prompts=BOTH), tmp_path)
    model = SentenceTransformer(str(folder), device="cpu")
    chosen = {"prompt": "a file: ", "query_prompt": "a key: "}
    assert_same(vectors(folder, **chosen), model.encode(TEXTS, prompt="a file: "))
    assert_same(vectors(folder, "query", **chosen), model.encode(TEXTS, prompt="a key: "))
    assert_same(vectors(folder, prompt=""), model.encode(TEXTS))
    assert_same(vectors(folder, "query", query_prompt=""), model.encode(TEXTS))


def test_the_records_own_prompt_is_not_the_querys(tmp_path: Path) -> None:
    folder = made(MEAN, tmp_path)
    assert_same(vectors(folder, "query", prompt="the text: "), vectors(folder))


def test_an_unused_prompt_for_passages_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = made(pooled(BERT, prompts={"passage": "text: "}), tmp_path)
    vectors(folder)
    assert "names a prompt 'passage' ('text: ') and none as its default" in caplog.text
    caplog.clear()
    vectors(folder, prompt="text: ")
    assert "passage" not in caplog.text


def test_a_users_own_model_gets_the_querys_prompt(tmp_path: Path) -> None:
    folder = make_light_model(tmp_path / "light")

    def embed(load: Any, text: str, **model: Any) -> np.ndarray:
        encoder = load(settings(folder, model={"trust_remote_code": True, **model}), device="cpu")
        return encoder.encode(encoder.prepare([text]).inputs)

    prompts = {"prompt": "text: ", "query_prompt": "find: "}
    assert (embed(load_query_encoder, "x", **prompts) == embed(load_encoder, "find: x")).all()
    assert (embed(load_query_encoder, "x", prompt="text: ") == embed(load_encoder, "text: x")).all()


def config(folder: Path, **saved: Any) -> None:
    write(folder / "config_sentence_transformers.json", saved)


def test_the_fingerprint_changes_with_vectors_that_changed_and_with_no_others(tmp_path: Path) -> None:
    """As many dimensions, or the prompt, that a person would have named: these are the same vectors."""
    folder = made(MEAN, tmp_path)

    def with_model(**model: Any) -> str:
        return fingerprint(settings(folder, model=model))

    config(folder, truncate_dim=8)
    assert with_model() == with_model(dimensions=8) != with_model(dimensions=32)
    config(folder, prompts=BOTH)
    assert with_model() == with_model(prompt="the text: ") != with_model(prompt="")
    assert with_model(query_prompt="find: ") == with_model()
    assert with_model(pooling="mean") != with_model() != with_model(pooling="cls")


@pytest.mark.parametrize(
    ("saved", "parts"),
    [
        ({"prompts": BOTH, "default_prompt_name": "document"}, {}),
        ({"prompts": {"query": "find: "}}, {}),
        ({"model_type": "SentenceTransformer", "truncate_dim": None}, {}),
        ({"truncate_dim": 8}, {"dimensions": 8}),
        ({"prompts": BOTH}, {"prompt": "the text: "}),
    ],
)
def test_models_whose_vectors_stay_keep_the_fingerprint_they_had(
    saved: dict[str, Any], parts: dict[str, Any], tmp_path: Path
) -> None:
    from batch_assets.encoders.fingerprint import _deciding

    folder = made(MEAN, tmp_path)
    config(folder, **saved)
    before = {"prompt": None, "dimensions": None, "dtype": "auto", "max_tokens": None, "normalize": True}
    assert _deciding(ModelSettings(id=str(folder)), images=False) == before | parts


def test_a_route_that_changed_changes_the_fingerprint(tmp_path: Path) -> None:
    folder = made(asymmetric(), tmp_path)
    first = fingerprint(settings(folder))
    file = next(folder.rglob("router_config.json"))
    router = json.loads(file.read_text())
    assert router["parameters"]["default_route"] == "query"
    from batch_assets.encoders.saved_model.sides import route_differs, task_of

    model = ModelSettings(id=str(folder))
    assert route_differs(model) and task_of(model, "query") == "query"
    router["parameters"]["default_route"] = "document"
    write(file, router)
    assert not route_differs(model)
    assert fingerprint(settings(folder)) != first
