"""What must be right before anything is written: refused here, it costs nothing.

The same faults would surface later, in a run; a person at a terminal should know now.
"""

from batch_assets.control.ownership import check_owner
from batch_assets.executors.base import Executor
from batch_assets.settings import PipelineSettings
from batch_assets.sharding.planner import source_uri
from batch_assets.sources.listing import list_source
from batch_assets.storage import open_storage


def check_configuration(settings: PipelineSettings, executor: Executor, *, add_source: bool = False) -> None:
    """Look at the source, the root's owner and the model, and write nothing.

    Raises ConfigurationError, SourceError or ModelError, with what to do about it.
    """
    check_owner(settings, open_storage(settings.output.root), add_source=add_source)
    list_source(source_uri(settings), settings.source.format, [settings.output.root])
    executor.fingerprint()
