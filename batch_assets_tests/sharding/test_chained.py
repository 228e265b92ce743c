"""Another pipeline's shards as shards of one's own: the plan, the records, and which commit they are."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_assets.errors import ConfigurationError, SourceError
from batch_assets.sharding.chained import plan_chained, plans_behind
from batch_assets.sharding.manifest import (
    prepare_input,
    read_input_manifest,
    replace_input_manifest,
    write_input_manifest,
)
from batch_assets.sharding.plan_files import read_plan
from batch_assets.sharding.reading import read_rows, sample_texts
from batch_assets.sharding.sampling import first_records
from batch_assets.sharding.upstream import UpstreamCommit
from batch_assets.storage import Storage, open_storage
from batch_assets_tests.embeddings.builders import write_shard
from batch_assets_tests.object_store import s3_server, use_s3
from batch_assets_tests.sharding.chains import (
    BYTES_PER_RECORD,
    COLUMNS,
    commit,
    over,
    plan_over,
    plan_upstream,
    prepared,
)
from batch_assets_tests.sharding.planning import plan, write_lines

A, B, C = (f"g0001-{number:05d}" for number in range(3))


@pytest.fixture
def upstream(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "a"))


def test_the_plan_is_the_upstreams_before_anything_is_embedded(upstream: Storage, tmp_path: Path) -> None:
    plan_upstream(upstream, {A: 3, B: 5})
    plan_upstream(upstream, {"g0002-00000": 4}, generation=2, superseded=[A])
    configured = over(upstream, tmp_path)
    first, second = plan_over(configured)
    assert [(shard.key, shard.records, shard.bytes) for shard in (*first.shards, *second.shards)] == [
        (A, 3, 3 * BYTES_PER_RECORD),
        (B, 5, 5 * BYTES_PER_RECORD),
        ("g0002-00000", 4, 4 * BYTES_PER_RECORD),
    ]
    assert (first.summary.generation, first.summary.superseded) == (1, [])
    assert (second.summary.generation, second.summary.superseded) == (2, [A])
    assert first.summary.columns == COLUMNS  # json stays what it is
    assert first.summary.base_uri == f"shards:{upstream.uri}"
    assert plan_over(configured) == []
    plan_upstream(upstream, {}, generation=3, superseded=[B])
    assert plans_behind(configured, first.root) == [3]
    [third] = plan_over(configured)
    assert (third.shards, third.summary.superseded) == ([], [B])
    assert plan_over(configured) == []


def test_an_upstream_over_another_one_has_its_plan_taken_over_too(upstream: Storage, tmp_path: Path) -> None:
    plan_upstream(upstream, {A: 3})
    [middle] = plan_over(over(upstream, tmp_path))
    [last] = plan_over(over(middle.root, tmp_path / "c"))
    assert [(shard.key, shard.records) for shard in last.shards] == [(A, 3)]
    assert last.summary.columns == COLUMNS


def test_what_cannot_be_chained_is_refused(upstream: Storage, tmp_path: Path) -> None:
    configured, root = over(upstream, tmp_path), open_storage(str(tmp_path / "b"))
    told = rf"source\.pipeline: 'a' has no plan under {upstream.uri} yet; `batch-assets run a`, or .*plan a`, makes it"
    with pytest.raises(SourceError, match=told):
        plan_chained(configured, root)
    plan_upstream(upstream, {A: 30, B: 5})
    with pytest.raises(ConfigurationError, match=r"source\.limit: 7: .* takes all of them"):
        plan_chained(over(upstream, tmp_path, limit=7), root)
    told = (
        rf"shard {A} of pipeline a has 30 records, and a job of executor gpu takes at most 29; lower shards"
    )
    with pytest.raises(ConfigurationError, match=told):
        plan_chained(configured, root, max_records=29)
    assert plan_chained(configured, root, max_records=30)
    # What was replaced upstream may be of any size.
    plan_upstream(upstream, {"g0002-00000": 5}, generation=2, superseded=[A])
    assert len(plan_chained(configured, root, max_records=29)) == 2
    with pytest.raises(ConfigurationError, match=r"source\.columns: 'embedding' in no record"):
        plan_chained(over(upstream, tmp_path, columns=["embedding"]), root)


def test_a_root_with_other_plans_is_refused(upstream: Storage, tmp_path: Path) -> None:
    plan_upstream(upstream, {A: 3})
    write_lines(tmp_path / "in" / "x.jsonl", ['{"text": "one"}'])
    plan(tmp_path / "in", tmp_path / "b")
    with pytest.raises(ConfigurationError, match="its plan g0001 is not that of pipeline a"):
        plan_over(over(upstream, tmp_path))


def test_embedded_records_come_first_and_the_others_as_rejections(upstream: Storage, tmp_path: Path) -> None:
    plan_upstream(upstream, {A: 4, B: 2, C: 2})
    commit(upstream, A, "erfe")
    commit(upstream, B, "ee")
    commit(upstream, C, "rf")
    planned = prepared(over(upstream, tmp_path))
    assert planned.rows()[:4] == [(f"{A}.parquet", row) for row in range(4)]
    assert planned.ids() == ["id-0", "id-3", "id-0", "id-1"]
    assert planned.texts() == [f"text {A} 0", f"text {A} 3", f"text {B} 0", f"text {B} 1"]
    assert planned.columns()["n"] == [0, 3, 0, 1]
    assert planned.columns()["a.b"] == ['{"c": 1}'] * 4
    assert planned.columns()["user_embedding"] == [0.5] * 4
    told = [(r.ordinal, r.record_id, r.source_row, r.code, r.message) for r in planned.rejections()]
    assert told == [
        (2, "id-1", 2, "rejected_upstream", "no_text: has no text"),
        (3, "id-2", 3, "failed_upstream", "model_error: the model raised"),
        (0, "id-0", 0, "rejected_upstream", "no_text: has no text"),
        (1, "id-1", 1, "failed_upstream", "model_error: the model raised"),
    ]
    manifest = read_input_manifest(planned.root, A)
    assert manifest is not None
    assert (manifest.planned, manifest.valid, manifest.rejected) == (4, 2, 2)
    assert manifest.rejected_by_code == {"failed_upstream": 1, "rejected_upstream": 1}
    wanted = {(f"{A}.parquet", 1), (f"{A}.parquet", 2)}
    found = read_rows(planned.settings, planned.shards[0], wanted, planned.summary, planned.root)
    assert found == {(f"{A}.parquet", 1): (None, f"text {A} 3")}


def test_what_is_passed_through_can_be_named(upstream: Storage, tmp_path: Path) -> None:
    plan_upstream(upstream, {A: 3})
    commit(upstream, A)
    columns = ["n", "record_id"]
    planned = prepared(over(upstream, tmp_path, columns=columns, text_template="{text} {n}"))
    assert planned.columns() == {"n": [0, 1, 2], "user_record_id": ["id-0", "id-1", "id-2"]}
    assert planned.texts()[2] == f"text {A} 2 2"


@pytest.mark.parametrize("task", ["generate", None], ids=["planned", "only committed"])
def test_answers_are_columns(upstream: Storage, tmp_path: Path, task: str | None) -> None:
    plan_upstream(upstream, {A: 4}, columns={"title": "string"}, task="generate" if task else None)
    write_shard(upstream, A, "erfe", columns={"title": "string"}, task="generate")
    planned = prepared(over(upstream, tmp_path, text_column="response"))
    assert planned.texts() == ["answer to id-0", "answer to id-3"]
    assert planned.columns()["user_output_tokens"] == [101, 104]
    assert planned.summary.columns["user_input_tokens"] == "int64"


def test_it_is_one_commit_that_is_read(upstream: Storage, tmp_path: Path) -> None:
    plan_upstream(upstream, {A: 3, B: 3})
    commit(upstream, A)
    configured = over(upstream, tmp_path)
    [planned] = plan_over(configured)
    shard = planned.shards[0]
    with pytest.raises(SourceError, match=f"shard {A}: its records are not checked yet"):
        planned.read(shard)
    with pytest.raises(
        SourceError, match=f"shards/{B}/shard.json: is not there, so shard {B} has no records"
    ):
        prepare_input(configured, planned.shards[1], planned.summary, root=planned.root)
    manifest = prepare_input(configured, shard, planned.summary, root=planned.root)
    assert replace_input_manifest(planned.root, manifest, None)
    assert not replace_input_manifest(planned.root, manifest, None)
    assert manifest.upstream is not None
    assert UpstreamCommit.parse(manifest.upstream.version) == manifest.upstream
    commit(upstream, A, fence=2)  # the same rows: no change
    assert [len(records) for records in planned.read(shard)] == [3]
    batches = iter(planned.read(shard))
    commit(upstream, A, fence=3, text="new")
    assert next(batches).texts[0] == f"text {A} 0"
    with pytest.raises(
        SourceError, match=rf"{A}\.parquet: touched since shard {A} was prepared: .* --replace"
    ):
        planned.read(shard)
    write_input_manifest(planned.root, prepare_input(configured, shard, planned.summary, root=planned.root))
    assert planned.read(shard)[0].texts[0] == f"new {A} 0"


def test_a_commit_that_does_not_hold_what_was_planned_is_refused(upstream: Storage, tmp_path: Path) -> None:
    plan_upstream(upstream, {A: 5})
    commit(upstream, A, "eef")
    with pytest.raises(SourceError, match="5 records were planned and the upstream's files hold 3"):
        prepared(over(upstream, tmp_path))
    upstream.write(f"shards/{A}/shard.json", b"{")
    [planned] = plan_over(over(upstream, tmp_path / "other"))
    with pytest.raises(SourceError, match=r"shard\.json: cannot be read as another pipeline's .*verify"):
        prepare_input(planned.settings, planned.shards[0], planned.summary, root=planned.root)


def test_samples_are_of_what_is_committed(upstream: Storage, tmp_path: Path) -> None:
    plan_upstream(upstream, {A: 3, B: 3, C: 3})
    configured = over(upstream, tmp_path)
    [planned] = plan_over(configured)
    assert sample_texts(configured, planned.shards, 4, planned.summary, planned.root) == []
    commit(upstream, B, "ere")
    assert sample_texts(configured, planned.shards, 4, planned.summary, planned.root) == [
        f"text {B} 0",
        f"text {B} 2",
    ]
    scratch = open_storage(str(tmp_path / "scratch"))
    assert [record for records in first_records(configured, scratch, 9) for record in records.record_ids] == [
        "id-0",
        "id-2",
    ]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("erf"), st.sampled_from("eeerf")), min_size=1, max_size=9))
def test_through_two_stages_every_record_is_accounted_for(fates: list[tuple[str, str]]) -> None:
    """A record's fate in the first stage, and in the second one if it comes to it."""
    with tempfile.TemporaryDirectory() as folder:
        first = open_storage(f"{folder}/a")
        kinds = "".join(fate for fate, _ in fates)
        plan_upstream(first, {A: len(fates)})
        commit(first, A, kinds)
        second = prepared(over(first, Path(folder)))
        [shard] = second.shards
        embedded = [name for records in second.read(shard) for name in records.record_ids]
        assert embedded == [f"id-{n}" for n, fate in enumerate(kinds) if fate == "e"]
        left = "".join(fate for reached, fate in fates if reached == "e") + "r" * (len(fates) - len(embedded))
        commit(second.root, A, left)
        third = prepared(over(second.root, Path(folder) / "c"))
        codes = [rejection.code for rejection in third.rejections()]
        assert len(third.ids()) + len(codes) == len(third.rows()) == len(fates)
        assert len(third.ids()) == sum(fate == ("e", "e") for fate in fates)
        assert codes.count("failed_upstream") == left.count("f")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as address:
        yield address


def test_in_a_bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_s3(endpoint, monkeypatch)
    root = open_storage("s3://bucket/a")
    plan_upstream(root, {A: 3, B: 4})
    commit(root, A)
    commit(root, B, "erfe")
    planned = prepared(over(root, tmp_path))
    assert planned.summary.base_uri == "shards:s3://bucket/a"
    assert planned.texts() == [f"text {A} {n}" for n in range(3)] + [f"text {B} {n}" for n in (0, 3)]
    assert [rejection.code for rejection in planned.rejections()] == ["rejected_upstream", "failed_upstream"]
    assert read_plan(planned.root, 1)[0].records == 7
