"""The real command, and the real daemon, as processes of their own before an AWS of localhost."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml

from batch_assets.cli.rehearsed_services import BUCKET, deferred_of, make_resources
from batch_assets.cli.rehearsing import Rehearsal
from batch_assets.components.attributes import COMPONENT_TYPE
from batch_assets.ledger.ledger import Ledger
from batch_assets.rehearsal.books import Books
from batch_assets.rehearsal.faults import Scenario
from batch_assets.rehearsal.job import Job
from batch_assets.rehearsal.server import RehearsalServer
from batch_assets.settings.pipeline import parse_pipeline
from benchmarks.bedrock_service import MODEL

REPOSITORY = Path(__file__).parent.parent
NAME = "docs"
DIMENSIONS = 256
PER_SHARD = 150
POLL_SECONDS = 2.0
COMMAND = (sys.executable, "-c", "from batch_assets.cli import main; main()")
DAEMON = (sys.executable, "-m", "dagster._daemon", "run", "-m", "batch_assets.definitions")


@dataclass(frozen=True)
class Stage:
    """A server, and one pipeline of `shards` × 150 records that are all different."""

    server: RehearsalServer
    rehearsal: Rehearsal
    environment: dict[str, str]
    shards: int

    @property
    def root(self) -> Path:
        return self.rehearsal.output

    @property
    def jobs(self) -> list[Job]:
        """Our own ones."""
        return [job for job in self.server.jobs.all() if not job.foreign]

    @property
    def published(self) -> bool:
        return (self.root / "merged" / "CURRENT").exists()

    def text(self, number: int) -> str:
        return f"record {number} " + " ".join(
            f"word{number * step % 997}" for step in range(1, 3 + number % 20)
        )

    def ledger(self) -> Ledger:
        return Ledger.open(f"sqlite:///{self.rehearsal.home / 'batch_assets' / 'ledger.db'}")

    def calls(self) -> int:
        """How often anyone has called the service."""
        return sum(sum(outcomes.values()) for outcomes in list(self.server.books.calls.values()))

    def start(self, command: tuple[str, ...]) -> "subprocess.Popen[bytes]":
        """Start a process that leads a group of its own, so that it can be killed with all that it starts."""
        with (self.rehearsal.folder / "log.txt").open("ab") as log:
            return subprocess.Popen(
                command,
                env=self.environment,
                cwd=self.rehearsal.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start_command(self) -> "subprocess.Popen[bytes]":
        return self.start((*COMMAND, "run", NAME, "--max-failed", "1"))

    def start_daemon(self) -> "subprocess.Popen[bytes]":
        return self.start(DAEMON)


def kill(process: "subprocess.Popen[bytes]") -> None:
    """`kill -9` of the process and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def staged(
    folder: Path, scenario: Scenario, speed: float, shards: int, *, books: Books | None = None
) -> Iterator[Stage]:
    """A stage in an empty folder; its sensors, if a daemon runs, do all by themselves."""
    server = RehearsalServer(scenario, speed)
    server.books = books or server.books
    with server:
        rehearsal = Rehearsal(folder, NAME)
        for each in (rehearsal.home, rehearsal.defs / NAME):
            each.mkdir(parents=True)
        shutil.copy(REPOSITORY / "dagster.yaml", rehearsal.home)
        environment = rehearsal.environment(server.endpoint) | {"PYTHONPATH": str(REPOSITORY)}
        stage = Stage(server, rehearsal, environment, shards)
        attributes: dict[str, Any] = {
            "source": {"uri": str(folder / "in.jsonl"), "id_column": "id"},
            "model": {"dimensions": DIMENSIONS},
            "executor": {
                "type": "bedrock",
                "region": "us-east-1",
                "role_arn": "arn:aws:iam::123456789012:role/batch",
                "model_id": MODEL,
                "staging": f"s3://{BUCKET}/staging/",
                "poll_seconds": POLL_SECONDS,
                "on_demand_rpm": 6000,
            },
            "shards": {"records": PER_SHARD},
            "output": {"root": str(rehearsal.output)},
            "max_failed_fraction": 1.0,
            "automation": True,
        }
        settings = parse_pipeline(attributes, NAME, "the benchmark")
        attributes["executor"]["queue_url"] = make_resources(server.endpoint, deferred_of(settings))
        content = {"type": COMPONENT_TYPE, "attributes": attributes}
        (rehearsal.defs / NAME / "defs.yaml").write_text(yaml.safe_dump(content))
        with (folder / "in.jsonl").open("wb") as file:
            for number in range(shards * PER_SHARD):
                file.write(orjson.dumps({"id": f"r{number}", "text": stage.text(number)}) + b"\n")
        yield stage
