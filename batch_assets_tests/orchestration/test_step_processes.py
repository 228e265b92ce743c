"""Runs whose executor starts a process for each step: the end of one of them is not the run's."""

from pathlib import Path

import dagster as dg

from batch_assets_tests.orchestration import step_processes
from batch_assets_tests.orchestration.deployments import write_shards


def test_a_run_whose_steps_process_has_ended_is_not_reported_dead(tmp_path: Path) -> None:
    write_shards(tmp_path, 1)
    job = dg.build_reconstructable_job(
        step_processes.__name__, step_processes.build_job.__name__, reconstructable_args=(str(tmp_path),)
    )
    with (
        dg.DagsterInstance.local_temp(str(tmp_path)) as instance,
        dg.execute_job(job, instance) as result,
    ):
        assert result.success
        [shown] = [
            event.asset_materialization
            for event in instance.fetch_materializations(dg.AssetKey("mended"), limit=1).records
        ]
        assert shown is not None
        assert shown.metadata[step_processes.REPORTED].value == 0
        run = instance.get_run_by_id(result.run_id)
        assert run is not None
        assert run.status is dg.DagsterRunStatus.SUCCESS
