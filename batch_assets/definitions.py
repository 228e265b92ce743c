"""What Dagster loads: everything under `defs/`, or the pipelines under `$BATCH_ASSETS_DEFS`.

Loading imports neither torch nor boto3: heavy libraries are imported where they are used.
"""

import warnings
from pathlib import Path

import dagster as dg

warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)


@dg.definitions
def defs() -> dg.Definitions:
    """All pipelines of this deployment, its resources and sensors. Raises ConfigurationError."""
    import batch_assets.defs
    from batch_assets.components.attributes import DEFAULT_DEFS, defs_folder, load_folder
    from batch_assets.errors import ConfigurationError
    from batch_assets.orchestration.pipeline import build_pipeline_definitions

    try:
        folder = defs_folder(None)
        pipelines = load_folder(folder)
    except ConfigurationError as error:
        raise error.with_traceback(None) from None  # a sentence, not a wall of our own frames
    tree = dg.ComponentTree.from_module(batch_assets.defs, project_root=Path(__file__).parent.parent)
    if folder == DEFAULT_DEFS:
        # By its path: asked for as a whole, the tree would import every component of every
        # installed package, for the UI's list of component types, and boto3 with them.
        return tree.build_defs(DEFAULT_DEFS)
    shared = [tree.build_defs(DEFAULT_DEFS / file) for file in ("resources.py", "sensors.py")]
    return dg.Definitions.merge(*shared, *map(build_pipeline_definitions, pipelines.values()))
