"""What is asked and where it lies: long texts, answers instead of vectors, staging areas and roots."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from batch_assets.control.merging import merge_shards, publish_merge
from batch_assets.errors import ConfigurationError
from batch_assets.rehearsal.vectors import embed
from batch_assets.storage import open_storage
from batch_assets_tests.command import some_records, write_records
from batch_assets_tests.rehearsed import DIMENSIONS, Rehearsal
from batch_assets_tests.sites import PER_SHARD, assert_every_record_once, assert_whole, make_site

Rehearse = Callable[..., Rehearsal]
# The model takes 50,000 characters, and 8,192 tokens of about 4.7 characters.
TOO_MANY_CHARACTERS, TOO_MANY_TOKENS = "word " * 12_000, "word " * 9_000


def with_long_texts(folder: Path) -> list[dict[str, Any]]:
    records = some_records(PER_SHARD)
    records[3]["text"], records[5]["text"] = TOO_MANY_CHARACTERS, TOO_MANY_TOKENS
    write_records(folder / "in.jsonl", records)
    return records


def test_long_texts_are_cut_until_the_model_takes_them(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse()
    site = make_site(rehearsal, tmp_path, 1, executor={"too_long": "truncate"})
    records = with_long_texts(tmp_path)
    site.run()
    rows = site.publish(site.open())
    assert rows["record_id"].to_list() == [record["id"] for record in records]
    cut = embed([TOO_MANY_CHARACTERS[:20_000], TOO_MANY_TOKENS[:18_000]], DIMENSIONS)
    assert np.allclose(rows["embedding"].to_list()[3], cut[0], atol=1e-4)
    assert np.allclose(rows["embedding"].to_list()[5], cut[1], atol=1e-4)
    # Once as long as they are, once shorter: the others were asked for once.
    assert rehearsal.sent() == PER_SHARD + 2


def test_long_texts_are_rejected_where_that_is_wanted(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse()
    site = make_site(rehearsal, tmp_path, 1, executor={"too_long": "reject"}, max_failed_fraction=1.0)
    records = with_long_texts(tmp_path)
    site.run()
    rows = site.publish(site.open())
    assert_every_record_once(rows, [records[place] for place in range(PER_SHARD) if place not in (3, 5)])
    failures = site.failures()
    assert failures["error_code"].to_list() == ["too_long", "too_long"]
    assert failures["record_id"].to_list() == [records[3]["id"], records[5]["id"]]
    assert "60,000 characters" in failures["error_message"][0]
    # What is known to be too long is never sent, and what is refused is not sent again.
    assert rehearsal.sent() == PER_SHARD - 1


@pytest.mark.parametrize("faults", [{}, {"jobs": {"partial": 1}}], ids=["calm", "partial"])
@pytest.mark.parametrize(
    "model_id",
    ["us.anthropic.claude-haiku-4-5-20251001-v1:0", "us.amazon.nova-lite-v1:0"],
    ids=["claude", "converse"],
)
def test_answers_instead_of_vectors(
    rehearse: Rehearse, tmp_path: Path, model_id: str, faults: dict[str, Any]
) -> None:
    rehearsal = rehearse(**faults)
    site = make_site(
        rehearsal,
        tmp_path,
        2,
        task="generate",
        source={"uri": f"{tmp_path}/in.jsonl", "id_column": "id", "text_template": "Say it again: {text}"},
        model={"max_tokens": 64},
        executor={"model_id": model_id},
    )
    site.first_round()
    rehearsal.change(jobs={"partial": 0})
    site.run()
    rows = site.publish(site.open())
    assert rows["record_id"].to_list() == [record["id"] for record in some_records(2 * PER_SHARD)]
    assert {"response", "input_tokens", "output_tokens"} <= set(rows.columns)
    assert "embedding" not in rows.columns
    assert rows["response"].str.len_chars().min() > 0  # type: ignore[operator]
    assert rows["output_tokens"].min() > 0  # type: ignore[operator]
    assert rehearsal.paid_twice() == 0
    books = rehearsal.server.books
    every = [*books.jobs.values(), books.on_demand]
    taken, given = (sum(getattr(one, f"{way}_tokens") for one in every) for way in ("input", "output"))
    assert (rows["input_tokens"].sum(), rows["output_tokens"].sum()) == (taken, given)
    # The rehearsal has one price for all chat models.
    one_by_one = books.on_demand
    calls = site.open().executor.cost(one_by_one.input_tokens, one_by_one.output_tokens, on_demand=True)  # type: ignore[attr-defined]
    batch = site.open().executor.cost(taken - one_by_one.input_tokens, given - one_by_one.output_tokens)  # type: ignore[attr-defined]
    assert site.spent() == pytest.approx(batch + calls)


def test_everything_on_s3_needs_no_staging(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(output={"cut_tail": 1})
    root = f"s3://{rehearsal.bucket}/texts/out"
    site = make_site(rehearsal, tmp_path, 2, output={"root": root}, executor={"staging": None})
    site.first_round()
    rehearsal.change(output={"cut_tail": 0})
    pipeline = site.run()
    publish_merge(pipeline, merge_shards(pipeline))
    storage = open_storage(root)
    version = storage.read("merged/CURRENT").decode().strip()
    parts = sorted(info.path for info in storage.list(f"merged/{version}") if "part-" in info.path)
    rows = pl.concat([pl.read_parquet(storage.read(path)) for path in parts])
    assert_every_record_once(rows, some_records(2 * PER_SHARD))
    assert rehearsal.paid_twice() == 0


def test_a_local_root_needs_staging(rehearse: Rehearse, tmp_path: Path) -> None:
    site = make_site(rehearse(), tmp_path, 1, executor={"staging": None})
    with pytest.raises(ConfigurationError, match=r"executor\.staging"):
        site.upload()


def test_two_pipelines_may_share_a_staging_area(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse()
    sites = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        sites.append(make_site(rehearsal, tmp_path / name, 1))
    for site in sites:
        site.run()
    rows = [site.publish(site.open()) for site in sites]
    for some in rows:
        assert_every_record_once(some, some_records(PER_SHARD))
    assert len(rehearsal.jobs) == 2


def test_request_files_that_are_gone_are_rendered_again(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(calls={"throttled": 1})
    site = make_site(rehearsal, tmp_path, 2)
    site.upload()
    for file in (tmp_path / "out" / "jobs").glob("*/*/job.json"):
        file.unlink()
    rehearsal.change(calls={"throttled": 0})
    site.run()
    assert_whole(site, 2)


@pytest.mark.parametrize(
    "model_id", ["amazon.titan-embed-image-v1", "amazon.nova-2-multimodal-embeddings-v1:0"]
)
def test_multimodal_models_embed_texts(rehearse: Rehearse, tmp_path: Path, model_id: str) -> None:
    site = make_site(rehearse(), tmp_path, 2, executor={"model_id": model_id}, model={"dimensions": 384})
    site.run()
    rows = site.publish(site.open())
    vectors = np.array(rows["embedding"].to_list())
    assert vectors.shape == (2 * PER_SHARD, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert site.spent() == pytest.approx(site.billed(), rel=1e-3)
    assert site.spent() > 0
