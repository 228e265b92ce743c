"""Settings that change while jobs are queued or at a service: nothing of the old ones is committed as the new."""

from collections.abc import Callable
from pathlib import Path

import pytest

from batch_assets.control import uploading
from batch_assets.control.pipeline import Pipeline
from batch_assets.embeddings.marker import read_marker
from batch_assets.ledger.states import State
from batch_assets.rehearsal.vectors import embed
from batch_assets_tests.command import some_records
from batch_assets_tests.rehearsed import DIMENSIONS, Rehearsal
from batch_assets_tests.sites import PER_SHARD, Site, make_site
from batch_assets_tests.transforming import make_transform_site
from batch_assets_tests.workers import make_worker_site, vectors_of

Rehearse = Callable[..., Rehearsal]
PROMPT = "another prompt: "
SHARDS = 2


def with_prompt(site: Site) -> Site:
    """The same deployment after its YAML was changed."""
    model = site.settings.model.model_copy(update={"prompt": PROMPT})
    settings = site.settings.model_copy(update={"model": model})
    return type(site)(site.rehearsal, site.folder, settings, site.clock, site.ledger_name)


def assert_all_by_prompt(site: Site, pipeline: Pipeline) -> None:
    assert site.states() == [State.COLLECTED] * SHARDS
    for row in site.rows():
        found = read_marker(pipeline.storage, row.key)
        assert found is not None
        assert found[0].fingerprint == pipeline.fingerprint
    rows = site.publish(pipeline)
    expected = embed(
        [PROMPT + str(record["text"]) for record in some_records(SHARDS * PER_SHARD)], DIMENSIONS
    )
    assert abs(rows["embedding"].to_numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("make", [make_site, make_transform_site])
def test_a_job_that_has_ended_under_other_settings_is_asked_anew(
    make: Callable[..., Site], rehearse: Rehearse, tmp_path: Path
) -> None:
    site = make(rehearse(), tmp_path, SHARDS, executor={"max_attempts": 1})
    site.first_round()
    changed = with_prompt(site)
    pipeline = changed.run()
    assert len(site.rehearsal.jobs) == 2 * SHARDS
    assert_all_by_prompt(changed, pipeline)
    assert changed.ledger.money("texts").held_usd == 0
    assert changed.spent() >= changed.billed()


@pytest.mark.parametrize("make", [make_site, make_transform_site])
def test_rows_of_earlier_attempts_are_not_mixed_with_those_of_other_settings(
    make: Callable[..., Site], rehearse: Rehearse, tmp_path: Path
) -> None:
    rehearsal = rehearse(output={"cut_tail": 1}, transform={"fail_object": 0.5})
    site = make(rehearsal, tmp_path, SHARDS)
    pipeline = site.first_round()
    site.clock.ahead += 600
    site.collect(pipeline)
    rehearsal.change(output={"cut_tail": 0}, transform={"fail_object": 0.0})
    changed = with_prompt(site)
    assert_all_by_prompt(changed, changed.run())


@pytest.mark.parametrize("make", [make_site, make_transform_site])
def test_what_waits_in_the_queue_is_rendered_anew_before_it_is_paid_for(
    make: Callable[..., Site], rehearse: Rehearse, tmp_path: Path
) -> None:
    rehearsal = rehearse(calls={"throttled": 1})
    site = make(rehearsal, tmp_path, SHARDS)
    site.upload()
    assert set(site.states()) == {State.QUEUED}
    rehearsal.change(calls={"throttled": 0})
    changed = with_prompt(site)
    assert_all_by_prompt(changed, changed.run())
    assert len(rehearsal.jobs) == SHARDS


@pytest.mark.parametrize("submitted", [False, True])
def test_workers_embed_by_the_settings_of_now_and_no_attempt_is_lost(
    rehearse: Rehearse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, submitted: bool
) -> None:
    site = make_worker_site(rehearse(), tmp_path, shards=SHARDS, executor={"max_attempts": 1})
    if submitted:
        site.first_round()
    else:
        with monkeypatch.context() as patch:  # queued, and no turn of the loop
            patch.setattr(uploading, "take_turn", lambda *_, **__: None)
            patch.setattr(uploading, "_await_answer", lambda *_: None)
            site.upload()
        assert set(site.states()) == {State.QUEUED}
    changed = with_prompt(site)
    pipeline = changed.run()
    assert changed.states() == [State.COLLECTED] * SHARDS
    assert sum(site.sizes()) == SHARDS * (1 + submitted)
    rows = changed.rows_published(pipeline)  # type: ignore[attr-defined]
    texts = [PROMPT + str(record["text"]) for record in some_records(SHARDS * PER_SHARD)]
    assert abs(rows["embedding"].to_numpy() - vectors_of(texts)).max() < 1e-5
