"""The command with jobs at a rehearsed AWS: what it prints, its exit codes, and kill -9 at any moment."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from batch_assets.ledger.ledger import Ledger
from batch_assets.rehearsal.faults import STORMY
from batch_assets_tests.command import (
    Machine,
    accounting_of,
    make_machine,
    published,
    some_records,
    write_records,
)
from batch_assets_tests.rehearsed import DIMENSIONS, QUICK, ROLE, TITAN, Rehearsal, kill_after_calls
from batch_assets_tests.sites import assert_every_record_once

Rehearse = Callable[..., Rehearsal]
RECORDS, PER_SHARD = 90, 15


@pytest.fixture
def machine(tmp_path: Path) -> Callable[[Rehearsal], Machine]:
    """A deployment that reaches a rehearsal."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    return lambda rehearsal: make_machine(
        tmp_path / "home", **rehearsal.environment, BATCH_ASSETS_LEDGER_URL=url
    )


def declare(folder: Path, rehearsal: Rehearsal, **executor: Any) -> Path:
    """The file of a pipeline of six shards."""
    if not (folder / "in.jsonl").exists():
        write_records(folder / "in.jsonl", some_records(RECORDS))
    attributes = {
        "name": "texts",
        "source": {"uri": f"{folder}/in.jsonl", "id_column": "id"},
        "model": {"dimensions": DIMENSIONS},
        "executor": {
            "type": "bedrock",
            "role_arn": ROLE,
            "model_id": TITAN,
            "staging": f"s3://{rehearsal.bucket}/staging/",
            "poll_seconds": 0.2,
            **executor,
        },
        "shards": {"records": PER_SHARD},
        "output": {"root": f"{folder}/out"},
    }
    file = folder / "texts.yaml"
    file.write_text(
        yaml.safe_dump({"type": "batch_assets.components.EmbeddingPipeline", "attributes": attributes})
    )
    return file


def test_a_budget_from_the_estimate_to_the_end(
    rehearse: Rehearse, tmp_path: Path, machine: Callable[[Rehearsal], Machine]
) -> None:
    rehearsal = rehearse()
    here = machine(rehearsal)
    planned = here.run("plan", "-f", declare(tmp_path, rehearsal), "--json", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    estimate = json.loads(planned.stdout)
    assert 0 < estimate["usd"] < estimate["usd_on_demand"]
    assert not (tmp_path / "out").exists()
    # What is reserved for a job is several times what it costs: this suffices for some.
    poor = here.run("run", "-f", declare(tmp_path, rehearsal, budget_usd=estimate["usd"]))
    assert poor.returncode == 4, poor.stderr
    assert "budget reached" in poor.stderr and "raise budget_usd" in poor.stderr
    planned_records, embedded, rejected, failed = accounting_of(poor)
    assert (planned_records, rejected, failed) == (RECORDS, 0, 0)
    assert 0 < embedded < RECORDS
    assert not (tmp_path / "out" / "merged" / "CURRENT").exists()
    told = here.run("status", tmp_path / "out", "--json")
    status = json.loads(told.stdout)
    assert 0 < status["cost_usd"] < status["expected_usd"] == pytest.approx(estimate["usd"], rel=0.3)
    assert status["slots"] == {"used": 0, "limit": 4}
    assert status["shards"]["collected"] == embedded / PER_SHARD
    rich = here.run("run", "-f", declare(tmp_path, rehearsal, budget_usd=1.0))
    assert rich.returncode == 0, rich.stderr
    assert accounting_of(rich) == (RECORDS, RECORDS, 0, 0)
    assert_every_record_once(published(tmp_path / "out"), some_records(RECORDS))
    assert rehearsal.paid_twice() == 0


def test_a_refusal_is_told_in_words(
    rehearse: Rehearse, tmp_path: Path, machine: Callable[[Rehearsal], Machine]
) -> None:
    rehearsal = rehearse(calls={"entitled": False})
    result = machine(rehearsal).run("run", "-f", declare(tmp_path, rehearsal))
    assert result.returncode == 1
    assert "support case" in result.stderr
    assert "Traceback" not in result.stderr
    assert len([key for key in rehearsal.objects("staging/") if key.endswith(".jsonl")]) == 1


def test_jobs_that_fail_as_a_whole_end_the_run_until_retry(
    rehearse: Rehearse, tmp_path: Path, machine: Callable[[Rehearsal], Machine]
) -> None:
    rehearsal = rehearse(records={"forbidden": 1})
    here, file = machine(rehearsal), declare(tmp_path, rehearsal)
    for _ in range(2):  # the same command again changes nothing
        result = here.run("run", "-f", file)
        assert result.returncode == 1
        assert "error: You do not have access to the model" in result.stderr
        assert "`batch-assets retry texts`" in result.stderr and "Traceback" not in result.stderr
    assert "You do not have access" in here.run("status", "texts").stdout
    rehearsal.change(records={"forbidden": 0})
    assert "one submission at first" in here.run("retry", "texts").stdout
    result = here.run("run", "-f", file)
    assert result.returncode == 0, result.stderr
    assert accounting_of(result) == (RECORDS, RECORDS, 0, 0)


def test_killed_in_a_storm_again_and_again(
    rehearse: Rehearse, tmp_path: Path, machine: Callable[[Rehearsal], Machine]
) -> None:
    """All faults on, kill -9 at random moments: nothing is lost, doubled, orphaned or paid for twice by us."""
    # What a service never brings costs a minute's patience each time, and what it refuses is no fault of ours.
    # A day takes 12 real seconds: on a slow machine a job needs some of them before it can begin.
    calmer: dict[str, Any] = {
        "quotas": {"min_records": 5, "concurrent_jobs": 5},
        "timing": QUICK["timing"] | {"running": (200, 2000), "hour": 1000},
        "records": {"refused": 0.0, "forbidden": 0.0},
        "output": {"absent": 0.0, "absent_manifest": 0.0, "late_seconds": (60, 600)},
        "calls": {"lost_responses": 0.1},
        # At this speed others would start several jobs a second, and their events fill the queue.
        "tenants": {"jobs": {}},
    }
    storm = {part: STORMY[part] | calmer.get(part, {}) for part in STORMY if part != "seed"}
    rehearsal = rehearse(**storm)
    here = machine(rehearsal)
    queue = rehearsal.queue()
    file = declare(tmp_path, rehearsal, max_attempts=20, queue_url=queue)
    chance = random.Random(11)
    kills = 3
    for _ in range(kills):
        process = here.start("run", "-f", file)
        kill_after_calls(process, rehearsal, chance.randint(1, 60))
    result = here.run("run", "-f", file)
    assert result.returncode == 0, result.stderr
    assert accounting_of(result) == (RECORDS, RECORDS, 0, 0)
    assert_every_record_once(published(tmp_path / "out"), some_records(RECORDS))
    # Calls of single records that were under way when the process died are paid for and lost.
    calls_lost = kills * 4
    assert rehearsal.paid_twice() <= calls_lost
    assert not any(job.active for job in rehearsal.jobs)
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    known = {row.name for row in ledger.submissions(pipeline="texts")}
    assert {job.name for job in rehearsal.jobs} == known, "a job that nobody knows of"
    assert ledger.money("texts").held_usd == 0
