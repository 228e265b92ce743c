"""Single requests to the real `batch-assets serve`, computed by jobs of a rehearsed SageMaker; the server is killed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from batch_assets.rehearsal.faults import STORMY
from batch_assets.rehearsal.vectors import embed
from batch_assets_tests.command import make_machine
from batch_assets_tests.rehearsed import DIMENSIONS, Rehearsal
from batch_assets_tests.server.test_serve import TOKEN, Client, serving
from batch_assets_tests.waiting import wait_until

REQUESTS = 36


def pipeline(folder: Path, rehearsal: Rehearsal) -> Path:
    attributes = {
        "source": {"requests": {"seal_records": 10, "seal_seconds": 0.5}, "text_column": "question"},
        "executor": {
            "type": "sagemaker",
            "model_name": "my-model",
            "instance_type": "ml.g5.xlarge",
            "staging": f"s3://{rehearsal.bucket}/staging/",
            "usd_per_hour": 1.0,
            "queue_url": rehearsal.queue(),
            "poll_seconds": 0.3,
            "max_attempts": 20,
        },
        "output": {"root": f"{folder}/out"},
    }
    (folder / "defs/asks").mkdir(parents=True)
    file = folder / "defs/asks/defs.yaml"
    file.write_text(
        yaml.safe_dump({"type": "batch_assets.components.EmbeddingPipeline", "attributes": attributes})
    )
    return folder / "defs"


def post(client: Client, number: int) -> str:
    """Post a request with a key of its own; its id."""
    text = {"Content-Type": "text/plain"}
    status, told = client.ask(
        "POST", "/job", f"key {number}", body=f"question {number}".encode(), headers=text
    )
    assert status in (200, 202), told
    return str(told["job_id"])


def test_every_request_has_its_result_once_in_a_storm(
    rehearse: Callable[..., Rehearsal], tmp_path: Path
) -> None:
    storm: dict[str, Any] = {part: STORMY[part] for part in ("calls", "events", "transform")}
    storm["calls"] = storm["calls"] | {"per_second": {}}
    storm["transform"] = storm["transform"] | {"absent_objects": 0.0, "width": DIMENSIONS}
    storm["transform"]["timing"] = {"running": (500, 2000)}
    rehearsal = rehearse(**storm)
    defs = pipeline(tmp_path, rehearsal)
    machine = make_machine(tmp_path / "home", **rehearsal.environment, BATCH_ASSETS_TOKEN=TOKEN)
    with serving(machine, defs) as (client, kill):
        ids = [post(client, number) for number in range(REQUESTS // 2)]
        wait_until(lambda: rehearsal.jobs, "no job is submitted")
        kill()
    with serving(machine, defs) as (client, _):
        assert [post(client, number) for number in range(REQUESTS)][: len(ids)] == ids
        ids = [post(client, number) for number in range(REQUESTS)]
        jobs: dict[str, dict[str, Any]] = {}

        def ended() -> bool:
            for job_id in ids:
                if jobs.get(job_id, {}).get("status") not in ("completed", "failed"):
                    jobs[job_id] = client.ask("GET", f"/job/{job_id}")[1]
            return all(job["status"] in ("completed", "failed") for job in jobs.values())

        wait_until(ended, lambda: jobs)
    assert len(set(ids)) == REQUESTS
    wanted = embed([f"question {number}" for number in range(REQUESTS)], DIMENSIONS)
    for number, job_id in enumerate(ids):
        assert jobs[job_id]["error"] is None
        assert np.allclose(jobs[job_id]["result"]["embedding"], wanted[number], atol=1e-6)
    assert rehearsal.paid_twice() == 0
    told = machine.run("status", "asks", "--defs", defs)
    assert f"accepted={REQUESTS} completed={REQUESTS} failed=0" in told.stdout, told.stdout
