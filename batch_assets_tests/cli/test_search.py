"""`search`: what is put before the query, and where there is nothing to search; more in `test_verbs.py`."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import SentenceTransformer

from batch_assets.cli import search
from batch_assets.errors import ConfigurationError
from batch_assets.executors.gpu import GpuMachine
from batch_assets.merge.parquet import merge
from batch_assets.merge.publishing import publish
from batch_assets.settings.model import ModelSettings
from batch_assets.settings.pipeline import OutputSettings, PipelineSettings
from batch_assets.settings.source import SourceSettings
from batch_assets.storage import open_storage
from batch_assets_tests.command import make_machine, write_records
from batch_assets_tests.embeddings.builders import write_shard

DEFS = """
type: batch_assets.components.EmbeddingPipeline
attributes:
  task: generate
  source: {{uri: {folder}/in.jsonl}}
  executor:
    type: bedrock
    region: us-east-1
    role_arn: arn:aws:iam::123456789012:role/batch
    staging: s3://bucket/staging/
    model_id: anthropic.claude-3-haiku-20240307-v1:0
  output: {{root: {folder}/out}}
"""


def test_a_pipeline_that_generates_answers_has_nothing_to_search(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "out"))
    write_shard(storage, "g0001-00000", "ee", task="generate")
    merged = merge(storage, [("g0001-00000", 2)], "f" * 16)
    assert publish(storage, merged.manifest.version, None)
    file = tmp_path / "defs" / "answers" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(DEFS.format(folder=tmp_path))
    machine = make_machine(tmp_path / "home", BATCH_ASSETS_DEFS=str(tmp_path / "defs"))
    result = machine.run("search", "answers", "what is it?")
    assert result.returncode == 2
    assert "generates answers: there are no vectors to search" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_a_query_is_asked_as_a_query(tiny_model: Path, tmp_path: Path) -> None:
    """Of a model with a prompt for each side the query gets its own, or the one on the command line."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    prompts: dict[str, Any] = {"prompts": {"query": "find the one: ", "document": "the text: "}}
    config = prompts | {"default_prompt_name": "document"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(config))
    text = "the moon is bright"
    write_records(tmp_path / "in.jsonl", [{"id": "a", "text": text}])
    machine = make_machine(tmp_path / "home")
    flags = (
        "--input",
        tmp_path / "in.jsonl",
        "--output",
        tmp_path / "out",
        "--id-column",
        "id",
        "--model",
        folder,
    )
    assert machine.run("run", *flags).returncode == 0

    def score(*options: str) -> float:
        found = machine.run("search", tmp_path / "out", text, *options)
        assert found.returncode == 0, found.stderr
        match = re.match(r"([\d.]+)  a", found.stdout)
        assert match, found.stdout
        return float(match[1])

    model = SentenceTransformer(str(folder), device="cpu")
    record = model.encode(text, normalize_embeddings=True)
    as_query = model.encode_query(text, normalize_embeddings=True)
    assert score() == pytest.approx(float(record @ as_query), abs=0.002)
    assert score() < 0.999 < score("--prompt", "the text: ")


def test_a_prompt_goes_before_a_text_and_no_image(tmp_path: Path) -> None:
    settings = PipelineSettings(
        name="images",
        source=SourceSettings(uri=str(tmp_path), format="webdataset"),
        model=ModelSettings(query_prompt="find: "),
        output=OutputSettings(root=str(tmp_path / "out")),
    )
    (tmp_path / "cat.jpg").write_bytes(b"no image")
    host = GpuMachine("cpu")
    with pytest.raises(
        ConfigurationError, match=r"--prompt 'a ': goes before a text, and .*cat.jpg' is an image"
    ):
        search._embed(host, settings, str(tmp_path / "cat.jpg"), "a ")


def test_that_the_records_prompt_is_not_the_querys_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ModelSettings(prompt="passage: ")
    settings = PipelineSettings(
        name="texts",
        source=SourceSettings(uri=str(tmp_path)),
        model=model,
        output=OutputSettings(root=str(tmp_path / "out")),
    )
    search._note_prompt(settings)
    assert "model.prompt, 'passage: ', is put before records" in capsys.readouterr().err
    search._note_prompt(search._with_prompt(settings, "query: "))
    assert not capsys.readouterr().err
