"""A published version whose files somebody has changed: what is wrong is told, and nothing outside is read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from batch_assets import paths
from batch_assets.errors import AccountingError
from batch_assets.merge.base import read_manifest
from batch_assets.merge.parquet import merge
from batch_assets.merge.publishing import publish
from batch_assets.merge.verification import verify
from batch_assets.storage import Storage, open_storage
from batch_assets_tests.embeddings.builders import write_shard


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """A root with a published version of two shards."""
    root = open_storage(str(tmp_path / "root"))
    for number in range(2):
        write_shard(root, f"g0001-{number:05d}", "eee", base=10 * number)
    result = merge(root, [("g0001-00000", 3), ("g0001-00001", 3)], "f" * 16)
    assert publish(root, result.manifest.version, None)
    return root


def change_manifest(storage: Storage, change: Callable[[dict[str, Any]], None]) -> str:
    """The version whose manifest was changed."""
    version = storage.read(paths.CURRENT).decode().strip()
    content = orjson.loads(storage.read(paths.merged_manifest(version)))
    change(content)
    storage.write(paths.merged_manifest(version), orjson.dumps(content))
    return version


NAMED: dict[str, Callable[[dict[str, Any], str], None]] = {
    "a part": lambda content, name: content["parts"][1].update(uri=name),
    "the failures": lambda content, name: content["failures"].update(uri=name),
    "a group": lambda content, name: content.update(groups=[{"name": "a", "folder": name, "rows": 0}]),
    "the version before": lambda content, name: content.update(previous=name),
}


@pytest.mark.parametrize(
    "name", ["../../../outside.parquet", "/outside", "a/../b", "a/./b", "a//b", "", "a\0b"]
)
@pytest.mark.parametrize("place", NAMED)
def test_a_manifest_does_not_lead_out_of_its_folder(storage: Storage, place: str, name: str) -> None:
    version = change_manifest(storage, lambda content: NAMED[place](content, name))
    with pytest.raises(AccountingError, match=r"manifest\.json: names '.*merge again"):
        read_manifest(storage, version)
    assert any("manifest.json: names '" in problem for problem in verify(storage).problems)
