import numpy as np
import pytest

from batch_assets.embeddings.validation import unsound, validate_vectors, vector_norms


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_norms_are_not_finite_exactly_where_an_element_is_not(dtype: str, value: float) -> None:
    vectors = np.ones((5000, 16), dtype=dtype)
    vectors[4321, 7] = value
    assert np.flatnonzero(~np.isfinite(vector_norms(vectors))).tolist() == [4321]


def test_large_finite_vectors_are_finite() -> None:
    vectors = np.full((2, 4), 1e30, dtype=np.float32)  # squares overflow float32
    np.testing.assert_allclose(vector_norms(vectors), 2e30, rtol=1e-6)


def test_rounding_to_float16_stays_within_the_tolerance() -> None:
    vectors = np.random.default_rng(0).standard_normal((2000, 1024)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    norms = validate_vectors(vectors.astype(np.float16), 1024, normalized=True)
    assert norms.count == 2000


def test_unsound_rows_can_be_told_one_by_one() -> None:
    norms = np.array([1.0, 1.01, np.nan, 0.9995], dtype=np.float32)
    assert unsound(norms, "float32", normalized=True).tolist() == [False, True, True, False]
    assert unsound(norms, "float32", normalized=False).tolist() == [False, False, True, False]
