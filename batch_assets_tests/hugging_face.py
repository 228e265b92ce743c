"""Hugging Face's `datasets` in tests: offline, and with a cache that ends with the test."""

from pathlib import Path

import pytest


def keep_to_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `datasets` write under `folder` alone, and reach nothing; it reads its environment only when imported."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
