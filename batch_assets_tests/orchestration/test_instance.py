"""A new home opened by several processes at once."""

import os
from pathlib import Path

import pytest

from batch_assets.orchestration.instance import open_instance


def test_several_processes_may_make_a_home_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    children: list[int] = []
    for _ in range(4):
        child = os.fork()
        if not child:
            try:
                with open_instance() as instance:
                    instance.get_runs_count()
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0, 0]
