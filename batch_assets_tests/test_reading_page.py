"""docs/reading-the-output.md: its blocks run, in order, against published versions, in a process of its own.

There Hugging Face's library takes its settings from the environment, and no library meets those of other tests.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from batch_assets.merge.parquet import Grouping
from batch_assets.storage import open_storage
from batch_assets_tests.merge.old_roots import make_old
from batch_assets_tests.module_imports import REPOSITORY
from batch_assets_tests.test_docs import fences
from batch_assets_tests.test_published import publish_shards

KINDS = ["e" * 20, "rr", "ee" * 5]
# Runs code of pages in a folder each, whose `embeddings/` is an output root.
RUN = """
import json, os, sys

for page, code, folder in json.load(sys.stdin):
    os.chdir(folder)
    exec(compile(code, page, "exec"), {})
    print(page, "ran in", folder)
"""
# What the blocks must have come to.
CHECKS = {
    "index.md": """
assert rows.height == 30
assert matrix.shape == (30, 8)
""",
    "reading-the-output.md": """
assert frame.height == table.num_rows == seen == len(rows) == len(examples) == collection.count_rows() == 30
assert os.path.samefile(folder, data)
assert news.height == len(vectors) == 15
dtype = table.schema.field("embedding").type.value_type.to_pandas_dtype()
assert matrix.dtype == vectors.dtype == dtype
for read in (stacked, vectors, np.array([example["embedding"] for example in examples])):
    assert read.shape == (len(read), 8)
assert (stacked == matrix).all()
assert (first == matrix[0]).all()
assert (vectors == matrix[np.array(frame["topic"]) == "news"]).all()
assert [name for name, _ in nearest] == neighbours == similar.column("record_id").to_pylist()
assert len(neighbours) == 10 and abs(nearest[0][1] - 1) < 1e-3 and abs(scores[0][0] - 1) < 1e-3
""",
}


def code_of(page: str) -> str:
    """The blocks of a page as one program, and what it must come to."""
    blocks = [block for language, block in fences(REPOSITORY / "docs" / page) if language == "python"]
    assert blocks
    return "\n".join(["import os", *blocks, CHECKS[page]])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A root `embeddings` in each: float32, float16 in groups, and one of before."""
    made = {name: tmp_path_factory.mktemp(name) for name in ("whole", "grouped", "old")}
    publish_shards(open_storage(f"{made['whole']}/embeddings"), KINDS)
    grouped = open_storage(f"{made['grouped']}/embeddings")
    publish_shards(grouped, KINDS, Grouping("topic"), vector_dtype="float16")
    publish_shards(open_storage(f"{made['old']}/embeddings"), KINDS)
    make_old(made["old"] / "embeddings")
    return made


def test_the_blocks_read_what_is_published(folders: dict[str, Path], tmp_path: Path) -> None:
    runs = [("reading-the-output.md", "whole"), ("reading-the-output.md", "grouped")]
    runs += [("index.md", name) for name in folders]
    environment = {
        "HOME": str(tmp_path),
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps([(page, code_of(page), str(folders[name])) for page, name in runs]),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" ran in ") == len(runs)
