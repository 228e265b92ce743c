"""The worker container beside others: later claims, other workers, a root made anew. It changes nothing of theirs."""

import shutil
import threading
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from batch_assets import paths
from batch_assets.embeddings.accounting import account_shard
from batch_assets.embeddings.marker import ShardMarker, commit_marker, read_marker
from batch_assets.encoders.fingerprint import fingerprint
from batch_assets.storage import Storage
from batch_assets.worker import commit, container, run_shard
from batch_assets.worker.assignment import WorkerManifest
from batch_assets.worker.attempt import Processed
from batch_assets_tests.waiting import PATIENCE_SECONDS
from batch_assets_tests.worker.container.submission import PER_SHARD, Submission


def test_two_workers_at_once_leave_one_commit_and_its_files(
    submission: Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_again(submission)
    barrier = threading.Barrier(2, timeout=PATIENCE_SECONDS)

    def together(*arguments: object) -> bool:
        barrier.wait()
        return commit_marker(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(commit, "commit_marker", together)
    found: list[ShardMarker] = []
    threads = [
        threading.Thread(
            target=lambda name=name: found.append(
                container.carry_out(manifest, manifest.assignments[0], name)
            )
        )
        for name in ("one", "two")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1] == submission.marker()
    account_shard(submission.root, PER_SHARD, found[0])
    assert submission.files().keys() == {
        paths.shard_marker(found[0].shard),
        *(file.path for file in found[0].files),
    }


def read_again(submission: Submission) -> WorkerManifest:
    from batch_assets.worker.assignment import read_manifest

    return read_manifest(submission.manifest())


@pytest.mark.parametrize("deployment", ["0123", "4567", None])
def test_a_root_that_was_made_anew_meanwhile_gets_no_commit(
    submission: Submission,
    work: Callable[..., int],
    deployment: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    owner = {"pipeline": "texts", "epoch": 1, "source": [], "configuration": {}, "deployment": deployment}
    submission.root.write(paths.PIPELINE, orjson.dumps(owner))
    assert work(submission.manifest(deployment="0123")) == (0 if deployment == "0123" else 2)
    if deployment != "0123":
        assert "was removed since this job was begun" in capsys.readouterr().err
        assert submission.files() == {}


@pytest.mark.parametrize("taken", [False, True], ids=["own number", "another's number"])
def test_a_root_that_is_made_anew_while_it_works_loses_no_file_of_another_worker(
    submission: Submission, work: Callable[..., int], monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    owner = {"pipeline": "texts", "epoch": 1, "source": [], "configuration": {}, "deployment": "0123"}
    submission.root.write(paths.PIPELINE, orjson.dumps(owner))
    write = run_shard.write_shard

    def made_anew(*told: Any) -> Generator[Processed, None, ShardMarker]:
        written = yield from write(*told)
        submission.root.write(paths.PIPELINE, orjson.dumps({**owner, "deployment": "4567"}))
        if taken:
            submission.root.write(paths.worker_run(written.shard, 1, written.run), b"another's")
        return written

    monkeypatch.setattr(run_shard, "write_shard", made_anew)
    assert work(submission.manifest(deployment="0123")) == 2
    assert submission.marker() is None
    assert bool(submission.files()) is taken


@pytest.mark.parametrize("when", ["before it writes", "after it has written"])
def test_a_root_that_is_removed_while_it_works_stays_empty(
    submission: Submission,
    work: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    when: str,
) -> None:
    owner = {"pipeline": "texts", "epoch": 1, "source": [], "configuration": {}, "deployment": "0123"}
    submission.root.write(paths.PIPELINE, orjson.dumps(owner))
    write = run_shard.write_shard
    manifest = submission.manifest(deployment="0123")

    def removed(*told: Any) -> Generator[Processed, None, ShardMarker]:
        plan = [info.path for info in submission.root.list("plan")]
        kept = {path: submission.root.read(path) for path in plan}
        shutil.rmtree(submission.root.uri)
        if when == "after it has written":
            for path, data in kept.items():
                submission.root.write(path, data)
        written = yield from write(*told)
        submission.root.delete(plan)
        return written

    monkeypatch.setattr(run_shard, "write_shard", removed)
    assert work(manifest) == 2
    assert "was removed since this job was begun" in capsys.readouterr().err
    assert list(submission.root.list()) == []


def test_what_two_roots_at_one_place_get_from_their_workers_has_different_names(
    submission: Submission, work: Callable[..., int]
) -> None:
    """Where the ledger is gone with the first root, the second has the same fences."""
    owner = {"pipeline": "texts", "epoch": 1, "source": [], "configuration": {}}
    names = list[set[str]]()
    for deployment in ("0123", "4567"):
        submission.root.write(paths.PIPELINE, orjson.dumps({**owner, "deployment": deployment}))
        assert work(submission.manifest(deployment=deployment)) == 0
        assert all(
            paths.is_own_name(path) and paths.fence_of(path) in (1, None) for path in submission.files()
        )
        names.append({path for path in submission.files() if path.endswith(".parquet")})
        assert all("embeddings-1.parquet" not in path for path in names[-1])
        submission.root.delete([paths.shard_marker(submission.shards[0].key), *names[-1]])
        submission.root.delete([info.path for info in submission.root.list("shards")])
    assert names[0].isdisjoint(names[1])


def test_a_newer_commit_stands(
    submission: Submission, work: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert work(submission.manifest(fence=1)) == 0
    first = submission.marker()
    assert first is not None

    def overtaken(storage: Storage, marker: ShardMarker, previous: str | None) -> bool:
        found = read_marker(storage, marker.shard)
        assert found is not None
        if found[0].job == first.job:
            assert commit_marker(storage, replace(first, job="somebody", fence=5), found[1])
        return commit_marker(storage, marker, previous)

    monkeypatch.setattr(commit, "commit_marker", overtaken)
    # Whoever has the later claim answers for what it has committed.
    assert work(submission.manifest(fence=2, outdated_fence=1)) == 0
    marker = submission.marker()
    assert marker is not None
    assert marker.job == "somebody"
    assert not [path for path in submission.files() if "embeddings-2" in path]


def test_a_late_worker_of_an_older_claim_writes_over_nothing(
    submission: Submission, work: Callable[..., int]
) -> None:
    assert work(submission.manifest(fence=5)) == 0
    before = submission.files()
    model = submission.settings.model.model_copy(update={"prompt": "what was asked for then: "})
    submission.settings = submission.settings.model_copy(update={"model": model})
    assert work(submission.manifest(fence=4, fingerprint=fingerprint(submission.settings))) == 0
    assert submission.files() == before


def test_a_worker_that_is_overtaken_deletes_no_file_under_another_ones_number(
    submission: Submission, work: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root may have been made anew since it took its number; then names are all that tells files apart."""
    assert work(submission.manifest(fence=1)) == 0
    first = submission.marker()
    assert first is not None

    def overtaken(storage: Storage, marker: ShardMarker, previous: str | None) -> bool:
        found = read_marker(storage, marker.shard)
        assert found is not None
        assert commit_marker(storage, replace(first, job="somebody", fence=5), found[1])
        storage.write(paths.worker_run(marker.shard, marker.fence, marker.run), b"another's")
        return commit_marker(storage, marker, previous)

    monkeypatch.setattr(commit, "commit_marker", overtaken)
    assert work(submission.manifest(fence=2, outdated_fence=1)) == 0
    assert [path for path in submission.files() if "embeddings-2" in path]
