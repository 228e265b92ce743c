"""Where this deployment keeps its state: the Dagster home and the ledger's URL.

Read from the environment at the moment of asking, never at import. What lies under an output
root is `paths.py`'s business.
"""

import os
from pathlib import Path

from batch_assets.errors import ConfigurationError


def dagster_home() -> Path:
    """`$DAGSTER_HOME`, else `.dagster` beside a workspace.yaml here or above, else `~/.batch-assets`.

    Raises ConfigurationError where it would lie in the user's own folder, and there is none.
    """
    if home := os.environ.get("DAGSTER_HOME"):
        return Path(expand_user(home)).absolute()
    project = project_root(Path.cwd())
    return project / ".dagster" if project else Path(expand_user("~/.batch-assets"))


def expand_user(path: str) -> str:
    """`path` with the user's own folder in place of a `~` before it.

    Raises ConfigurationError where there is none, as in a container whose user nobody knows.
    """
    found = os.path.expanduser(path)
    if path.split("/", 1)[0] == "~" and (found == path or os.environ.get("HOME") == ""):
        raise ConfigurationError(
            f"{path!r}: user {os.getuid()} has no folder of its own, and HOME is not set; set HOME or, for what this "
            "deployment keeps, DAGSTER_HOME to a folder that it may write"
        )
    return found


def project_root(start: Path) -> Path | None:
    """The nearest folder with a workspace.yaml, `start` or above it."""
    return next((folder for folder in (start, *start.parents) if (folder / "workspace.yaml").is_file()), None)


def ledger_url() -> str:
    """`$BATCH_ASSETS_LEDGER_URL`, else a SQLite file under the Dagster home."""
    if url := os.environ.get("BATCH_ASSETS_LEDGER_URL"):
        return url
    return f"sqlite:///{dagster_home() / 'batch_assets' / 'ledger.db'}"


def requests_url() -> str:
    """Where single requests and queued messages are: beside a ledger on PostgreSQL, else a SQLite file of their own."""
    ledger = ledger_url()
    if ledger.startswith("postgres"):
        return ledger
    return f"sqlite:///{dagster_home() / 'batch_assets' / 'requests.db'}"
