"""`--save` never leaves a defs folder that does not load."""

from pathlib import Path

import pytest

from batch_assets.cli.saving import check_savable, save_pipeline
from batch_assets.components.declared import load_folder
from batch_assets.errors import ConfigurationError
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline


def pipeline(folder: Path, name: str, root: str) -> PipelineSettings:
    values = {"source": {"uri": str(folder / "in.jsonl")}, "output": {"root": str(folder / root)}}
    return parse_pipeline(values, name, "a test")


def test_what_is_saved_is_declared(tmp_path: Path) -> None:
    settings = pipeline(tmp_path, "mine", "out")
    for _ in range(2):
        check_savable(settings, tmp_path / "defs")
        save_pipeline(settings, tmp_path / "defs")
    assert load_folder(tmp_path / "defs").pipelines == {"mine": settings}


@pytest.mark.parametrize(
    ("name", "root", "word"),
    [
        ("mine", "elsewhere", "says something else"),
        ("other", "out", "output root"),
        ("Not-legal", "x", "a-z"),
    ],
)
def test_what_would_clash_is_refused(tmp_path: Path, name: str, root: str, word: str) -> None:
    save_pipeline(pipeline(tmp_path, "mine", "out"), tmp_path / "defs")
    settings = pipeline(tmp_path, "mine", root).model_copy(update={"name": name})
    with pytest.raises(ConfigurationError, match=word):
        check_savable(settings, tmp_path / "defs")
    assert list(load_folder(tmp_path / "defs").pipelines) == ["mine"]
