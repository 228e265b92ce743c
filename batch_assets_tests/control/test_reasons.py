"""Where nothing is published, or much is bad: the reason that most records have, an example, and what helps."""

import json
from pathlib import Path

import pytest

from batch_assets.embeddings.failure_reasons import most_common_reason
from batch_assets.errors import AllRejected
from batch_assets.notifications.events import publishing_blocked
from batch_assets.storage import open_storage
from batch_assets_tests.control.builders import PER_SHARD, make_settings, open_ledger, run
from batch_assets_tests.fakes import FakeHost


def test_where_all_are_rejected_the_reason_and_an_example_are_told(tmp_path: Path) -> None:
    records = [{"id": 1, "text": "hello"}, {"id": 2, "text": "there"}]
    (tmp_path / "in.jsonl").write_text("\n".join(["[", *(f" {json.dumps(one)}," for one in records), "]"]))
    settings, ledger = make_settings(tmp_path), open_ledger(tmp_path)
    with pytest.raises(AllRejected) as caught:
        run(settings, ledger, FakeHost())
    told = str(caught.value)
    assert "none of 4 records was embedded (4 rejected, 0 failed: " in told
    assert "all for not_json, such as in.jsonl, row 0: " in told
    assert "Rejected records are not tried again" in told and "`batch-assets plan texts --replace`" in told
    assert "retry" not in told


def test_the_most_common_of_several_reasons(tmp_path: Path) -> None:
    lines = ['{"id": 0, "text": "hello"}', *['{"id": 1, "text": " "}'] * (2 * PER_SHARD), "no json"]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    settings, ledger = make_settings(tmp_path), open_ledger(tmp_path)
    run(settings, ledger, FakeHost())
    storage = open_storage(f"{tmp_path}/out")
    [failures] = [info.path for info in storage.list("merged/") if info.path.endswith("failures.parquet")]
    reason = most_common_reason(storage, [failures])
    assert reason is not None
    assert reason.startswith(
        f"{2 * PER_SHARD} of {2 * PER_SHARD + 1} for empty_text, such as in.jsonl, row 1: "
    )


def test_the_next_step_of_a_notification_fits() -> None:
    rejected = publishing_blocked("texts", 1, "none was embedded", rejected=True)
    assert rejected.command == "batch-assets plan texts --replace && batch-assets run texts"
    assert publishing_blocked("texts", 1, "30 of 100 failed").command.startswith("batch-assets retry texts")
