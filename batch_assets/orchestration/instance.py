"""The Dagster instance of the home: where runs of the command are recorded, for the UI to show."""

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
from dagster._core.instance import InstanceRef

from batch_assets.home import dagster_home, project_root

OVERRIDES = {
    "telemetry": {"enabled": False},
    # What the command prints belongs on the terminal: Dagster's capture would take it away.
    "compute_logs": {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    },
}


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
    with _locked(home):
        opened = dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home), overrides=OVERRIDES))
    with opened as instance:
        yield instance


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which dies with the process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
