"""Vectors are what sentence-transformers makes of the same model, in every layout it can be given."""

import json
import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, StaticEmbedding
from tokenizers import Tokenizer

from batch_assets.encoders import guards
from batch_assets.encoders.reference import reference_vectors
from batch_assets.encoders.text import TextEncoder
from batch_assets.errors import ModelError
from batch_assets.settings.model import ModelSettings
from batch_assets_tests.builders import WORDS, make_tiny_model, make_tokenizer, wrap_as_sentence_transformer

TEXTS = [
    "a",
    "Hello World",
    "the file was read " * 60,
    "Ünïcode 漢字 \u200b[SEP] x",
    *(" ".join(np.random.default_rng(seed).choice(WORDS, seed % 30 + 1)) for seed in range(20)),
]


def encode(encoder: TextEncoder, texts: list[str] = TEXTS, size: int = 7) -> np.ndarray:
    """Vectors in batches of unequal lengths."""
    inputs = encoder.prepare(texts).inputs
    return np.concatenate(
        [encoder.encode(inputs[first : first + size]) for first in range(0, len(texts), size)]
    )


def lowest_cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def load(folder: Path, **changes: Any) -> TextEncoder:
    return TextEncoder.load(ModelSettings(id=str(folder), **{"dtype": "float32", **changes}), device="cpu")


SMALL = {
    "vocab_size": 512, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "initializer_range": 0.2,
}  # fmt: skip


def _bert() -> Any:
    return transformers.BertModel(transformers.BertConfig(**SMALL))


def _roberta() -> Any:  # positions count from 2: 66 rows hold 64 tokens
    return transformers.RobertaModel(
        transformers.RobertaConfig(**SMALL, max_position_embeddings=66, pad_token_id=1)
    )


def _mpnet() -> Any:
    return transformers.MPNetModel(transformers.MPNetConfig(**SMALL, max_position_embeddings=66))


def _distilbert() -> Any:
    shape = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "initializer_range": 0.2}
    return transformers.DistilBertModel(transformers.DistilBertConfig(vocab_size=512, **shape))


def _t5() -> Any:
    shape = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    return transformers.T5EncoderModel(transformers.T5Config(vocab_size=512, **shape))


def _qwen() -> Any:
    config = transformers.Qwen2Config(**{**SMALL, "num_key_value_heads": 1}, max_position_embeddings=128)
    return transformers.Qwen2Model(config)


NO_LIMIT = int(1e30)
# name: model, tokenizer, its limit, the directory's limit, pooling (None: a plain transformers directory)
LAYOUTS: dict[str, tuple[Callable[[], Any], str, int, int | None, str | None]] = {
    "bert, plain transformers": (_bert, "bert", 64, None, None),
    "bert, first token": (_bert, "bert", 64, 64, "cls"),
    "roberta without a limit": (_roberta, "bert", NO_LIMIT, None, "mean"),
    "mpnet": (_mpnet, "bert", 64, 64, "max"),
    "distilbert": (_distilbert, "bert", 64, 64, "mean"),
    "t5 without positions": (_t5, "bert", 100, None, "mean"),
    "decoder, last token, no padding token": (_qwen, "gpt", 100, 100, "lasttoken"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vectors_equal_sentence_transformers(layout: str, tmp_path: Path) -> None:
    make, kind, tokenizer_limit, limit, pooling = LAYOUTS[layout]
    torch.manual_seed(0)
    make().eval().save_pretrained(tmp_path)
    make_tokenizer(tmp_path, max_tokens=tokenizer_limit, kind=kind)
    if pooling is not None:
        wrap_as_sentence_transformer(tmp_path, hidden=32, max_tokens=limit, pooling=pooling)
    encoder = load(tmp_path)
    expected = reference_vectors(ModelSettings(id=str(tmp_path)), TEXTS)
    assert encoder._feed.parallel
    assert lowest_cosine(encode(encoder), expected) > 0.99999
    assert np.allclose(np.linalg.norm(encode(encoder), axis=1), 1, atol=1e-5)
    # By default in the machine's own precision, and never worse than promised.
    assert lowest_cosine(encode(load(tmp_path, dtype="auto")), expected) > 0.9995


def test_modules_after_the_pooling_run_too(tiny_model: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(str(tiny_model), device="cpu")
    model.append(Dense(32, 16))
    model.append(Normalize())
    model.save(str(tmp_path))
    encoder = load(tmp_path, normalize=False)
    assert encoder.dimensions == 16
    assert lowest_cosine(encode(encoder), model.encode(TEXTS)) > 0.99999


def test_a_model_without_a_transformer(tiny_model: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=24)], device="cpu").save(
        str(tmp_path)
    )
    encoder = load(tmp_path)
    assert (
        lowest_cosine(encode(encoder), SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS))
        > 0.99999
    )
    assert encoder.prepare(["the file"]).counts.tolist() == [2]


def test_prompts_the_models_and_ones_own(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    prompts = {"prompts": {"doc": "the file: "}, "default_prompt_name": "doc"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({**pooling, "include_prompt": False}))
    model = SentenceTransformer(str(folder), device="cpu")
    for prompt in (None, "", "query: "):
        vectors = encode(load(folder, prompt=prompt))
        assert lowest_cosine(vectors, model.encode(TEXTS, prompt=prompt)) > 0.99999
    assert lowest_cosine(encode(load(folder)), encode(load(folder, prompt=""))) < 0.999


def test_fewer_dimensions_are_cut_before_they_are_normalized(tiny_model: Path) -> None:
    model = SentenceTransformer(str(tiny_model), device="cpu", truncate_dim=8)
    encoder = load(tiny_model, dimensions=8)
    assert encoder.dimensions == 8
    assert np.allclose(encode(encoder), model.encode(TEXTS, normalize_embeddings=True), atol=1e-5)
    raw = load(tiny_model, dimensions=8, normalize=False)
    assert not raw.normalized
    assert np.allclose(encode(raw), model.encode(TEXTS), atol=1e-4)


def test_max_tokens_truncates_as_the_library_does(tiny_model: Path) -> None:
    encoder = load(tiny_model, max_tokens=9)
    assert encoder.prepare(TEXTS).counts.max() == 9
    assert lowest_cosine(
        encode(encoder), reference_vectors(ModelSettings(id=str(tiny_model), max_tokens=9), TEXTS)
    ) > (0.99999)


def test_token_counts_are_what_the_model_sees(tiny_model: Path) -> None:
    counts = load(tiny_model).prepare(["a", "the file", "the file " * 100]).counts
    assert counts.tolist() == [3, 4, 64]
    assert counts.dtype == np.int32


def test_minilm_in_bfloat16_and_float32() -> None:
    # Few: where the processor does not compute in bfloat16, each takes long.
    texts = [*TEXTS[:10], " ".join(WORDS) * 3]
    expected = reference_vectors(ModelSettings(), texts)
    exact = TextEncoder.load(ModelSettings(dtype="float32"), device="cpu")
    reduced = TextEncoder.load(ModelSettings(dtype="bfloat16"), device="cpu")
    assert (exact.dtype, reduced.dtype, exact.dimensions) == ("float32", "bfloat16", 384)
    assert lowest_cosine(encode(exact, texts), expected) > 0.999999
    assert lowest_cosine(encode(reduced, texts), expected) > 0.9995


def test_a_batch_gives_what_its_texts_give_alone(tiny_model: Path) -> None:
    encoder = load(tiny_model)
    assert np.allclose(encode(encoder, size=len(TEXTS)), encode(encoder, size=1), atol=1e-5)


def test_many_threads_give_what_one_gives(tiny_model: Path) -> None:
    encoder = load(tiny_model)
    expected = encode(encoder)
    with ThreadPoolExecutor(4) as pool:
        for vectors in pool.map(lambda _: encode(encoder), range(20)):
            assert np.allclose(vectors, expected, atol=1e-6)


def test_a_model_that_loses_too_much_in_bfloat16_computes_in_float32(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(guards, "pick_dtype", lambda asked, device: "bfloat16" if asked == "auto" else asked)
    assert load(tiny_model, dtype="auto").dtype == "bfloat16"
    monkeypatch.setattr(guards, "LEAST_COSINE_AUTO", 0.9999999)
    with caplog.at_level(logging.WARNING):
        assert load(tiny_model, dtype="auto").dtype == "float32"
    assert "computes in float32, not bfloat16" in caplog.text
    assert load(tiny_model, dtype="bfloat16").dtype == "bfloat16"


def test_faster_parts_that_compute_something_else_are_taken_out(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def sabotage(model: Any, batch_tokens: int) -> Callable[[], None]:
        own = model.encoder.layer[0].intermediate.dense
        model.encoder.layer[0].intermediate.dense = torch.nn.Linear(own.in_features, own.out_features)
        return lambda: setattr(model.encoder.layer[0].intermediate, "dense", own)

    monkeypatch.setattr(guards, "accelerate", sabotage)
    vectors = encode(load(tiny_model))
    assert "keeps its own layers" in caplog.text
    assert lowest_cosine(vectors, reference_vectors(ModelSettings(id=str(tiny_model)), TEXTS)) > 0.99999


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dimensions": 33}, "model.dimensions: 33 is more than the 32"),
        ({"max_tokens": 65}, "model.max_tokens: 65 is more than the 64"),
        ({"max_tokens": 2}, "leaves no room for text beside the 2 special tokens"),
    ],
)
def test_settings_that_cannot_work_are_refused(tiny_model: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        load(tiny_model, **changes)


def test_code_of_the_models_own_is_not_run_unless_allowed(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    (folder / "own.py").write_text("raise SystemExit('ran')")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"trust_remote_code: true \(--trust-remote-code\)"):
        load(folder)


def test_a_damaged_model_is_told_in_words(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(folder)


def test_a_device_that_is_not_there_is_refused(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match=r"executor.device: 'cuda:3' cannot be used"):
        TextEncoder.load(ModelSettings(id=str(tiny_model)), device="cuda:3")
