"""Workers of AWS Batch are forked here; `cli/test_aws_batch.py` starts them as AWS Batch does."""

import pytest

from batch_assets_tests.workers import fork_workers


@pytest.fixture(autouse=True)
def _forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    fork_workers(monkeypatch)
