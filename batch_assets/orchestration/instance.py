"""The Dagster instance of the home: where runs of the command are recorded, for the UI to show."""

import contextlib
import logging
from collections.abc import Iterator

import dagster as dg
from dagster._core.instance import InstanceRef

from batch_assets.home import dagster_home, project_root
from batch_assets.storage.locks import locked

OVERRIDES = {
    "telemetry": {"enabled": False},
    # What the command prints belongs on the terminal: Dagster's capture would take it away.
    "compute_logs": {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    },
}
NO_LOCKS = (
    "set DAGSTER_HOME to a folder on a local disk; where several machines work together, name a ledger on PostgreSQL "
    "in BATCH_ASSETS_LEDGER_URL"
)


@contextlib.contextmanager
def open_instance() -> Iterator[dg.DagsterInstance]:
    """The instance under the Dagster home, which need not hold a dagster.yaml."""
    home = dagster_home()
    home.mkdir(parents=True, exist_ok=True)
    project = project_root(home.parent)
    # A project's own .dagster uses the project's dagster.yaml, as `make ui` does.
    if project is not None and home == project / ".dagster" and not (home / "dagster.yaml").exists():
        with contextlib.suppress(FileExistsError):
            (home / "dagster.yaml").symlink_to("../dagster.yaml")
    # A home without a dagster.yaml is fine; Dagster would warn of it each time.
    logging.getLogger("dagster").setLevel(logging.ERROR)
    # Dagster makes its databases here, and two processes that do so at once trip over each other.
    with locked(home / "dagster.yaml", NO_LOCKS):
        opened = dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home), overrides=OVERRIDES))
    with opened as instance:
        yield instance
