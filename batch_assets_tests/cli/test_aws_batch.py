"""The command with workers at a rehearsed AWS Batch: killed again and again in a storm, and every record once."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from batch_assets.ledger.ledger import Ledger
from batch_assets.rehearsal.faults import STORMY
from batch_assets_tests.command import accounting_of, make_machine, some_records
from batch_assets_tests.rehearsed import Rehearsal, kill_after_calls
from batch_assets_tests.sites import PER_SHARD
from batch_assets_tests.waiting import wait_until
from batch_assets_tests.workers import assert_all_published, make_worker_site

SHARDS = 5


def test_killed_in_a_storm_again_and_again(rehearse: Callable[..., Rehearsal], tmp_path: Path) -> None:
    """Lost answers, doubled workers, spot machines taken away, lost events, kill -9 of the run: nothing is lost."""
    storm: dict[str, Any] = {part: STORMY[part] for part in ("calls", "events", "batch")}
    storm["calls"] = storm["calls"] | {"lost_responses": 0.3, "per_second": {}}
    storm["batch"] = storm["batch"] | {
        "timing": {"running": (500, 1500)},
        "hangs": 0.0,
        "killed_after": (0.1, 1.0),
    }
    rehearsal = rehearse(**storm)
    executor = {"queue_url": rehearsal.queue(), "poll_seconds": 0.3, "max_attempts": 10, "usd_per_hour": 1.0}
    site = make_worker_site(rehearsal, tmp_path, shards=SHARDS, executor=executor)
    attributes = site.settings.model_dump(mode="json", exclude_none=True)
    file = tmp_path / "texts.yaml"
    file.write_text(
        yaml.safe_dump({"type": "batch_assets.components.EmbeddingPipeline", "attributes": attributes})
    )
    machine = make_machine(
        tmp_path / "home", **rehearsal.environment, BATCH_ASSETS_LEDGER_URL=f"sqlite:///{tmp_path}/ledger.db"
    )
    chance = random.Random(7)
    for _ in range(2):
        process = machine.start("run", "-f", file)
        process.wait_until(lambda: site_has_jobs(rehearsal), "no job is submitted")
        kill_after_calls(process, rehearsal, chance.randint(1, 30))
    result = machine.run("run", "-f", file)
    assert result.returncode == 0, result.stderr
    assert accounting_of(result) == (SHARDS * PER_SHARD, SHARDS * PER_SHARD, 0, 0)
    verified = machine.run("verify", site.settings.output.root)
    assert verified.returncode == 0, verified.stderr
    planned = json.loads(machine.run("plan", "-f", file, "--dry-run", "--json").stdout)
    assert planned["usd"] > 0, "told by what the shards have cost"
    later = make_worker_site(rehearsal, tmp_path, shards=SHARDS, executor=executor)
    later.ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db", clock=later.clock)
    wait_for_the_end(rehearsal)
    assert_all_published(later, some_records(SHARDS * PER_SHARD))


def site_has_jobs(rehearsal: Rehearsal) -> bool:
    return bool(rehearsal.server.batch_jobs.all())


def wait_for_the_end(rehearsal: Rehearsal) -> None:
    """A job that was started twice, since its answer was lost, may go on for a while; it changes nothing."""
    jobs = rehearsal.server.batch_jobs.all
    wait_until(lambda: {job.status for job in jobs()} <= {"SUCCEEDED", "FAILED"}, jobs)
