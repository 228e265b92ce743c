"""Where this deployment keeps its state: the Dagster home and the ledger's URL.

Read from the environment at the moment of asking, never at import. What lies under an output
root is `paths.py`'s business.
"""

import os
from pathlib import Path


def dagster_home() -> Path:
    """`$DAGSTER_HOME`, else `.dagster` beside a workspace.yaml here or above, else `~/.batch-assets`."""
    if home := os.environ.get("DAGSTER_HOME"):
        return Path(home).expanduser().absolute()
    project = project_root(Path.cwd())
    return project / ".dagster" if project else Path.home() / ".batch-assets"


def project_root(start: Path) -> Path | None:
    """The nearest folder with a workspace.yaml, `start` or above it."""
    return next((folder for folder in (start, *start.parents) if (folder / "workspace.yaml").is_file()), None)


def ledger_url() -> str:
    """`$BATCH_ASSETS_LEDGER_URL`, else a SQLite file under the Dagster home."""
    if url := os.environ.get("BATCH_ASSETS_LEDGER_URL"):
        return url
    return f"sqlite:///{dagster_home() / 'batch_assets' / 'ledger.db'}"
