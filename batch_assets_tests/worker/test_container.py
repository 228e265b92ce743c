"""The worker container's command: one shard committed, however often it runs, and nothing of another's changed."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from batch_assets import paths
from batch_assets.embeddings.accounting import account_shard
from batch_assets.embeddings.marker import ShardMarker, commit_marker, read_marker
from batch_assets.encoders.fingerprint import fingerprint
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan import Shard
from batch_assets.sharding.plan_files import write_plan
from batch_assets.sharding.planner import plan_generation
from batch_assets.storage import Storage, open_storage
from batch_assets.worker import commit, container, run_shard
from batch_assets.worker.__main__ import main
from batch_assets.worker.assignment import Assignment, WorkerManifest, write_manifest
from batch_assets.worker.attempt import Processed
from batch_assets_tests.builders import make_light_model
from batch_assets_tests.command import some_records, write_records
from batch_assets_tests.waiting import PATIENCE_SECONDS, wait_until

RECORDS, PER_SHARD = 60, 25


class Submission:
    """A planned pipeline of three shards, and the manifest of an array of them."""

    def __init__(self, folder: Path) -> None:
        records = some_records(RECORDS)
        records[3]["text"] = " "
        write_records(folder / "in.jsonl", records)
        self.settings = PipelineSettings.model_validate(
            {
                "name": "texts",
                "source": {"uri": str(folder / "in.jsonl"), "id_column": "id"},
                "model": {"id": str(make_light_model(folder / "model")), "trust_remote_code": True},
                "shards": {"records": PER_SHARD},
                "output": {"root": str(folder / "out")},
                "executor": {
                    "type": "aws_batch",
                    "job_queue": "queue",
                    "image": "worker",
                    "usd_per_hour": 1.0,
                },
            }
        )
        self.root: Storage = open_storage(self.settings.output.root)
        planned = plan_generation(self.settings, self.root)
        write_plan(self.root, planned.summary, planned.shards)
        self.shards: list[Shard] = list(planned.shards)
        self.fingerprint = fingerprint(self.settings)

    def manifest(
        self, fence: int = 1, outdated_fence: int = -1, fingerprint: str = "", deployment: str | None = None
    ) -> str:
        assignments = [Assignment(shard.key, fence, 1, outdated_fence) for shard in self.shards]
        manifest = WorkerManifest(
            "array", fingerprint or self.fingerprint, "aws_batch", self.settings.model_dump(mode="json"),
            assignments, usd_per_hour=1.0, deployment=deployment,
        )  # fmt: skip
        return write_manifest(self.root, paths.worker_manifest("array"), manifest)

    def marker(self, place: int = 0) -> ShardMarker | None:
        found = read_marker(self.root, self.shards[place].key)
        return None if found is None else found[0]

    def files(self, place: int = 0) -> dict[str, bytes]:
        """What lies in the shard's folder, but for the notes of its attempts."""
        infos = self.root.list(paths.shard_folder(self.shards[place].key))
        return {info.path: self.root.read(info.path) for info in infos if "/attempts/" not in info.path}


@pytest.fixture
def submission(tmp_path: Path) -> Submission:
    return Submission(tmp_path)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(manifest: str, place: int | None = 0) -> int:
        monkeypatch.delenv("AWS_BATCH_JOB_ARRAY_INDEX", raising=False)
        if place is not None:
            monkeypatch.setenv("AWS_BATCH_JOB_ARRAY_INDEX", str(place))
            monkeypatch.setenv("AWS_BATCH_JOB_ID", f"job:{place}")
        return main(["--manifest", manifest])

    return run


def test_a_manifest_that_others_have_changed_is_not_carried_out(
    submission: Submission, work: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = submission.manifest()
    ran = tmp_path / "ran"
    theirs = make_light_model(tmp_path / "theirs")
    (theirs / "model.py").write_text(f"open({str(ran)!r}, 'w')\n" + (theirs / "model.py").read_text())
    file = Path(told.partition("#")[0])
    file.write_text(file.read_text().replace(submission.settings.model.id, str(theirs)))
    assert work(told) == 2
    assert "it is not what was submitted" in capsys.readouterr().err
    assert not ran.exists() and submission.marker() is None


def test_a_manifest_without_its_digest_allows_nothing(
    submission: Submission, work: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    uri, _, _ = submission.manifest().partition("#")
    assert work(uri) == 2
    assert "model.trust_remote_code" in capsys.readouterr().err
    assert submission.marker() is None


def test_each_place_of_an_array_is_a_shard(
    submission: Submission, work: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = submission.manifest(fence=7)
    assert [work(manifest, place) for place in range(3)] == [0, 0, 0]
    assert "accounting: planned=25 embedded=24 rejected=1 failed=0" in capsys.readouterr().out
    for place, shard in enumerate(submission.shards):
        marker = submission.marker(place)
        assert marker is not None
        assert account_shard(submission.root, shard.records, marker).holds
        assert (marker.fence, marker.job, marker.executor) == (7, f"job:{place}", "aws_batch")
        assert marker.embeddings.path == f"shards/{shard.key}/embeddings-7.parquet"
        assert marker.cost_usd and marker.cost_usd > 0


def test_a_second_run_changes_nothing(submission: Submission, work: Callable[..., int]) -> None:
    manifest = submission.manifest()
    assert work(manifest) == 0
    before = submission.files()
    assert work(manifest) == 0
    # Nor does a later attempt that was not needed any more.
    assert work(submission.manifest(fence=2)) == 0
    assert submission.files() == before


def test_an_order_to_compute_again_is_carried_out(submission: Submission, work: Callable[..., int]) -> None:
    assert work(submission.manifest(fence=1)) == 0
    assert work(submission.manifest(fence=2, outdated_fence=1)) == 0
    marker = submission.marker()
    assert marker is not None
    assert marker.fence == 2
    assert marker.earlier_usd > 0


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


def test_other_weights_than_the_pipelines_are_refused_for_good(
    submission: Submission, work: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert work(submission.manifest(fingerprint="0123456789abcdef")) == 2
    assert "its fingerprint is" in capsys.readouterr().err
    assert submission.marker() is None
    word = orjson.loads(submission.root.read(paths.worker_error(submission.shards[0].key, 1, 0)))
    assert word["error"] == "ModelError"


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


@pytest.mark.parametrize("place", [3, None])
def test_a_place_that_the_manifest_has_not_is_refused(
    submission: Submission, work: Callable[..., int], place: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert work(submission.manifest(), place) == 2
    assert "AWS_BATCH_JOB_ARRAY_INDEX" in capsys.readouterr().err


def test_what_is_no_manifest_is_refused(
    submission: Submission, work: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.json").write_text('{"name": "x"}')
    assert work(str(tmp_path / "x.json")) == 2
    assert work(str(tmp_path / "gone.json")) == 2
    assert "there is no such file" in capsys.readouterr().err


def test_damaged_files_are_embedded_again(submission: Submission, work: Callable[..., int]) -> None:
    assert work(submission.manifest()) == 0
    marker = submission.marker()
    assert marker is not None
    submission.root.write(marker.embeddings.path, b"x")
    assert work(submission.manifest()) == 0
    mended = submission.marker()
    assert mended is not None
    assert mended.run == 1
    account_shard(submission.root, PER_SHARD, mended)


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


def test_a_marker_that_cannot_be_read_is_replaced(submission: Submission, work: Callable[..., int]) -> None:
    submission.root.write(paths.shard_marker(submission.shards[0].key), b"{garbage")
    assert work(submission.manifest(fence=3)) == 0
    marker = submission.marker()
    assert marker is not None
    assert account_shard(submission.root, PER_SHARD, marker).holds


def test_killed_in_the_middle_and_started_again(submission: Submission, tmp_path: Path) -> None:
    model = tmp_path / "model" / "model.py"
    gate = tmp_path / "begun"
    model.write_text(
        model.read_text().replace(
            "    def encode(self, items):",
            "    def encode(self, items):\n"
            "        import pathlib, time\n"
            f"        gate = pathlib.Path({str(gate)!r})\n"
            "        if len(items) > 8 and not gate.exists():\n"
            "            gate.touch()\n"
            f"            time.sleep({10 * PATIENCE_SECONDS})",
        )
    )
    submission.fingerprint = fingerprint(submission.settings)
    command = [sys.executable, "-m", "batch_assets.worker", "--manifest", submission.manifest()]
    environment = {**os.environ, "AWS_BATCH_JOB_ARRAY_INDEX": "0", "AWS_BATCH_JOB_ATTEMPT": "1"}
    first = subprocess.Popen(command, env=environment)
    wait_until(lambda: gate.exists() or first.poll() is not None, "it does not begin")
    assert first.poll() is None
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert submission.marker() is None
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "accounting: planned=25 embedded=24 rejected=1 failed=0" in again.stdout
    marker = submission.marker()
    assert marker is not None
    # The killed one's files, if it had any, were named otherwise.
    assert marker.run == 1


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
