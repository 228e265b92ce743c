"""Duplicate and missing ids, as a person meets them at the command line."""

from pathlib import Path

from batch_assets_tests.command import make_machine, write_records

DEFS = """
type: batch_assets.components.EmbeddingPipeline
attributes:
  source: {{uri: {source}, id_column: id, ids: {ids}}}
  model: {{id: {model}, dtype: float32}}
  output: {{root: {root}}}
"""


def test_ids_are_told_of_or_refused(tmp_path: Path, tiny_model: Path) -> None:
    machine = make_machine(tmp_path / "home")
    source, root, file = tmp_path / "src", tmp_path / "out", tmp_path / "ids.yaml"

    def declare(ids: str) -> None:
        file.write_text(DEFS.format(source=source, model=tiny_model, root=root, ids=ids))

    write_records(source / "a.jsonl", [{"id": 1, "text": "a"}, {"text": "b"}, {"id": 1, "text": "c"}])
    declare("unique")
    refused = machine.run("plan", "-f", file)
    assert refused.returncode == 2
    assert "'1' in a.jsonl row 0 and a.jsonl row 2; none in a.jsonl row 1" in refused.stderr
    assert not root.exists()

    declare("any")
    planned = machine.run("plan", "-f", file)
    notes = [line for line in planned.stderr.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: 1 ids occur more than once (2 records)",
        "note: 1 records have no id and are named by their place",
    ]
