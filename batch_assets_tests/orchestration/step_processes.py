"""A job whose every step Dagster starts a process for; those processes import it from here."""

import os
from pathlib import Path

import dagster as dg

from batch_assets.ledger.ledger import Ledger
from batch_assets.orchestration.mending import report_dead_runs
from batch_assets.orchestration.pipeline import build_pipeline_definitions
from batch_assets_tests.fakes import FakeHost
from batch_assets_tests.orchestration.deployments import make_settings
from batch_assets_tests.waiting import wait_until

JOB = "plan_and_mend"
REPORTED = "reported"


def ledger_in(folder: str) -> Ledger:
    return Ledger.open(f"sqlite:///{folder}/ledger.db")


def build_job(folder: str) -> dg.JobDefinition:
    """`shard_plan`, and behind it an asset that has dead runs reported once the plan's process is gone."""

    @dg.asset(deps=[dg.AssetKey(["texts", "shard_plan"])])
    def mended(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        run_id = context.run.run_id
        pids = [
            int(str(event.dagster_event.event_specific_data.metadata["pid"].value))  # type: ignore[union-attr]
            for event in context.instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_WORKER_STARTED)
            if event.step_key == "texts__shard_plan"
        ]
        [pid] = pids
        assert pid != os.getpid()
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the process of shard_plan")
        reported = report_dead_runs(context.instance, ledger_in(folder))
        return dg.MaterializeResult(metadata={REPORTED: len(reported)})

    resources = {
        "batch_assets_ledger": dg.ResourceDefinition(lambda _: ledger_in(folder)),
        "batch_assets_gpu": dg.ResourceDefinition(lambda _: FakeHost()),
        "batch_assets_notifications": dg.ResourceDefinition.none_resource(),
    }
    job = dg.define_asset_job(JOB, ["texts/shard_plan", "mended"])
    own = dg.Definitions([mended], jobs=[job], resources=resources, executor=dg.multiprocess_executor)
    definitions = dg.Definitions.merge(own, build_pipeline_definitions(make_settings(Path(folder))))
    return definitions.resolve_job_def(JOB)
