"""The command with jobs at a rehearsed SageMaker: killed again and again in a storm, and every record once."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from batch_assets.rehearsal.faults import STORMY
from batch_assets_tests.command import accounting_of, make_machine, published, some_records
from batch_assets_tests.rehearsed import Rehearsal, kill_after_calls
from batch_assets_tests.sites import PER_SHARD, assert_every_record_once
from batch_assets_tests.transforming import make_transform_site

SHARDS = 6


def test_killed_in_a_storm_again_and_again(rehearse: Callable[..., Rehearsal], tmp_path: Path) -> None:
    """Lost answers, doubled and lost events, failed objects and jobs, kill -9 of the run: nothing is lost."""
    storm: dict[str, Any] = {part: STORMY[part] for part in ("calls", "events", "transform")}
    storm["calls"] = storm["calls"] | {"lost_responses": 0.2, "per_second": {}}
    # What never comes costs a minute's patience each time.
    storm["transform"] = storm["transform"] | {"absent_objects": 0.0, "timing": {"running": (500, 2000)}}
    rehearsal = rehearse(**storm)
    executor = {
        "queue_url": rehearsal.queue(),
        "poll_seconds": 0.3,
        "max_attempts": 20,
        "objects_per_shard": 3,
    }
    site = make_transform_site(rehearsal, tmp_path, SHARDS, executor=executor)
    attributes = site.settings.model_dump(mode="json", exclude_none=True)
    file = tmp_path / "texts.yaml"
    file.write_text(
        yaml.safe_dump({"type": "batch_assets.components.EmbeddingPipeline", "attributes": attributes})
    )
    machine = make_machine(
        tmp_path / "home", **rehearsal.environment, BATCH_ASSETS_LEDGER_URL=f"sqlite:///{tmp_path}/ledger.db"
    )
    chance = random.Random(3)
    for _ in range(2):
        process = machine.start("run", "-f", file)
        process.wait_until(lambda: rehearsal.jobs, "no job is submitted")
        kill_after_calls(process, rehearsal, chance.randint(1, 30))
    result = machine.run("run", "-f", file)
    assert result.returncode == 0, result.stderr
    assert accounting_of(result) == (SHARDS * PER_SHARD, SHARDS * PER_SHARD, 0, 0)
    assert_every_record_once(published(tmp_path / "out"), some_records(SHARDS * PER_SHARD))
    assert rehearsal.paid_twice() == 0
    assert not any(job.active for job in rehearsal.jobs)
