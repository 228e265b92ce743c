"""A fast, deterministic embedding: texts that share words lie near each other.

Signed feature hashing of words into buckets (Weinberger et al. 2009), then one fixed Gaussian
projection, so that every component is filled, as a model's would be.
"""

import functools
import zlib

import numpy as np
import numpy.typing as npt

BUCKETS = 512
# Two buckets a word keep words of a short text apart; odd 64-bit constants mix well.
MIXERS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))


@functools.cache
def _projection(dimensions: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(dimensions).standard_normal((BUCKETS, dimensions), dtype=np.float32)


def embed(texts: list[str], dimensions: int, normalize: bool = True) -> npt.NDArray[np.float32]:
    """(len(texts), dimensions) float32; unit vectors unless `normalize` is False."""
    hashes: list[int] = []
    rows: list[int] = []
    for row, text in enumerate(texts):
        # A text without words still has a vector of its own.
        words = text.lower().split() or [f"{text} "]
        hashes += [zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in words]
        rows += [row] * len(words)
    hashed = np.array(hashes, np.uint64)
    offsets = np.array(rows, np.int64) * BUCKETS
    counts = np.zeros(len(texts) * BUCKETS)
    for mixer in MIXERS:
        mixed = hashed * mixer
        positions = offsets + (mixed >> np.uint64(40)).astype(np.int64) % BUCKETS
        signs = (mixed >> np.uint64(63)).astype(np.float64) * 2 - 1
        counts += np.bincount(positions, signs, len(counts))
    # The root keeps frequent words from drowning the others.
    damped = np.sign(counts) * np.sqrt(np.abs(counts))
    vectors = damped.reshape(len(texts), BUCKETS).astype(np.float32) @ _projection(dimensions)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    # Signs may cancel out: such a text gets the first axis rather than a division by zero.
    vectors[lengths[:, 0] == 0, 0] = 1
    lengths[lengths == 0] = 1
    return vectors / lengths if normalize else vectors


def count_tokens(text: str) -> int:
    """About what a tokenizer would say: 4.7 bytes a token, at least one for each word. Never above the bytes."""
    size = len(text.encode("utf-8", "surrogatepass"))
    return min(size, max(len(text.split()), -(-size * 10 // 47)))
