"""What Dagster loads: everything under `defs/`, or the pipelines under `$BATCH_ASSETS_DEFS`.

Loading imports neither torch nor boto3: heavy libraries are imported where they are used.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from batch_assets.plain_text import plain_logger

if TYPE_CHECKING:
    from batch_assets.components.declared import Declared

warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)

logger = plain_logger(__name__)


@dg.definitions
def defs() -> dg.Definitions:
    """All pipelines of this deployment, its resources and sensors.

    Raises ConfigurationError for a folder that is not there. Where Dagster asks if all is right, whatever is not
    is an error; otherwise a broken pipeline shows itself, what is broken beside it is left out, and the others go on.
    """
    from batch_assets.components.declared import DEFAULT_DEFS, defs_folder, load_folder, validating
    from batch_assets.errors import ConfigurationError

    try:
        folder = defs_folder(None)
        declared = load_folder(folder)
        if declared.problems and validating():
            raise ConfigurationError("; ".join(declared.problems))
    except ConfigurationError as error:
        raise error.with_traceback(None) from None  # a sentence, not a wall of our own frames
    for sentence in declared.shared_roots:
        logger.warning("%s", sentence)
    # Most runs have one step, and a run is a process of its own already.
    executor = dg.Definitions(executor=dg.in_process_executor)
    found = (_of_own_folder(declared) if folder == DEFAULT_DEFS else None) or _alone(declared, folder)
    return dg.Definitions.merge(executor, found)


def _of_own_folder(declared: "Declared") -> dg.Definitions | None:
    """Everything under `defs/`, by Dagster's own loader; None where that cannot load it as a whole."""
    import batch_assets.defs
    from batch_assets.components.declared import DEFAULT_DEFS, validating
    from batch_assets.orchestration.shared import build_shared_definitions

    if any(one.unreadable for one in declared.broken):
        return None
    tree = dg.ComponentTree.from_module(batch_assets.defs, project_root=Path(__file__).parent.parent)
    try:
        # By its path: asked for as a whole, the tree would import every component of every
        # installed package, for the UI's list of component types, and boto3 with them.
        found = tree.build_defs(DEFAULT_DEFS)
        shared = build_shared_definitions(found.resources or ())
        # A pipeline brings the shared sensors with it, also one declared in Python. Where there is none, they are
        # added here.
        brought = {sensor.name for sensor in found.sensors or ()}
        if brought.isdisjoint(sensor.name for sensor in shared.sensors or ()):
            found = dg.Definitions.merge(shared, found)
    except Exception:
        if validating():
            raise
        logger.exception(
            "what lies beside the pipelines in %s cannot be loaded, and is left out", DEFAULT_DEFS
        )
        return None
    return found


def _alone(declared: "Declared", folder: Path) -> dg.Definitions:
    """The pipelines and queues and nothing else, each built by itself."""
    from batch_assets.components.declared_queues import load_queues, queue_definitions
    from batch_assets.components.embedding_pipeline import loaded_or_broken
    from batch_assets.orchestration.broken import build_broken_definitions, shown_beside
    from batch_assets.orchestration.shared import build_shared_definitions

    found = [loaded_or_broken(settings) for settings in declared.pipelines.values()]
    reasons: dict[str, list[str]] = {}
    for one in declared.broken:
        logger.error("left out: %s", one.reason)
        # Another one may have the name of which this one's is a guess.
        reasons.setdefault(shown_beside(one.name, declared.pipelines), []).append(one.reason)
    found += [build_broken_definitions(name, why) for name, why in reasons.items()]
    queues = [*load_queues(folder)]
    found += [queue_definitions(queue, queues) for queue in queues]
    project = {key for settings in declared.pipelines.values() for key in settings.resources}
    return dg.Definitions.merge(build_shared_definitions(project), *found)
