"""examples/in_your_project, as its owner has it: the package from a wheel, and Dagster's own commands and daemon."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from batch_assets_tests.builders import make_light_model
from batch_assets_tests.command import published
from batch_assets_tests.examples.guests import Guest, make_guest
from batch_assets_tests.module_imports import REPOSITORY
from batch_assets_tests.services import started
from batch_assets_tests.waiting import PATIENCE_SECONDS, wait_until

EXAMPLE = REPOSITORY / "examples" / "in_your_project"
COMPONENT = "batch_assets.components.EmbeddingPipeline"
CODE = "in_your_project.definitions"
BACKFILL = """
import time

import dagster as dg
from dagster._core.execution.backfill import PartitionBackfill
from in_your_project.definitions import defs

names = ("input_shards", "submitted_jobs", "embedding_outputs")
assets = [dg.AssetKey(["article_vectors", name]) for name in names]
graph = defs().resolve_asset_graph()
with dg.DagsterInstance.get() as instance:
    shards = instance.get_dynamic_partitions("article_vectors_shards")
    asked = ("again", graph, shards, assets, time.time(), {}, instance, False, None, None, None)
    instance.add_backfill(PartitionBackfill.from_asset_partitions(*asked))
"""
"""What the button in the UI asks for: all shards, in all three assets."""


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    """The example with a model that loads in no time: it is a process for each step that has to."""
    project = tmp_path / "project"
    shutil.copytree(
        EXAMPLE, project, ignore=shutil.ignore_patterns("data", "embeddings", ".*", "__pycache__")
    )
    make_light_model(project / "models" / "light")
    for file in project.rglob("defs.yaml"):
        text = file.read_text()
        changed = text.replace(
            "{id: sentence-transformers/all-MiniLM-L6-v2}", "{id: models/light, trust_remote_code: true}"
        )
        assert changed != text
        file.write_text(changed)
    return make_guest(tmp_path, project)


@contextmanager
def daemon(guest: Guest) -> Iterator[Callable[[str, Callable[[], object]], None]]:
    """Dagster's daemon on the project; what is yielded waits for a state, for as long as the daemon runs."""
    command, log = [guest.bin / "dagster-daemon", "run", "-m", CODE], guest.home / "daemon.log"
    with started(command, guest.project, guest.environment, log) as process:

        def wait_for(what: str, condition: Callable[[], object]) -> None:
            def seen() -> object:
                assert process.poll() is None, f"the daemon ended:\n{log.read_text()}"
                return condition()

            # In each of them are several runs, of a process for each step.
            wait_until(seen, lambda: f"{what}\n{log.read_text()[-8000:]}", 0.5, 3 * PATIENCE_SECONDS)

        yield wait_for


def has_shards(root: Path, generation: str) -> bool:
    """Whether a shard of the generation is committed."""
    return any((root / "shards").glob(f"{generation}-*/shard.json"))


def lines_of(inbox: Path) -> list[str]:
    return [line for file in sorted(inbox.glob("*.txt")) for line in file.read_text().splitlines()]


def statuses(guest: Guest) -> set[str]:
    """Those of all runs that there are."""
    with dg.DagsterInstance.from_config(str(guest.home)) as instance:
        return {run.status.value for run in instance.get_runs()}


def backfill_status(guest: Guest) -> str:
    with dg.DagsterInstance.from_config(str(guest.home)) as instance:
        found = instance.get_backfill("again")
    return found.status.value if found is not None else "none"


@pytest.mark.timeout(3600)  # some thirty processes that import Dagster
def test_a_project_has_its_embeddings_and_keeps_them_up_to_date(guest: Guest, tmp_path: Path) -> None:
    where = guest.run("python", "-c", "import batch_assets; print(batch_assets.__file__)")
    assert where.startswith(str(tmp_path / "environment"))
    assert COMPONENT in guest.run("dg", "list", "components")
    guest.run("dg", "scaffold", "defs", COMPONENT, "my-notes", "--source", "data/notes/", "--id-column", "id")
    assert "validated successfully" in guest.run("dg", "check", "yaml")
    assert "loaded successfully" in guest.run("dg", "check", "defs")

    inbox, root = guest.project / "inbox", guest.project / "embeddings" / "articles"
    guest.run("dg", "launch", "--assets", "articles,article_vectors/shard_plan")
    with daemon(guest) as wait_for:
        wait_for("the shards", lambda: has_shards(root, "g0001"))
        wait_for("the merge", (root / "merged" / "CURRENT").exists)
        assert published(root)["text"].to_list() == lines_of(inbox)
        guest.run("python", "-c", BACKFILL)
        wait_for("the backfill", lambda: backfill_status(guest) == "COMPLETED_SUCCESS")

        gardening = inbox / "gardening.txt"
        gardening.write_text(gardening.read_text().replace("Tomatoes ripen late", "Peppers do not ripen"))
        (inbox / "weather.txt").write_text("Fog lifts before noon.\nHail falls in summer.\n")
        first = (root / "merged" / "CURRENT").read_text()
        guest.run("dagster", "asset", "materialize", "-m", CODE, "--select", "articles,neighbours")
        wait_for("the plan", (root / "plan" / "g0002.json").exists)
        wait_for("the new shards", lambda: has_shards(root, "g0002"))
        wait_for("the next merge", lambda: (root / "merged" / "CURRENT").read_text() != first)
        wait_for("the end of all runs", lambda: not statuses(guest) & {"STARTED", "STARTING", "QUEUED"})
    texts = published(root)["text"].to_list()
    assert sorted(texts) == sorted(lines_of(inbox))
    assert "Peppers do not ripen where nights are cold." in texts
    # Each run of many processes was let go to its end: by `job_completion`, too, which looks every five seconds.
    assert statuses(guest) == {"SUCCESS"}
    nearest = json.loads((guest.project / "data" / "neighbours.json").read_text())
    assert nearest.keys() == {f"gardening-{line}" for line in range(1, 6)} | {
        f"astronomy-{line}" for line in range(1, 4)
    }
