"""What all tests share: one tiny model, made once."""

from pathlib import Path

import pytest

from batch_assets_tests.builders import make_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a small random BERT in the sentence-transformers layout."""
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")
