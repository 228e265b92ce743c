"""The worker container's command: one shard committed, however often it runs, and nothing that is not as submitted."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from batch_assets import paths
from batch_assets.embeddings.accounting import account_shard
from batch_assets.encoders.fingerprint import fingerprint
from batch_assets_tests.builders import make_light_model
from batch_assets_tests.waiting import wait_until
from batch_assets_tests.worker.container.submission import PER_SHARD, Submission


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


def test_other_weights_than_the_pipelines_are_refused_for_good(
    submission: Submission, work: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert work(submission.manifest(fingerprint="0123456789abcdef")) == 2
    assert "its fingerprint is" in capsys.readouterr().err
    assert submission.marker() is None
    word = orjson.loads(submission.root.read(paths.worker_error(submission.shards[0].key, 1, 0)))
    assert word["error"] == "ModelError"


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
            "        import pathlib, threading\n"
            f"        gate = pathlib.Path({str(gate)!r})\n"
            "        if len(items) > 8 and not gate.exists():\n"
            "            gate.touch()\n"
            "            threading.Event().wait()",  # until it is killed
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
