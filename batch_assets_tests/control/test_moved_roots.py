"""One pipeline name, one ledger, and a root that moves while others are at work on the one before."""

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_assets.control import collection
from batch_assets.control.collection import collect_shards
from batch_assets.control.pipeline import Pipeline, open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.control.preparation import queue_shards
from batch_assets.control.stopping import Stopped
from batch_assets.errors import ClaimLost, ConfigurationError
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import Place, ShardRow, SubmissionClaim, SubmissionRules
from batch_assets.ledger.states import State, SubmissionState
from batch_assets.sharding.plan import Shard
from batch_assets_tests.control.builders import make_settings, open_ledger, run, write_input
from batch_assets_tests.fakes import FakeHost
from batch_assets_tests.ledger.helpers import KEYS, ME, SCOPE, make_ready, named, queue

stop_verb: Any = importlib.import_module("batch_assets.cli.stop")  # the module, not the verb of its name
KEY = "g0001-00000"


def opened(folder: Path, ledger: Ledger, root: str) -> Pipeline:
    settings = make_settings(folder, output={"root": f"{folder}/{root}"})
    return open_pipeline(settings, ledger, FakeHost().executor(settings))


def test_who_was_at_work_on_the_root_before_touches_nothing_of_the_next(tmp_path: Path) -> None:
    write_input(tmp_path, 2)
    ledger = open_ledger(tmp_path)
    run(make_settings(tmp_path), ledger, FakeHost())
    early = opened(tmp_path, ledger, "out")
    run(make_settings(tmp_path, output={"root": f"{tmp_path}/next"}), ledger, FakeHost())
    ledger.recompute("texts", [KEY])
    with pytest.raises(
        ClaimLost, match=r"is on output root .*/next since this run was started on .*/out; start"
    ):
        list(collect_shards(early, [KEY]))
    row = ledger.shard("texts", KEY)
    assert row is not None
    assert (row.state, row.holder) == (State.READY, None)
    [again] = collect_shards(opened(tmp_path, ledger, "next"), [KEY])
    assert again.marker is not None


def collect_again(early: Pipeline) -> None:
    list(collect_shards(early, [KEY], recompute=True))


def queue_again(early: Pipeline) -> None:
    queue_shards(early, [KEY], recompute=True)


def look_at_the_model(early: Pipeline) -> None:
    """Another model than that of the next root, which is there by the time it is loaded."""
    early.executor.fingerprint = lambda: "another"  # type: ignore[method-assign]
    list(collect_shards(early, [KEY]))


def moved_on(folder: Path) -> tuple[Ledger, Pipeline, ShardRow]:
    """A ledger whose pipeline has moved to another root and done its work there, the pipeline of the root before, and
    a shard as it is now."""
    write_input(folder, 2)
    ledger = open_ledger(folder)
    run(make_settings(folder), ledger, FakeHost())
    early = opened(folder, ledger, "out")
    run(make_settings(folder, output={"root": f"{folder}/next"}), ledger, FakeHost())
    row = ledger.shard("texts", KEY)
    assert row is not None
    assert (row.state, row.outdated_fence) == (State.COLLECTED, -1)
    return ledger, early, row


@pytest.mark.parametrize("act", [collect_again, queue_again, look_at_the_model], ids=lambda act: act.__name__)
def test_what_is_committed_under_the_next_root_stays_so(
    tmp_path: Path, act: Callable[[Pipeline], None]
) -> None:
    ledger, early, before = moved_on(tmp_path)
    with pytest.raises(ClaimLost, match="is on output root"):
        act(early)
    assert ledger.shard("texts", KEY) == before


def test_a_commit_that_is_gone_with_the_root_before_says_nothing_of_the_next(tmp_path: Path) -> None:
    ledger, early, before = moved_on(tmp_path)
    shutil.rmtree(early.settings.output.root)
    assert collection._committed(early, Shard(KEY, ()), "another", before) is None
    assert ledger.shard("texts", KEY) == before


def test_no_submission_is_claimed_for_the_root_before(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    for root in ("/a", "/b"):
        ledger.attach("texts", root, 1, deployment=root)
    ledger.add_shards("texts", 1, [(key, ordinal, 100, 5_000) for ordinal, key in enumerate(KEYS)])
    make_ready(ledger)
    queue(ledger, [KEY])
    ledger.set_scope(SCOPE, slots=1)
    with pytest.raises(ClaimLost, match="is on output root /b since this run was started on /a"):
        ledger.claim_submission(SCOPE, {"texts": SubmissionRules(place=Place("/a", "/a"))}, named)
    claim = ledger.claim_submission(SCOPE, {"texts": SubmissionRules(place=Place("/b", "/b"))}, named)
    assert isinstance(claim, SubmissionClaim)


def test_a_claim_under_one_root_is_void_under_another(tmp_path: Path) -> None:
    """Both roots are at their first epoch, so keys, fences and even the holder are the same."""
    ledger = open_ledger(tmp_path)
    claims = []
    for root in ("/a", "/b"):
        ledger.attach("texts", root, 1, deployment=root)
        ledger.add_shards("texts", 1, [(key, ordinal, 100, 5_000) for ordinal, key in enumerate(KEYS)])
        make_ready(ledger)
        claim = ledger.claim("texts", KEY, ME, place=Place(root, root))
        assert claim is not None
        claims.append(claim)
    old, new = claims
    assert (old.fence, old.holder) == (new.fence, new.holder)
    done: dict[str, Any] = {"fingerprint": "f1", "embedded": 100, "rejected": 0, "failed": 0, "tokens": 1}
    assert not ledger.begin_commit(old)
    assert not ledger.finish(old, **done)
    assert not ledger.release(old)
    assert ledger.fail(old, "late", 3) is State.RUNNING
    assert ledger.finish(new, **done)


def test_a_root_that_was_made_anew_is_another_one(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.attach("texts", "/a", 1, deployment="first")
    ledger.attach("texts", "/a", 2, deployment="second")
    ledger.add_shards("texts", 1, [(key, ordinal, 100, 5_000) for ordinal, key in enumerate(KEYS)])
    make_ready(ledger)
    with pytest.raises(ClaimLost, match="as it was made anew"):
        ledger.claim("texts", KEY, ME, place=Place("/a", "first"))


def test_a_name_does_not_leave_a_root_whose_jobs_are_under_way(tmp_path: Path) -> None:
    write_input(tmp_path, 2)
    ledger = open_ledger(tmp_path)
    settings = make_settings(tmp_path)
    run(settings, ledger, FakeHost())
    ledger.recompute("texts", [KEY])
    queue(ledger, [KEY])
    ledger.set_scope(SCOPE, slots=1)
    claim = ledger.claim_submission(SCOPE, {"texts": SubmissionRules()}, named)
    assert isinstance(claim, SubmissionClaim)
    with pytest.raises(
        ConfigurationError,
        match=rf"jobs under way for output root .*/out \({claim.name}\).*`batch-assets stop texts`",
    ):
        opened(tmp_path, ledger, "next")
    row = ledger.pipeline("texts")
    assert row is not None
    assert row.root.endswith("/out")
    assert not (tmp_path / "next").exists()
    ledger.observe(claim.token, SubmissionState.STOPPED)
    opened(tmp_path, ledger, "next")


@pytest.mark.parametrize("taken", [True, False])
def test_who_plans_for_the_root_before_does_not_take_the_name_back_from_the_next(
    tmp_path: Path, taken: bool
) -> None:
    """It was opened while the name was here, whether or not there was a plan already."""
    write_input(tmp_path, 2)
    ledger = open_ledger(tmp_path)
    if taken:
        run(make_settings(tmp_path), ledger, FakeHost())
    early = opened(tmp_path, ledger, "out")
    run(make_settings(tmp_path, output={"root": f"{tmp_path}/next"}), ledger, FakeHost())
    known = ledger.pipeline("texts"), ledger.shards("texts")
    with pytest.raises(ClaimLost, match=r"is on output root .*/next since this run was started on .*/out"):
        plan_source(early)
    assert (ledger.pipeline("texts"), ledger.shards("texts")) == known
    assert (tmp_path / "out").exists() is taken


def test_a_name_does_not_leave_a_root_while_requests_are_rendered_for_it(tmp_path: Path) -> None:
    """The shard stays prepared meanwhile, and the ledger would forget the job that comes of it."""
    write_input(tmp_path, 2)
    ledger = open_ledger(tmp_path)
    plan_source(opened(tmp_path, ledger, "out"))
    ledger.set_deferred("texts", True)
    ledger.move("texts", [KEY], [State.PLANNED], State.PREPARED)
    claim = ledger.claim_preparation("texts", KEY, ME)
    assert claim is not None
    with pytest.raises(ConfigurationError, match=rf"at work on output root .*/out \(shard {KEY} is held by "):
        opened(tmp_path, ledger, "next")
    assert ledger.enqueue(claim, "batch", 5, 100, 0.0)
    opened(tmp_path, ledger, "next")


def test_stop_ends_what_runs_for_the_root_that_the_ledger_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The declaration may name the next root already: that is when a person is told to stop it."""
    ledger = open_ledger(tmp_path)
    declared = make_settings(tmp_path, output={"root": f"{tmp_path}/next"})
    ledger.attach("texts", f"{tmp_path}/out", 1, deployment="first")
    ledger.set_recovered("texts")
    stopped: list[str] = []

    def note(pipeline: Pipeline) -> Stopped:
        stopped.append(pipeline.storage.uri)
        return Stopped(0, 1, 0)

    monkeypatch.setattr(stop_verb, "open_ledger", lambda: ledger)
    monkeypatch.setattr(stop_verb, "find_pipeline", lambda *_, **__: declared)
    monkeypatch.setattr(stop_verb, "create_host", lambda _: FakeHost())
    monkeypatch.setattr(stop_verb, "stop_pipeline", note)
    stop_verb.stop("texts")
    assert stopped == [f"{tmp_path}/out"]
