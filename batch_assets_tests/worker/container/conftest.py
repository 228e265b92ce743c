"""A submission, and the container's command at one place of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from batch_assets.worker.__main__ import main
from batch_assets_tests.worker.container.submission import Submission


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
