"""What stands for the models: deterministic vectors and answers, by which a test knows whose they are.

A token is a word. Vectors come of the text's digest, so those of two texts are nearly orthogonal.
"""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson


def digest_of(text: str) -> str:
    """What the books call an input."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def vectors_of(texts: list[str], dimensions: int) -> npt.NDArray[np.float32]:
    """(len(texts), dimensions) float32, each of length 1."""
    drawn = b"".join(hashlib.shake_256(text.encode()).digest(dimensions) for text in texts)
    vectors = np.frombuffer(drawn, np.uint8).reshape(len(texts), dimensions).astype(np.float32) - 127.5
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def shortened(vectors: npt.NDArray[np.float32], dimensions: int) -> npt.NDArray[np.float32]:
    """The first dimensions only, to length 1 again, as models trained for it do."""
    kept = vectors[:, :dimensions]
    return kept / np.linalg.norm(kept, axis=1, keepdims=True)


def count_tokens(text: str) -> int:
    return max(1, len(text.split()))


def truncated(text: str, tokens: int) -> str:
    return text if count_tokens(text) <= tokens else " ".join(text.split()[:tokens])


def prompt_of(messages: list[dict[str, Any]]) -> str:
    """The user's last message as text; an image in it by the digest of its URL."""
    content = next(each["content"] for each in reversed(messages) if each["role"] == "user")
    if isinstance(content, str):
        return content
    return " ".join(
        part["text"] if part["type"] == "text" else f"[image {digest_of(part['image_url']['url'])}]"
        for part in content
    )


def answer_to(prompt: str, response_format: dict[str, Any] | None) -> str:
    """`echo: …`, or a JSON document of the schema that is asked for, with the echo in its strings."""
    echo = f"echo: {prompt}"
    if not response_format or response_format["type"] == "text":
        return echo
    if response_format["type"] == "json_object":
        return orjson.dumps({"answer": echo}).decode()
    return orjson.dumps(_example(response_format["json_schema"]["schema"], echo)).decode()


def _example(schema: dict[str, Any], text: str) -> Any:
    """A value that fits the schema; of JSON Schema only what tests use."""
    if "enum" in schema:
        return schema["enum"][0]
    match schema["type"]:
        case "object":
            return {name: _example(inner, text) for name, inner in schema.get("properties", {}).items()}
        case "array":
            return [_example(schema["items"], text)]
        case "string":
            return text
        case "integer" | "number":
            return count_tokens(text)
        case "boolean":
            return True
        case "null":
            return None
        case other:
            raise ValueError(f"the test server knows no type {other!r} in a JSON schema; add it to _example")
