"""The Dagster instance of the home: where runs of the command are recorded, for the UI to show."""

import contextlib
import logging
from collections.abc import Iterator

import dagster as dg

from batch_assets.home import dagster_home, project_root


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
    logging.getLogger("dagster").setLevel(logging.ERROR)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance
