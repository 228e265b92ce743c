"""One output root that several ways lead to: a link, another spelling. It is one root, whichever was taken."""

from pathlib import Path

import pytest

from batch_assets.cli.adhoc import adhoc_settings
from batch_assets.cli.target import find_pipeline
from batch_assets.control.chaining import known_upstream
from batch_assets.control.ownership import adhoc_name, check_owner, read_owner
from batch_assets.control.pipeline import known_pipeline, open_pipeline
from batch_assets.errors import ConfigurationError
from batch_assets.ledger.states import State
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.storage import open_storage
from batch_assets_tests.control import chains
from batch_assets_tests.control.builders import (
    assert_published,
    embed_all,
    make_settings,
    open_ledger,
    run,
    write_input,
)
from batch_assets_tests.fakes import FakeHost


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """Leads to `tmp_path`/out."""
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    return tmp_path / "link"


def spelled(settings: PipelineSettings, root: str) -> PipelineSettings:
    return settings.model_copy(update={"output": settings.output.model_copy(update={"root": root})})


@pytest.mark.parametrize(
    "way", ["{}/link", "{}/link/", "{}/out/../link", "file://{}/link", "file://localhost{}/link"]
)
def test_a_pipeline_goes_on_by_another_way(tmp_path: Path, link: Path, way: str) -> None:
    write_input(tmp_path, 3)
    ledger, host = open_ledger(tmp_path), FakeHost()
    settings = make_settings(tmp_path)
    assert len(embed_all(settings, ledger, host)) == 3
    ledger.recompute("texts", ["g0001-00001"])
    before = {row.key: (row.state, row.fence) for row in ledger.shards("texts")}
    ledger.set_recovered("texts")
    known = ledger.pipeline("texts")
    by_link = spelled(settings, way.format(tmp_path))
    open_pipeline(by_link, ledger, host.executor(by_link))
    # What the ledger knew of it stands: it has not moved, and nobody else has come to it.
    assert {row.key: (row.state, row.fence) for row in ledger.shards("texts")} == before
    assert ledger.pipeline("texts") == known
    assert known_pipeline(by_link, ledger, host.executor(by_link)) is not None
    run(by_link, ledger, host)
    assert_published(tmp_path / "out", 15)
    assert find_pipeline(str(link), ledger, None).name == "texts"


def test_another_pipeline_does_not_come_in_by_a_link(tmp_path: Path, link: Path) -> None:
    write_input(tmp_path, 1)
    ledger, host = open_ledger(tmp_path), FakeHost()
    run(make_settings(tmp_path), ledger, host)
    other = make_settings(tmp_path, output={"root": str(link)}).model_copy(update={"name": "other"})
    with pytest.raises(ConfigurationError, match="belongs to pipeline 'texts', not to 'other'"):
        open_pipeline(other, ledger, host.executor(other))


@pytest.mark.parametrize(("first", "second"), [("out", "link"), ("link", "out")])
def test_an_ad_hoc_pipeline_has_one_name_whichever_way_is_given(
    tmp_path: Path, link: Path, first: str, second: str
) -> None:
    write_input(tmp_path, 1)
    ledger, host = open_ledger(tmp_path), FakeHost()

    def adhoc(way: str) -> PipelineSettings:
        return adhoc_settings({"input": f"{tmp_path}/in.jsonl", "output": f"{tmp_path}/{way}"})

    embed_all(adhoc(first), ledger, host)
    name = adhoc_name(f"{tmp_path}/{first}")
    for way in (second, first, second, second):
        settings = adhoc(way)
        assert settings.name == name
        open_pipeline(settings, ledger, host.executor(settings))
        assert (read_owner(open_storage(str(link))) or {})["pipeline"] == name
    assert [row.state for row in ledger.shards(name)] == [State.COLLECTED]
    # It may be given a name later, by either way.
    named = adhoc(second).model_copy(update={"name": "named"})
    assert check_owner(named, open_storage(named.output.root)) is not None


def test_a_copy_of_a_root_is_another_one(tmp_path: Path, link: Path) -> None:
    write_input(tmp_path, 1)
    flags = {"input": f"{tmp_path}/in.jsonl", "output": f"{tmp_path}/out"}
    embed_all(adhoc_settings(flags), open_ledger(tmp_path), FakeHost())
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "pipeline.json").write_bytes((link / "pipeline.json").read_bytes())
    assert adhoc_settings({**flags, "output": f"{tmp_path}/copy"}).name == adhoc_name(f"{tmp_path}/copy")


def test_whose_shards_are_read_is_known_by_every_way(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "one")
    chains.write_input(tmp_path)
    chain = chains.Chain(tmp_path)
    ledger, host = chain.ledger, chain.host
    first = chains.first_settings(tmp_path)
    embed_all(first, ledger, host)
    source = {"pipeline": "first", "uri": f"shards:{tmp_path}/link", "id_column": "record_id"}
    second = chains.second_settings(tmp_path, source=source)
    upstream = known_upstream(second, ledger)
    assert upstream is not None and upstream.name == "first"
