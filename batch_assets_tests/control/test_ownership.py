"""Whose an output root is, where one pipeline name comes with two roots."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from batch_assets import paths
from batch_assets.cli.adhoc import adhoc_settings
from batch_assets.control.collection import collect_shards
from batch_assets.control.ownership import check_owner, read_owner
from batch_assets.control.pipeline import open_pipeline
from batch_assets.errors import ConfigurationError
from batch_assets.ledger.holder import Holder
from batch_assets.ledger.states import State
from batch_assets.storage import open_storage
from batch_assets_tests.control.builders import embed_all, make_settings, open_ledger, run, write_input
from batch_assets_tests.fakes import FakeHost


def test_a_name_does_not_leave_a_root_where_it_is_at_work(tmp_path: Path) -> None:
    write_input(tmp_path, 2)
    ledger, host = open_ledger(tmp_path), FakeHost()
    settings = make_settings(tmp_path)
    other = make_settings(tmp_path, output={"root": f"{tmp_path}/other"})
    run(settings, ledger, host)
    ledger.recompute("texts", ["g0001-00001"])
    claim = ledger.claim("texts", "g0001-00001", Holder.current())
    assert claim is not None
    with pytest.raises(ConfigurationError, match="another `name`") as refused:
        open_pipeline(other, ledger, host.executor(other))
    assert f"{tmp_path}/out" in str(refused.value) and f"{tmp_path}/other" in str(refused.value)
    assert not (tmp_path / "other").exists()
    assert len(ledger.shards("texts")) == 2
    ledger.release(claim)
    pipeline = open_pipeline(settings, ledger, host.executor(settings))
    list(collect_shards(pipeline, ["g0001-00001"]))
    embed_all(other, ledger, host)
    assert [row.state for row in ledger.shards("texts")] == [State.COLLECTED] * 2


@pytest.mark.parametrize(
    "changed",
    [
        *({"source": source} for source in ([1, None, {}], [None], [["a"]], None, "a", {})),
        *({"epoch": epoch} for epoch in (-1, 2**60, "1", None, True)),
        *({"pipeline": name} for name in (1, None, "a\0b")),
        {"source": ["shards:/a\0b"]},
        *({name: text} for name in ("deployment", "taking") for text in (1, ["a"], {}, "a\0b")),
        *({"configuration": told} for told in ([], None, {"output": []}, {"source": None})),
        *({"configuration": {"output": {"root": root}}} for root in (1, ["/a"], {}, True, "a\0b")),
        *({"configuration": {"source": {"id_column": name}}} for name in (1, ["id"])),
    ],
)
def test_a_root_whose_own_word_makes_no_sense_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    owner = {"pipeline": "texts", "epoch": 1, "source": ["a"], "configuration": {}} | changed
    storage = open_storage(f"{tmp_path}/out")
    storage.write(paths.PIPELINE, orjson.dumps(owner))
    with pytest.raises(ConfigurationError, match=r"pipeline\.json is not what this program writes"):
        read_owner(storage)
    with pytest.raises(ConfigurationError, match=r"pipeline\.json is not what this program writes"):
        check_owner(make_settings(tmp_path), storage)
    with pytest.raises(ConfigurationError, match=r"pipeline\.json is not what this program writes"):
        adhoc_settings({"input": f"{tmp_path}/in.jsonl", "output": f"{tmp_path}/out"})
