"""A whole deployment in this process: pipelines, ledger, Dagster instance and a fake machine."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg

from batch_assets.executors.aws_batch.account import AwsBatchAccount
from batch_assets.executors.bedrock.account import BedrockAccount
from batch_assets.executors.sagemaker.account import SageMakerAccount
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State
from batch_assets.notifications.base import Notifier
from batch_assets.orchestration.partitions import range_tags
from batch_assets.orchestration.pipeline import build_pipeline_definitions
from batch_assets.orchestration.sensors.job_completion import build_job_completion
from batch_assets.orchestration.sensors.merge_ready import build_merge_ready
from batch_assets.orchestration.sensors.new_input import build_new_input
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline
from batch_assets_tests.command import some_records, write_records
from batch_assets_tests.fakes import FakeHost

SHARD_ASSETS = ["input_shards", "submitted_jobs", "embedding_outputs"]
PER_SHARD = 4


def make_settings(folder: Path, name: str = "texts", **fields: Any) -> PipelineSettings:
    """A pipeline that reads `folder`/in and writes `folder`/out, four records a shard."""
    values = {
        "source": {"uri": f"{folder}/in", "id_column": "id"},
        "shards": {"records": PER_SHARD},
        "output": {"root": f"{folder}/out"},
        **fields,
    }
    return parse_pipeline(values, name, "a test")


def write_shards(folder: Path, count: int, name: str = "a") -> None:
    """Input for `count` shards, in a file of its own."""
    write_records(folder / "in" / f"{name}.jsonl", some_records(count * PER_SHARD))


@dataclass
class Deployment:
    """What the UI and the daemon would work with. Runs are made here, in this process."""

    pipelines: Sequence[PipelineSettings]
    ledger: Ledger
    instance: dg.DagsterInstance
    host: FakeHost
    bedrock: BedrockAccount = field(default_factory=BedrockAccount)
    notifiers: list[Notifier] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.pipelines[0].name

    @property
    def root(self) -> Path:
        return Path(self.pipelines[0].output.root)

    @cached_property
    def definitions(self) -> dg.Definitions:
        shared = dg.Definitions(
            resources={
                "batch_assets_ledger": self.ledger,
                "batch_assets_gpu": self.host,
                "batch_assets_bedrock": self.bedrock,
                "batch_assets_sagemaker": SageMakerAccount(),
                "batch_assets_aws_batch": AwsBatchAccount(),
                "batch_assets_notifications": self.notifiers,
            },
            sensors=[build_new_input(), build_job_completion(), build_merge_ready()],
            executor=dg.in_process_executor,
        )
        return dg.Definitions.merge(shared, *map(build_pipeline_definitions, self.pipelines))

    def materialize(
        self, *names: str, shards: tuple[str, str] | None = None, tags: Mapping[str, str] | None = None
    ) -> dg.ExecuteInProcessResult:
        """One run of the first pipeline's assets `names`, over the shards from the first to the last."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey([self.name, name]) for name in names],
            tags={**(range_tags(*shards) if shards else {}), **(tags or {})},
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )

    def plan(self) -> list[str]:
        """Materialize shard_plan; all partition keys."""
        assert self.materialize("shard_plan").success
        return self.keys

    @property
    def keys(self) -> list[str]:
        return list(self.instance.get_dynamic_partitions(f"{self.name}_shards"))

    def shown(self, asset: str = "embedding_outputs") -> dict[str, str]:
        """Partition → MATERIALIZED or FAILED, as the UI shows it; missing ones are left out."""
        key = dg.AssetKey([self.name, asset])
        statuses = self.instance.get_status_by_partition(
            key, self.keys, dg.DynamicPartitionsDefinition(name=f"{self.name}_shards")
        )
        return {
            partition: status.value for partition, status in (statuses or {}).items() if status is not None
        }

    def metadata_of(self, asset: str, partition: str | None = None) -> dict[str, Any]:
        """The metadata of the newest materialization."""
        key = dg.AssetKey([self.name, asset])
        wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition] if partition else None)
        [record] = self.instance.fetch_materializations(wanted, limit=1).records
        assert record.asset_materialization is not None
        return {name: value.value for name, value in record.asset_materialization.metadata.items()}

    def states(self) -> dict[str, State]:
        return {row.key: row.state for row in self.ledger.shards(self.name)}

    def tick(self, sensor: str, cursor: str | None = None) -> dg.SensorResult:
        """Evaluate a sensor as the daemon would; nothing that it asks for is launched."""
        resources = {"batch_assets_ledger": self.ledger}
        if sensor == "job_completion":
            services = {
                "batch_assets_bedrock": self.bedrock,
                "batch_assets_sagemaker": SageMakerAccount(),
                "batch_assets_aws_batch": AwsBatchAccount(),
            }
            resources |= {**services, "batch_assets_notifications": self.notifiers}
        definitions = self.definitions
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=cursor,
            resources=resources,
            definitions=definitions,
            sensor_name=sensor,
        ) as context:
            found = definitions.resolve_sensor_def(sensor)(context)
        if isinstance(found, dg.SkipReason):
            return dg.SensorResult(skip_reason=found)
        assert isinstance(found, dg.SensorResult)
        return found


@contextmanager
def deploy(folder: Path, *pipelines: PipelineSettings) -> Iterator[Deployment]:
    """A deployment whose ledger lies in `folder` and whose Dagster instance is in memory."""
    ledger = Ledger.open(f"sqlite:///{folder}/ledger.db")
    with dg.DagsterInstance.ephemeral() as instance:
        yield Deployment(pipelines or [make_settings(folder)], ledger, instance, FakeHost())
    ledger.dispose()


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """The sentence that the run failed with."""
    for event in result.all_events:
        if event.is_step_failure:
            failure = event.step_failure_data.user_failure_data
            assert failure is not None, event.step_failure_data.error_display_string
            return failure.description or ""
    raise AssertionError("the run did not fail")
