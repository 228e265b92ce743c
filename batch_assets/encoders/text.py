"""The text encoder: a sentence-transformers or transformers model, loaded once, on CPU or CUDA.

The libraries define pooling, prompts, truncation and normalization; here is only how their
modules are fed: token ids made ahead, padded per batch, everything after the transformer in
float32. `load` compares its own feeding with theirs and, where the two differ (chat templates,
other tokenizers, other first modules), feeds the model the libraries' way.
"""

import contextlib
import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from batch_assets.encoders.base import Tokenized
from batch_assets.encoders.cpu import accelerate
from batch_assets.encoders.devices import available_cores, pick_device, pick_dtype, split_cores
from batch_assets.encoders.tokens import NO_LIMIT, TextTokenizer
from batch_assets.encoders.weights import locate_model
from batch_assets.errors import ModelError
from batch_assets.settings import ModelSettings

CPU_BATCH_TOKENS = 1024
"""Their activations stay in a core's second-level cache."""
CUDA_BATCH_TOKENS = 32_768
PROBES = ("a", "Naïve [SEP] <s> test: 12,345 of it!", "the quick brown fox " * 8)
LEAST_COSINE = {"float32": 0.99999, "bfloat16": 0.999}
"""Below this, faster parts do not compute what the model does, and are taken out again."""

logger = logging.getLogger(__name__)


class TextEncoder:
    """Implements `encoders.base.Encoder`. Made by `load`."""

    def __init__(self, model: Any, settings: ModelSettings, device: str, dtype: str, tokenizer: TextTokenizer | None):
        """Wrap a loaded SentenceTransformer; with `tokenizer` None the model's own preprocessing is used."""
        self.device, self.dtype, self.normalized = device, dtype, settings.normalize
        self._model, self._settings, self._tokenizer = model, settings, tokenizer
        self._prompt = _prompt(model, settings)
        self._thread = threading.local()
        self.threads, self._cores = (2, 1) if device.startswith("cuda") else split_cores(available_cores())
        if tokenizer is None:  # the libraries' preprocessing is not made for several threads
            self.threads, self._cores = 1, available_cores()
        self.batch_tokens = CUDA_BATCH_TOKENS if device.startswith("cuda") else CPU_BATCH_TOKENS
        self.dimensions = 0

    @classmethod
    def load(cls, settings: ModelSettings, *, device: str = "auto") -> "TextEncoder":
        """Load `settings`' model on `device` (auto, cpu, cuda, cuda:N). Raises ModelError."""
        folder = locate_model(settings)
        try:
            import torch  # noqa: F401
            import sentence_transformers  # noqa: F401
        except ModuleNotFoundError as error:
            raise ModelError(
                f"model {settings.id!r} cannot be loaded: {error.name} is not installed; install batch-assets[gpu]"
            ) from None
        device = pick_device(device)
        dtype = pick_dtype(settings.dtype, device)
        with _as_model_error(settings, folder):
            model = _load(folder, settings, device, dtype)
            _limit_tokens(model, settings)
            encoder = cls(model, settings, device, dtype, _own_tokenizer(model, _prompt(model, settings)))
            encoder._probe()
            if device == "cpu":
                encoder._accelerate()
        if settings.dimensions is not None and settings.dimensions > encoder.dimensions:
            raise ModelError(
                f"model.dimensions: {settings.dimensions} is more than the {encoder.dimensions} "
                f"that {settings.id!r} has; use at most that, or leave it out"
            )
        return encoder

    def tokenize(self, texts: Sequence[str]) -> Tokenized:
        if self._tokenizer is not None:
            ids = self._tokenizer(texts)
            return Tokenized(list(ids), np.array([len(row) for row in ids], dtype=np.int32))
        counts = [_count_tokens(self._preprocess([text])) for text in texts]
        return Tokenized(list(texts), np.array(counts, dtype=np.int32))

    def encode(self, inputs: Sequence[Any]) -> npt.NDArray[np.float32]:
        import torch

        self._set_cores()
        with torch.inference_mode():
            features = self._preprocess(inputs) if self._tokenizer is None else self._pad(inputs)
            features = {
                name: value.to(self.device, non_blocking=True) if isinstance(value, torch.Tensor) else value
                for name, value in features.items()
            }
            try:
                for module in self._model.children():
                    features = _in_float32(module(features))
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                raise
            vectors = features["sentence_embedding"]
            if self._settings.dimensions is not None:
                vectors = vectors[:, : self._settings.dimensions]
            if self._settings.normalize:
                vectors = torch.nn.functional.normalize(vectors, p=2, dim=1)
            return np.ascontiguousarray(vectors.cpu().numpy())

    def _pad(self, inputs: Sequence[npt.NDArray[np.int64]]) -> dict[str, Any]:
        """The features that sentence-transformers' own preprocessing makes, of ids made before."""
        import torch

        tokenizer = self._model.tokenizer
        lengths = [len(row) for row in inputs]
        ids = np.full((len(inputs), max(lengths)), tokenizer.pad_token_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, length, target, seen in zip(inputs, lengths, ids, mask, strict=True):
            part = slice(None, length) if tokenizer.padding_side == "right" else slice(ids.shape[1] - length, None)
            target[part], seen[part] = row, 1
        features: dict[str, Any] = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        if "token_type_ids" in tokenizer.model_input_names:
            features["token_type_ids"] = torch.zeros_like(features["input_ids"])
        features["modality"] = "text"
        if self._prompt:
            features["prompt_length"] = self._model[0]._get_prompt_length(self._prompt)
        return features

    def _preprocess(self, texts: Sequence[str]) -> dict[str, Any]:
        return self._model.preprocess(list(texts), prompt=self._prompt)

    def _set_cores(self) -> None:
        """PyTorch keeps the number of cores per thread."""
        if not getattr(self._thread, "ready", False):
            import torch

            torch.set_num_threads(self._cores)
            self._thread.ready = True

    def _probe(self) -> npt.NDArray[np.float32]:
        """Vectors of the probes, of different lengths in one batch; sets `dimensions`."""
        tokenized = self.tokenize(PROBES)
        vectors = self.encode([each for each, count in zip(tokenized.inputs, tokenized.counts, strict=True) if count])
        self.dimensions = vectors.shape[1]
        return vectors

    def _accelerate(self) -> None:
        transformer = getattr(self._model[0], "model", None)
        if self._tokenizer is None or transformer is None or self.dtype not in LEAST_COSINE:
            return
        before = self._probe()
        undo = None
        try:
            undo = accelerate(transformer, self.batch_tokens)
            cosine = _lowest_cosine(before, self._probe())
            reason = f"the lowest cosine to its own is {cosine}" if cosine < LEAST_COSINE[self.dtype] else ""
        except Exception as error:  # what a model is made of cannot be known; its own parts always work
            reason = f"{type(error).__name__}: {error}"
        if reason:
            logger.warning("model %s keeps its own layers on the CPU: %s", self._settings.id, reason)
            if undo is not None:
                undo()


def _load(folder: Path, settings: ModelSettings, device: str, dtype: str) -> Any:
    """The model in evaluation mode: the transformer in `dtype`, whatever follows it in float32."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model = SentenceTransformer(
            str(folder),
            device=device,
            trust_remote_code=settings.trust_remote_code,
            local_files_only=True,
            model_kwargs={"dtype": getattr(torch, dtype), "use_safetensors": True},
        )
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
    model.eval()
    for number, module in enumerate(model.children()):
        if number or not hasattr(module, "model"):
            module.float()
    return model


def _limit_tokens(model: Any, settings: ModelSettings) -> None:
    """Set the truncation: `max_tokens`, else the model's limit, never beyond its table of positions."""
    import torch

    limit, table = model.max_seq_length, None
    for module in model.modules():
        positions = getattr(module, "position_embeddings", None)
        if isinstance(positions, torch.nn.Embedding):
            # RoBERTa and its kin count positions from padding_idx + 1.
            padding = getattr(module, "padding_idx", None)
            table = positions.num_embeddings - (padding + 1 if isinstance(padding, int) else 0)
    wanted = settings.max_tokens
    if wanted is not None and table is not None and wanted > table:
        raise ModelError(
            f"model.max_tokens: {wanted} is more than {settings.id!r} can take, which is {table}; use at most that"
        )
    tokenizer = getattr(model[0], "tokenizer", None)
    special = tokenizer.num_special_tokens_to_add() if hasattr(tokenizer, "num_special_tokens_to_add") else 0
    if wanted is not None and wanted <= special:
        raise ModelError(
            f"model.max_tokens: {wanted} leaves no room for text beside the {special} special tokens of "
            f"{settings.id!r}; use at least {special + 1}"
        )
    limits = [each for each in (wanted or limit, table) if each is not None]
    if limits and (limit is None or min(limits) != limit):
        model.max_seq_length = min(limits)


def _prompt(model: Any, settings: ModelSettings) -> str | None:
    if settings.prompt is not None:
        return settings.prompt
    return model.prompts.get(model.default_prompt_name) if model.default_prompt_name is not None else None


def _own_tokenizer(model: Any, prompt: str | None) -> TextTokenizer | None:
    """A tokenizer whose ids, padded by `TextEncoder._pad`, are the library's features exactly; None where not."""
    from sentence_transformers.base.modules import Transformer

    first = model[0]
    tokenizer = getattr(first, "tokenizer", None)
    if not isinstance(first, Transformer) or not getattr(tokenizer, "is_fast", False) or first.processing_kwargs:
        return None
    if tokenizer.pad_token is None:  # a decoder's; what fills the padding is masked anyway
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
    limit = first.max_seq_length
    limit = int(limit) if limit is not None and limit < NO_LIMIT else None
    own = TextTokenizer(tokenizer, limit, prompt or "")
    trial = TextEncoder(model, ModelSettings(prompt=prompt or ""), "cpu", "float32", own)
    texts = [*PROBES, "words and more " * min(limit or 64, 4096)]
    ours, theirs = trial._pad(own(texts)), model.preprocess(texts, prompt=prompt)
    same = ours.keys() == theirs.keys() and all(
        value.equal(theirs[name]) if hasattr(value, "equal") else value == theirs[name] for name, value in ours.items()
    )
    return own if same else None


def _count_tokens(features: dict[str, Any]) -> int:
    """Tokens of the one text that `features` is made of; 1 where they do not tell."""
    for name in ("attention_mask", "sentence_lengths"):
        if name in features:
            return int(features[name].sum())
    return int(features["input_ids"].numel()) if "input_ids" in features else 1


def _in_float32(features: dict[str, Any]) -> dict[str, Any]:
    """Pooling and what follows run in float32: they cost nothing and reduced precision would show."""
    return {
        name: value.float() if getattr(value, "is_floating_point", bool)() else value for name, value in features.items()
    }


def _lowest_cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-12)).min())


@contextlib.contextmanager
def _as_model_error(settings: ModelSettings, folder: Path) -> Iterator[None]:
    """Say which model could not be loaded, why, and what would help."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        text = str(error).strip() or type(error).__name__
        if "trust_remote_code" in text or "custom code" in text:
            raise ModelError(
                f"model {settings.id!r} brings Python code of its own, which is not run unless you allow it: "
                f"read the code in {folder}, then set model.trust_remote_code: true (--trust-remote-code)"
            ) from error
        raise ModelError(
            f"model {settings.id!r} in {folder} cannot be loaded: {type(error).__name__}: {text.splitlines()[0]}; "
            "check that SentenceTransformer(directory) loads it with the installed versions"
        ) from error
