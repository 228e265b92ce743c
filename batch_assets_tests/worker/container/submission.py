"""A planned pipeline of three shards, submitted as an array, for tests of the worker container."""

from pathlib import Path

from batch_assets import paths
from batch_assets.embeddings.marker import ShardMarker, read_marker
from batch_assets.encoders.fingerprint import fingerprint
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan import Shard
from batch_assets.sharding.plan_files import write_plan
from batch_assets.sharding.planner import plan_generation
from batch_assets.storage import Storage, open_storage
from batch_assets.worker.assignment import Assignment, WorkerManifest, write_manifest
from batch_assets_tests.builders import make_light_model
from batch_assets_tests.command import some_records, write_records

RECORDS, PER_SHARD = 60, 25


class Submission:
    """A planned pipeline of three shards, and the manifest of an array of them."""

    def __init__(self, folder: Path) -> None:
        records = some_records(RECORDS)
        records[3]["text"] = " "
        write_records(folder / "in.jsonl", records)
        self.settings = PipelineSettings.model_validate(
            {
                "name": "texts",
                "source": {"uri": str(folder / "in.jsonl"), "id_column": "id"},
                "model": {"id": str(make_light_model(folder / "model")), "trust_remote_code": True},
                "shards": {"records": PER_SHARD},
                "output": {"root": str(folder / "out")},
                "executor": {
                    "type": "aws_batch",
                    "job_queue": "queue",
                    "image": "worker",
                    "usd_per_hour": 1.0,
                },
            }
        )
        self.root: Storage = open_storage(self.settings.output.root)
        planned = plan_generation(self.settings, self.root)
        write_plan(self.root, planned.summary, planned.shards)
        self.shards: list[Shard] = list(planned.shards)
        self.fingerprint = fingerprint(self.settings)

    def manifest(
        self, fence: int = 1, outdated_fence: int = -1, fingerprint: str = "", deployment: str | None = None
    ) -> str:
        assignments = [Assignment(shard.key, fence, 1, outdated_fence) for shard in self.shards]
        manifest = WorkerManifest(
            "array", fingerprint or self.fingerprint, "aws_batch", self.settings.model_dump(mode="json"),
            assignments, usd_per_hour=1.0, deployment=deployment,
        )  # fmt: skip
        return write_manifest(self.root, paths.worker_manifest("array"), manifest)

    def marker(self, place: int = 0) -> ShardMarker | None:
        found = read_marker(self.root, self.shards[place].key)
        return None if found is None else found[0]

    def files(self, place: int = 0) -> dict[str, bytes]:
        """What lies in the shard's folder, but for the notes of its attempts."""
        infos = self.root.list(paths.shard_folder(self.shards[place].key))
        return {info.path: self.root.read(info.path) for info in infos if "/attempts/" not in info.path}
