"""What Dagster loads: everything under `defs/`, or under `$BATCH_ASSETS_DEFS`.

Loading imports neither torch nor boto3: heavy libraries are imported where they are used.
"""

import os
import warnings
from pathlib import Path

import dagster as dg

warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)


@dg.definitions
def defs() -> dg.Definitions:
    """All pipelines of this deployment, its resources and sensors."""
    own = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    return own
