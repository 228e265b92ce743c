"""The tests, in the folders of the package they test."""

import os
from pathlib import Path

# Hypothesis would make a folder at the top level of the repository; its caches lie with the others.
os.environ.setdefault(
    "HYPOTHESIS_STORAGE_DIRECTORY", str(Path(__file__).parent.parent / ".venv" / ".cache" / "hypothesis")
)
