"""What stands for a model: it refuses what the model would refuse, and answers in its form.

Bodies and limits after each model's page in the Bedrock user guide, refusals in the words
that the service uses. Embedding models here; chat models in `fake_chat.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from batch_assets.rehearsal.vectors import count_tokens, embed


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's output, as it stands under `modelOutput`; vectors in it are NumPy arrays."""

    output: dict[str, Any]
    input_tokens: int
    output_tokens: int = 0


class FakeModel(Protocol):
    """One family of models. Prices are USD per million tokens on demand; a batch costs half."""

    input_price: float
    output_price: float

    def refusal(self, body: Any) -> str | None:
        """Why the model would not take this modelInput, or None."""
        ...

    def answers(self, bodies: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """The answers to inputs that are not refused."""
        ...


def malformed(detail: str) -> str:
    return f"Malformed input request: {detail}, please reformat your input and try again."


def unexpected(body: Any, required: Sequence[str], optional: Sequence[str]) -> str | None:
    """Why the top level of a body is malformed, in the words of a JSON schema validator."""
    if not isinstance(body, Mapping):
        return malformed(f"#: expected type: JSONObject, found: {type(body).__name__}")
    for name in required:
        if name not in body:
            return malformed(f"#: required key [{name}] not found")
    for name in body:
        if name not in required and name not in optional:
            return malformed(f"#: extraneous key [{name}] is not permitted")
    return None


def bad_text(path: str, value: Any, characters: int | None = None) -> str | None:
    if not isinstance(value, str):
        return malformed(f"#/{path}: expected type: String, found: {type(value).__name__}")
    if not value:
        return malformed(f"#/{path}: expected minLength: 1, actual: 0")
    if characters is not None and len(value) > characters:
        return malformed(f"#/{path}: expected maxLength: {characters}, actual: {len(value)}")
    return None


def too_many_tokens(text: str, most: int) -> str | None:
    count = count_tokens(text)
    if count > most:
        return f"400 Bad Request: Too many input tokens. Max input tokens: {most}, request input token count: {count}"
    return None


def _one_of(path: str, value: Any, allowed: Sequence[Any]) -> str | None:
    if value in allowed and not isinstance(value, bool):
        return None
    return malformed(f"#/{path}: {value} is not a valid enum value")


class TitanText:
    """Titan Text Embeddings V2: one text of up to 50,000 characters and 8,192 tokens."""

    input_price = 0.02
    output_price = 0.0

    def refusal(self, body: Any) -> str | None:
        wrong = unexpected(body, ["inputText"], ["dimensions", "normalize", "embeddingTypes"])
        wrong = wrong or bad_text("inputText", body["inputText"], 50_000)
        wrong = wrong or _one_of("dimensions", body.get("dimensions", 1024), (256, 512, 1024))
        if wrong:
            return wrong
        if not isinstance(body.get("normalize", True), bool):
            return malformed("#/normalize: expected type: Boolean")
        types = body.get("embeddingTypes", ["float"])
        if not isinstance(types, list) or not types or not set(map(str, types)) <= {"float", "binary"}:
            return malformed(f"#/embeddingTypes: {types} is not a valid enum value")
        return too_many_tokens(body["inputText"], 8192)

    def answers(self, bodies: Sequence[Mapping[str, Any]]) -> list[Answer]:
        texts = [body["inputText"] for body in bodies]
        wanted = [(body.get("dimensions", 1024), body.get("normalize", True)) for body in bodies]
        answers: list[Answer] = []
        for body, vector in zip(bodies, _vectors(texts, wanted), strict=True):
            tokens = count_tokens(body["inputText"])
            types = body.get("embeddingTypes", ["float"])
            by_type: dict[str, Any] = {"float": vector} if "float" in types else {}
            if "binary" in types:
                by_type["binary"] = (vector > 0).astype(np.int8)
            output = {"embedding": vector} if "float" in types else {}
            output |= {"embeddingsByType": by_type, "inputTextTokenCount": tokens}
            answers.append(Answer(output, tokens))
        return answers


class TitanMultimodal:
    """Titan Multimodal Embeddings G1: a text of up to 256 tokens, an image, or both. Images are not decoded."""

    input_price = 0.8
    output_price = 0.0

    def refusal(self, body: Any) -> str | None:
        wrong = unexpected(body, [], ["inputText", "inputImage", "embeddingConfig"])
        if wrong:
            return wrong
        if "inputText" not in body and "inputImage" not in body:
            return malformed("#: required key [inputText] or [inputImage] not found")
        for name in ("inputText", "inputImage"):
            if name in body and (wrong := bad_text(name, body[name])):
                return wrong
        config = body.get("embeddingConfig", {})
        wrong = unexpected(config, [], ["outputEmbeddingLength"])
        wrong = wrong or _one_of(
            "embeddingConfig/outputEmbeddingLength",
            config.get("outputEmbeddingLength", 1024),
            (256, 384, 1024),
        )
        return wrong or too_many_tokens(body.get("inputText", ""), 256)

    def answers(self, bodies: Sequence[Mapping[str, Any]]) -> list[Answer]:
        texts = [f"{body.get('inputText', '')} {body.get('inputImage', '')}".strip() for body in bodies]
        wanted = [
            (body.get("embeddingConfig", {}).get("outputEmbeddingLength", 1024), True) for body in bodies
        ]
        answers: list[Answer] = []
        for body, vector in zip(bodies, _vectors(texts, wanted), strict=True):
            tokens = count_tokens(body.get("inputText", ""))
            output = {"embedding": vector, "inputTextTokenCount": tokens, "message": None}
            answers.append(Answer(output, tokens))
        return answers


class NovaMultimodal:
    """Nova Multimodal Embeddings: one text; up to 8,172 tokens, longer ones cut unless truncationMode is NONE."""

    input_price = 0.135
    output_price = 0.0
    MOST_TOKENS = 8172
    PURPOSES = (
        "GENERIC_INDEX", "GENERIC_RETRIEVAL", "TEXT_RETRIEVAL", "IMAGE_RETRIEVAL", "VIDEO_RETRIEVAL",
        "DOCUMENT_RETRIEVAL", "AUDIO_RETRIEVAL", "CLASSIFICATION", "CLUSTERING",
    )  # fmt: skip

    def refusal(self, body: Any) -> str | None:
        wrong = unexpected(body, ["taskType", "singleEmbeddingParams"], ["schemaVersion"])
        wrong = wrong or _one_of("taskType", body["taskType"], ("SINGLE_EMBEDDING",))
        wrong = wrong or _one_of(
            "schemaVersion",
            body.get("schemaVersion", "nova-multimodal-embed-v1"),
            ("nova-multimodal-embed-v1",),
        )
        if wrong:
            return wrong
        given = body["singleEmbeddingParams"]
        wrong = unexpected(given, ["embeddingPurpose", "text"], ["embeddingDimension"])
        wrong = wrong or _one_of("embeddingPurpose", given["embeddingPurpose"], self.PURPOSES)
        wrong = wrong or _one_of(
            "embeddingDimension", given.get("embeddingDimension", 3072), (256, 384, 1024, 3072)
        )
        wrong = wrong or unexpected(given["text"], ["truncationMode", "value"], [])
        wrong = wrong or _one_of(
            "text/truncationMode", given["text"]["truncationMode"], ("START", "END", "NONE")
        )
        wrong = wrong or bad_text("text/value", given["text"]["value"])
        if wrong or given["text"]["truncationMode"] != "NONE":
            return wrong
        return too_many_tokens(given["text"]["value"], self.MOST_TOKENS)

    def answers(self, bodies: Sequence[Mapping[str, Any]]) -> list[Answer]:
        given = [body["singleEmbeddingParams"] for body in bodies]
        texts = [self._cut(params["text"]) for params in given]
        wanted = [(params.get("embeddingDimension", 3072), True) for params in given]
        answers: list[Answer] = []
        for params, text, vector in zip(given, texts, _vectors(texts, wanted), strict=True):
            embedding: dict[str, Any] = {"embeddingType": "TEXT", "embedding": vector}
            if len(text) < len(params["text"]["value"]):
                embedding["truncatedCharLength"] = len(text)
            answers.append(Answer({"embeddings": [embedding]}, count_tokens(text)))
        return answers

    def _cut(self, given: Mapping[str, str]) -> str:
        text = given["value"]
        while (count := count_tokens(text)) > self.MOST_TOKENS:
            length = min(len(text) - 1, len(text) * self.MOST_TOKENS // count)
            text = text[:length] if given["truncationMode"] == "END" else text[-length:]
        return text


def _vectors(texts: list[str], wanted: list[tuple[int, bool]]) -> list[npt.NDArray[np.float32]]:
    """A vector for each text, of the length and normalization wanted of it."""
    vectors: dict[int, npt.NDArray[np.float32]] = {}
    for dimensions, normalize in set(wanted):
        rows = [row for row, want in enumerate(wanted) if want == (dimensions, normalize)]
        found = embed([texts[row] for row in rows], dimensions, normalize)
        vectors.update(zip(rows, found, strict=True))
    return [vectors[row] for row in range(len(texts))]
