"""Kinds of model: each is embedded as sentence-transformers embeds it, or refused in words (docs/models.md)."""

from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer import modules as st

from batch_assets.encoders.fingerprint import fingerprint
from batch_assets.encoders.reference import reference_vectors
from batch_assets.errors import ModelError
from batch_assets.settings.model import ModelSettings
from batch_assets_tests.encoders.saved_model import builders as kinds
from batch_assets_tests.encoders.saved_model.builders import (
    BERT,
    DECODER,
    SHAPE,
    Make,
    bare,
    built,
    pooled,
)
from batch_assets_tests.encoders.saved_model.embedding import TEXTS, assert_same, made, vectors
from batch_assets_tests.encoders.test_fingerprint import settings

T5 = {"vocab_size": 512, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
DISTIL = {
    "vocab_size": 512,
    "dim": 32,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 64,
    "initializer_range": 0.2,
}
GPT2 = {"vocab_size": 512, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}
BART = {
    "vocab_size": 512, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 128,
}  # fmt: skip
CAUSAL = bare("Qwen2ForCausalLM", tokenizer="gpt", **DECODER)

EQUAL: dict[str, Make] = {
    "bert, mean": pooled(BERT),
    "bert, first token": pooled(BERT, "cls"),
    "bert, max": pooled(BERT, "max"),
    "bert, weighted mean": built(first="weightedmean"),
    "bert, mean by the root of the length": built(first="mean_sqrt_len_tokens"),
    "bert, two poolings": kinds.pooling_modes("mean", "cls"),
    "roberta": pooled(bare("RobertaModel", **SHAPE, max_position_embeddings=66, pad_token_id=1)),
    "xlm-roberta": pooled(bare("XLMRobertaModel", **SHAPE, max_position_embeddings=66, pad_token_id=1)),
    "mpnet": pooled(bare("MPNetModel", **SHAPE, max_position_embeddings=66)),
    "distilbert": pooled(bare("DistilBertModel", **DISTIL)),
    "albert": pooled(bare("AlbertModel", **SHAPE, embedding_size=16)),
    "electra": pooled(bare("ElectraModel", **SHAPE, embedding_size=16)),
    "deberta": pooled(bare("DebertaV2Model", **SHAPE)),
    "modernbert": pooled(bare("ModernBertModel", **DECODER, pad_token_id=0)),
    "t5's encoder": pooled(bare("T5EncoderModel", **T5)),
    "qwen2, last token": pooled(bare("Qwen2Model", tokenizer="gpt", **DECODER), "lasttoken"),
    "qwen3 saved to write texts, last token": pooled(
        bare("Qwen3ForCausalLM", tokenizer="gpt", **DECODER), "lasttoken"
    ),
    "gpt-2, mean": pooled(bare("GPT2Model", tokenizer="gpt", **GPT2)),
    "bare bert": BERT,
    "bare bert that fills gaps": bare("BertForMaskedLM", **SHAPE),
    "bare electra from its training": bare("ElectraForPreTraining", **SHAPE, embedding_size=16),
    "bare encoder of somebody's own name": kinds.named("MyBertForSentenceEmbedding"),
    "bare t5": bare("T5ForConditionalGeneration", **T5),
    "dense": built(lambda: Dense(32, 16)),
    "dense, layer norm, normalize": built(lambda: Dense(32, 16), lambda: st.LayerNorm(16), Normalize),
    "dropout": built(lambda: st.Dropout(0.5)),
    "matryoshka with saved dimensions": built(truncate_dim=8),
    "matryoshka behind dense": built(lambda: Dense(32, 16), truncate_dim=4),
    "prompt by default": pooled(BERT, prompts={"d": "the file: "}, default_prompt_name="d"),
    "prompt of queries alone": pooled(BERT, prompts={"query": "find: "}),
    "router": kinds.asymmetric(default_route="document"),
    "static embeddings": kinds.static,
    "words": kinds.words(),
    "words, lstm": kinds.words(lambda: st.LSTM(16, 8), width=16),
    "words, cnn": kinds.words(lambda: st.CNN(16, 8, [1, 3]), width=16),
    "bag of words, dense": kinds.bag_of_words,
    "clip": kinds.clip,
    "weights in parts": kinds.sharded,
    "transformer in a subfolder": kinds.in_a_subfolder,
}

ENCODERS_ONLY = "name a model for embeddings, or set model.pooling"
REFUSED: dict[str, tuple[Make, str]] = {
    "splade": (kinds.splade, "is a sparse encoder"),
    "cross encoder": (kinds.cross_encoder, "is a cross encoder"),
    "classifier": (
        bare("BertForSequenceClassification", **SHAPE),
        f"ForSequenceClassification.*{ENCODERS_ONLY}",
    ),
    "tagger": (bare("BertForTokenClassification", **SHAPE), "is a BertForTokenClassification"),
    "reader": (bare("RobertaForQuestionAnswering", **SHAPE), "is a RobertaForQuestionAnswering"),
    "multiple choice": (bare("BertForMultipleChoice", **SHAPE), "is a BertForMultipleChoice"),
    "next sentence": (bare("BertForNextSentencePrediction", **SHAPE), "is a BertForNextSentencePrediction"),
    "causal": (CAUSAL, f"is a Qwen2ForCausalLM: it writes texts.*{ENCODERS_ONLY}"),
    "gpt-2": (bare("GPT2LMHeadModel", tokenizer="gpt", **GPT2), "is a GPT2LMHeadModel: it writes texts"),
    "bart": (bare("BartForConditionalGeneration", **BART), "it writes texts"),
    "bare decoder": (
        bare("Qwen2Model", tokenizer="gpt", **DECODER),
        r"is a decoder \(qwen2\).*set model.pooling",
    ),
    "multi-vector": (kinds.as_type("MultiVectorEncoder"), "late interaction"),
    "pylate": (kinds.pylate, "late interaction"),
    "colbert": (kinds.named("HF_ColBERT"), "late interaction"),
    "another family's": (kinds.as_type("Tomorrow"), "saved as 'Tomorrow'"),
    "adapter alone": (kinds.adapter_alone, "adapter_config.json makes it an adapter .* of owner/base"),
    "adapter in a model": (kinds.adapter(pooled(BERT)), "merge the two once"),
    "transformer without a pooling": (kinds.without_pooling, "its modules .Transformer. pool"),
}


@pytest.mark.parametrize("kind", EQUAL)
def test_equal_to_sentence_transformers(kind: str, tmp_path: Path) -> None:
    folder = made(EQUAL[kind], tmp_path)
    assert_same(vectors(folder), SentenceTransformer(str(folder), device="cpu").encode(TEXTS))


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_before_anything_is_embedded(kind: str, tmp_path: Path) -> None:
    make, says = REFUSED[kind]
    folder = made(make, tmp_path)
    with pytest.raises(ModelError, match=says):
        vectors(folder)
    # Most by their config files alone, as soon as anything is planned.
    if kind not in ("bare decoder", "transformer without a pooling"):
        with pytest.raises(ModelError, match=says):
            fingerprint(settings(folder))


POOLED_BY_SETTING: dict[str, tuple[Make, str, str]] = {
    "splade": (kinds.splade, "max", "max"),
    "cross encoder": (kinds.cross_encoder, "cls", "cls"),
    "classifier": (bare("BertForSequenceClassification", **SHAPE), "mean", "mean"),
    "causal": (CAUSAL, "last_token", "lasttoken"),
    "bare decoder": (bare("Qwen2Model", tokenizer="gpt", **DECODER), "mean", "mean"),
    "bare encoder": (BERT, "cls", "cls"),
    "another than its own": (pooled(BERT), "cls", "cls"),
    "none of its own": (kinds.without_pooling, "mean", "mean"),
}


@pytest.mark.parametrize("kind", POOLED_BY_SETTING)
def test_pooled_as_the_settings_say(kind: str, tmp_path: Path) -> None:
    make, pooling, mode = POOLED_BY_SETTING[kind]
    folder = made(make, tmp_path)
    parts = [Transformer(str(folder)), st.Pooling(32, mode)]
    expected = SentenceTransformer(modules=parts, device="cpu").encode(TEXTS)
    assert_same(vectors(folder, pooling=pooling), expected)
    model: Any = ModelSettings(id=str(folder), normalize=False, pooling=pooling)  # pyright: ignore[reportArgumentType]
    assert_same(reference_vectors(model, TEXTS), expected)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (kinds.static, "'mean' has nothing to pool .*StaticEmbedding.*leave it out"),
        (kinds.clip, "has nothing to pool"),
        (kinds.pylate, "late interaction"),
    ],
)
def test_what_has_no_tokens_is_not_pooled(make: Make, says: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=says):
        vectors(made(make, tmp_path), pooling="mean")


def test_a_bare_encoder_says_that_its_tokens_are_averaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = made(BERT, tmp_path)
    vectors(folder)
    assert caplog.text.count("a text's vector is the mean of its tokens'") == 1
    caplog.clear()
    vectors(folder, pooling="mean")
    assert "mean of its tokens" not in caplog.text
