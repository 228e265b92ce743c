"""What a person must mend is said at once, after one upload, and nothing is uploaded twice afterwards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_assets.control.alerts import alerts_of
from batch_assets.control.loop import take_turn
from batch_assets.errors import ConfigurationError, SubmissionRefused
from batch_assets_tests.rehearsed import Rehearsal
from batch_assets_tests.sites import assert_whole, make_site

Rehearse = Callable[..., Rehearsal]
SHARDS = 4


@pytest.mark.parametrize(
    ("calls", "words"),
    [({"entitled": False}, "support case"), ({"pass_role": False}, "iam:PassRole")],
    ids=["not-entitled", "pass-role"],
)
def test_refused_after_one_upload_and_mended(
    rehearse: Rehearse, tmp_path: Path, calls: dict[str, Any], words: str
) -> None:
    rehearsal = rehearse(calls=calls)
    site = make_site(rehearsal, tmp_path, SHARDS)
    pipeline = site.plan()
    with pytest.raises(SubmissionRefused, match=words):
        site.upload(pipeline)
    uploaded = requests(rehearsal)
    assert len(uploaded) == 1
    assert rehearsal.calls("CreateModelInvocationJob") == 1
    # Nobody asks again before a person has said so.
    for _ in range(3):
        site.clock.ahead += 60
        turn = take_turn([pipeline])
    assert words in turn.refused["texts"]
    assert [alert.happened for alert in alerts_of(pipeline, turn)]
    assert rehearsal.calls("CreateModelInvocationJob") == 1
    # A person who orders it has it asked once more, and nothing else is uploaded before.
    with pytest.raises(SubmissionRefused):
        site.upload(pipeline)
    assert requests(rehearsal) == uploaded
    assert rehearsal.calls("CreateModelInvocationJob") == 2
    rehearsal.change(calls=dict.fromkeys(calls, True))
    site.run()
    assert_whole(site, SHARDS)
    assert len(requests(rehearsal)) == SHARDS


def test_a_staging_bucket_in_another_region(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(calls={"check_buckets": True})
    other = f"{rehearsal.bucket}-abroad"
    rehearsal.client("s3").create_bucket(
        Bucket=other, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    site = make_site(rehearsal, tmp_path, SHARDS, executor={"staging": f"s3://{other}/staging/"})
    with pytest.raises(SubmissionRefused, match="region us-east-1"):
        site.upload()
    assert rehearsal.calls("CreateModelInvocationJob") == 1
    # The command looks at it before it uploads anything at all.
    with pytest.raises(ConfigurationError, match="eu-west-1"):
        site.open().executor.check()
    missing = site.with_executor(staging="s3://no-such-bucket-anywhere/x/")
    with pytest.raises(ConfigurationError, match="no bucket"):
        missing.open().executor.check()


def test_an_unknown_model_is_refused(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse()
    site = make_site(rehearsal, tmp_path, SHARDS, executor={"model_id": "amazon.titan-embed-text-v2:9"})
    with pytest.raises(SubmissionRefused, match="titan-embed-text-v2:9"):
        site.upload()
    assert len(requests(rehearsal)) == 1


def test_a_role_that_cannot_read_the_bucket_fails_jobs_with_words(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(jobs={"role_reads_buckets": False})
    site = make_site(rehearsal, tmp_path, 1)
    pipeline = site.first_round()
    [submission] = site.ledger.submissions(pipeline="texts")
    assert "not authorized" in (submission.message or "")
    rehearsal.change(jobs={"role_reads_buckets": True})
    site.collect(pipeline)
    site.run()
    assert_whole(site, 1)


def requests(rehearsal: Rehearsal) -> list[str]:
    """The request files under staging."""
    return [key for key in rehearsal.objects("staging/") if key.endswith(".jsonl")]
