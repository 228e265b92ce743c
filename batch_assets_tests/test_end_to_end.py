"""The whole of it, as deployed: a real webserver, a real daemon, runs in processes of their own.

Two pipelines share one code location and one ledger. `manual` is driven over GraphQL, as the UI
does it: planned, two scattered stretches of shards backfilled, merged. `automatic` is left to
its sensors, and nobody asks for anything.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from batch_assets.components.attributes import COMPONENT_TYPE
from batch_assets_tests.command import make_home, published, some_records, write_records
from batch_assets_tests.services import started
from batch_assets_tests.waiting import PATIENCE_SECONDS, wait_until

REPOSITORY = Path(__file__).parent.parent
SHARDS, PER_SHARD = 6, 5

LAUNCH_RUN = """
mutation($selector: JobOrPipelineSelector!) {
  launchRun(executionParams: {selector: $selector, mode: "default"}) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } }
}"""
LAUNCH_BACKFILL = """
mutation($assets: [AssetKeyInput!]!, $shards: [String!]!) {
  launchPartitionBackfill(backfillParams: {assetSelection: $assets, partitionNames: $shards}) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } }
}"""
BACKFILL = """
query($id: String!) { partitionBackfillOrError(backfillId: $id) {
  __typename ... on PartitionBackfill { status } } }"""
RUN = "query($id: ID!) { runOrError(runId: $id) { __typename ... on Run { status } } }"
SHOWN = """
query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  partitionStats { numPartitions numMaterialized numFailed }
  assetChecksOrError { ... on AssetChecks { checks {
    name executionForLatestMaterialization { status evaluation { success metadataEntries {
      label ... on FloatMetadataEntry { floatValue } } } } } } } } } }"""


@dataclass(frozen=True)
class Server:
    """A running webserver, asked as the browser asks it."""

    url: str
    processes: list[subprocess.Popen[bytes]]
    logs: list[Path]

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            found = json.loads(answer.read())
        assert "errors" not in found, found["errors"]
        [value] = found["data"].values()
        return value

    def launch(self, *key: str) -> str:
        """Launch a run of one unpartitioned asset; its id."""
        selector = {
            "repositoryName": "__repository__",
            "repositoryLocationName": "batch_assets",
            "jobName": "__ASSET_JOB",
            "assetSelection": [{"path": key}],
        }
        launched = self.ask(LAUNCH_RUN, selector=selector)
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]

    def status_of_run(self, run_id: str) -> str:
        return self.ask(RUN, id=run_id)["status"]

    def wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        def seen() -> bool:
            dead = [process.args for process in self.processes if process.poll() is not None]
            assert not dead, f"{dead} ended:\n{self.told()}"
            return condition()

        wait_until(seen, lambda: f"{what}\n{self.told()}", pause=0.5)

    def told(self) -> str:
        return "\n".join(
            f"== {log.name}\n" + "\n".join(log.read_text().splitlines()[-40:]) for log in self.logs
        )


def declare(defs: Path, folder: Path, name: str, model: Path, **more: object) -> Path:
    """A pipeline of six shards under a name; its output root."""
    write_records(folder / name / "in" / "a.jsonl", some_records(SHARDS * PER_SHARD))
    attributes = {
        "source": {"uri": str(folder / name / "in"), "id_column": "id"},
        "model": {"id": str(model), "dtype": "float32"},
        "shards": {"records": PER_SHARD},
        "output": {"root": str(folder / name / "out")},
        **more,
    }
    (defs / name).mkdir(parents=True)
    (defs / name / "defs.yaml").write_text(yaml.safe_dump({"type": COMPONENT_TYPE, "attributes": attributes}))
    return folder / name / "out"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def serve(folder: Path, defs: Path) -> Iterator[Server]:
    """Webserver and daemon on this repository's workspace.yaml and dagster.yaml."""
    home, port = make_home(folder / "home"), free_port()
    shutil.copy(REPOSITORY / "dagster.yaml", home)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment = kept | {
        "DAGSTER_HOME": str(home), "BATCH_ASSETS_DEFS": str(defs), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2",
    }  # fmt: skip
    logs = [folder / "webserver.log", folder / "daemon.log"]
    web = ["dagster-webserver", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    daemon = ["dagster-daemon", "run", "-w", "workspace.yaml"]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                started(
                    [Path(sys.executable).with_name(command[0]), *command[1:]], REPOSITORY, environment, log
                )
            )
            for command, log in zip((web, daemon), logs, strict=True)
        ]
        server = Server(f"http://127.0.0.1:{port}", processes, logs)
        server.wait_for("the webserver", lambda: answers(server))
        yield server


def answers(server: Server) -> bool:
    try:
        return bool(server.ask("{ version }"))
    except OSError:
        return False


def test_a_backfill_over_graphql_and_a_pipeline_left_to_its_sensors(tmp_path: Path, tiny_model: Path) -> None:
    defs = tmp_path / "defs"
    manual = declare(defs, tmp_path, "manual", tiny_model, merge_when="any")
    automatic = declare(defs, tmp_path, "automatic", tiny_model, automation=True)
    keys = [f"g0001-{number:05d}" for number in range(SHARDS)]
    chosen = [keys[0], keys[1], keys[4]]
    with serve(tmp_path, defs) as server:
        plan = server.launch("manual", "shard_plan")
        server.wait_for("shard_plan", lambda: server.status_of_run(plan) == "SUCCESS")

        names = ("input_shards", "submitted_jobs", "embedding_outputs")
        assets = [{"path": ["manual", name]} for name in names]
        backfill = server.ask(LAUNCH_BACKFILL, assets=assets, shards=chosen)
        assert backfill["__typename"] == "LaunchBackfillSuccess", backfill
        server.wait_for(
            "the backfill",
            lambda: server.ask(BACKFILL, id=backfill["backfillId"])["status"] == "COMPLETED_SUCCESS",
        )
        assert sorted(file.parent.name for file in (manual / "shards").glob("*/shard.json")) == chosen
        shown = server.ask(SHOWN, key={"path": ["manual", "embedding_outputs"]})
        assert shown["partitionStats"] == {"numPartitions": SHARDS, "numMaterialized": 3, "numFailed": 0}

        merge = server.launch("manual", "merged_embeddings")
        server.wait_for("the merge", lambda: server.status_of_run(merge) == "SUCCESS")
        server.wait_for("the sensors' merge", (automatic / "merged" / "CURRENT").exists)

        found = server.ask(SHOWN, key={"path": ["manual", "merged_embeddings"]})
        checks = {
            check["name"]: check["executionForLatestMaterialization"]
            for check in found["assetChecksOrError"]["checks"]
        }
        assert {name: check["status"] for name, check in checks.items()} == dict.fromkeys(
            ("accounting", "parity", "vectors"), "SUCCEEDED"
        )
        [lowest] = [
            entry["floatValue"]
            for entry in checks["parity"]["evaluation"]["metadataEntries"]
            if entry["label"] == "lowest_cosine"
        ]
        assert 0.99999 <= lowest <= 1.0 + 1e-6
    records = [f"record-{number}" for number in range(SHARDS * PER_SHARD)]
    assert published(automatic)["record_id"].to_list() == records
    assert published(manual)["record_id"].to_list() == [
        record for number in (0, 1, 4) for record in records[number * PER_SHARD : (number + 1) * PER_SHARD]
    ]
    markers = [json.loads(file.read_text()) for file in (automatic / "shards").glob("*/shard.json")]
    assert {marker["attempt"] for marker in markers} == {1}, "a shard was computed twice"
