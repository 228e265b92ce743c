"""`search` where there is nothing to search; what it finds is in `test_verbs.py`."""

from pathlib import Path

from batch_assets.merge.parquet import merge
from batch_assets.merge.publishing import publish
from batch_assets.storage import open_storage
from batch_assets_tests.command import make_machine
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
