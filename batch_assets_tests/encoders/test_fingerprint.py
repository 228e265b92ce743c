"""What decides a vector is in the fingerprint, and nothing else."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batch_assets.encoders.fingerprint import fingerprint
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline


def settings(folder: Path, /, **changes: Any) -> PipelineSettings:
    """A pipeline's settings; `changes` are section → fields that differ."""
    values: dict[str, Any] = {
        "source": {"uri": "data"},
        "model": {"id": str(folder)},
        "executor": {},
        "shards": {},
        "output": {"root": "out"},
    }
    for section, fields in changes.items():
        values[section] = {**values[section], **fields}
    return parse_pipeline(values, "name", "test")


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"prompt": "query: "}},
        {"model": {"dimensions": 16}},
        {"model": {"dtype": "float32"}},
        {"model": {"max_tokens": 32}},
        {"model": {"normalize": False}},
        {"source": {"text_column": "body"}},
        {"source": {"text_template": "{title} {text}"}},
        {"output": {"dtype": "float16"}},
    ],
)
def test_what_decides_a_vector_changes_it(tiny_model: Path, changes: dict[str, Any]) -> None:
    assert fingerprint(settings(tiny_model, **changes)) != fingerprint(settings(tiny_model))


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"trust_remote_code": True}},
        {"executor": {"batch_tokens": 100, "device": "cpu"}},
        {"shards": {"records": 10}},
        {"source": {"uri": "elsewhere", "text_column": "text"}},
        {"output": {"root": "elsewhere"}},
    ],
)
def test_what_does_not_decide_a_vector_leaves_it(tiny_model: Path, changes: dict[str, Any]) -> None:
    assert fingerprint(settings(tiny_model, **changes)) == fingerprint(settings(tiny_model))


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer.json", "config.json", "1_Pooling/config.json"]
)
def test_every_file_that_decides_counts_and_the_path_does_not(
    tiny_model: Path, tmp_path: Path, name: str
) -> None:
    copy = Path(shutil.copytree(tiny_model, tmp_path / "copy"))
    assert fingerprint(settings(copy)) == fingerprint(settings(tiny_model))
    (copy / "README.md").write_text("new words")
    assert fingerprint(settings(copy)) == fingerprint(settings(tiny_model))
    with (copy / name).open("ab") as file:
        file.write(b" ")
    assert fingerprint(settings(copy)) != fingerprint(settings(tiny_model))


def test_a_pipeline_of_texts_keeps_the_fingerprint_it_had(tiny_model: Path) -> None:
    """Written out as it was before there were images: a change here would embed everybody's texts again."""
    of = settings(tiny_model)
    parts = {
        "version": 1,
        "model": of.model.model_dump(include={"prompt", "dimensions", "dtype", "max_tokens", "normalize"}),
        "name": None,
        "files": {
            path.relative_to(tiny_model).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(tiny_model.rglob("*"))
            if path.is_file()
        },
        "text": ["text"],
        "stored": "float32",
    }
    canonical = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert fingerprint(of) == hashlib.sha256(canonical.encode()).hexdigest()[:16]


def test_images_are_told_from_texts_and_by_nothing_beside_them(tiny_model: Path) -> None:
    images = settings(tiny_model, source={"format": "webdataset"})
    assert fingerprint(images) != fingerprint(settings(tiny_model, source={"text_column": "caption"}))
    for source in (
        {"format": "img2dataset"},
        {"format": "webdataset", "text_column": "title"},
        {"format": "parquet", "image_column": "picture"},
        {"format": "webdataset", "max_image_pixels": 1000, "allow_private_addresses": True},
    ):
        assert fingerprint(settings(tiny_model, source=source)) == fingerprint(images)
    changed = settings(tiny_model, source={"format": "webdataset"}, model={"dtype": "float32"})
    assert fingerprint(changed) != fingerprint(images)


def test_it_is_made_without_torch(tiny_model: Path) -> None:
    code = f"""
import sys
sys.modules["torch"] = sys.modules["transformers"] = sys.modules["sentence_transformers"] = None
from pathlib import Path
from batch_assets.encoders.fingerprint import fingerprint
from batch_assets_tests.encoders.test_fingerprint import settings
print(fingerprint(settings(Path({str(tiny_model)!r}))))
"""
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == fingerprint(settings(tiny_model))
    assert len(made.stdout.strip()) == 16
