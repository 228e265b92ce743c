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
    from batch_assets.orchestration.shared import build_shared_definitions

    try:
        folder = defs_folder(None)
        pipelines = load_folder(folder)
    except ConfigurationError as error:
        raise error.with_traceback(None) from None  # a sentence, not a wall of our own frames
    # Most runs have one step, and a run is a process of its own already.
    executor = dg.Definitions(executor=dg.in_process_executor)
    if folder == DEFAULT_DEFS:
        tree = dg.ComponentTree.from_module(batch_assets.defs, project_root=Path(__file__).parent.parent)
        # By its path: asked for as a whole, the tree would import every component of every
        # installed package, for the UI's list of component types, and boto3 with them.
        found = [tree.build_defs(DEFAULT_DEFS)]
    else:
        found = [build_pipeline_definitions(settings) for settings in pipelines.values()]
    if folder != DEFAULT_DEFS or not pipelines:
        found.append(build_shared_definitions())
    return dg.Definitions.merge(executor, *found)
