"""What SageMaker's Hugging Face container runs in place of its own code: a line in, a line with its vector out.

Goes into model.tar.gz as code/inference.py, beside the model's files. By itself that container takes one JSON
object a call and answers with a vector for each token; this takes many lines and pools.
"""

import json
from typing import Any

CONTENT_TYPE = "application/jsonlines"
TEXT = "inputs"  # executor.input_field
VECTOR = "embedding"  # executor.output_field


def model_fn(model_dir: str) -> Any:
    """The model in the folder that the archive was unpacked to; on the GPU, if there is one."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(model_dir)


def input_fn(body: bytes | str, content_type: str) -> list[str]:
    """The texts of one call. Raises ValueError, which fails the call."""
    if content_type != CONTENT_TYPE:
        raise ValueError(f"content type {content_type!r}: this takes {CONTENT_TYPE}")
    lines = (body if isinstance(body, str) else bytes(body).decode()).split("\n")
    return [json.loads(line)[TEXT] for line in lines if line]


def predict_fn(texts: list[str], model: Any) -> list[list[float]]:
    """A vector for each text."""
    return model.encode(texts, batch_size=64, show_progress_bar=False).tolist()


def output_fn(vectors: list[list[float]], accept: str) -> str:
    """A line for each vector, in the order of the texts: the service joins them to the records by it."""
    return "\n".join(json.dumps({VECTOR: vector}) for vector in vectors)
