"""What must be right before anything is written: refused here, it costs nothing.

The same faults would surface later, in a run; a person at a terminal should know now.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from batch_assets.control.chaining import is_chained
from batch_assets.control.ownership import check_owner, refuse_remains
from batch_assets.errors import ConfigurationError
from batch_assets.executors.base import Executor
from batch_assets.executors.service_jobs import has_results
from batch_assets.ledger.ledger import Ledger
from batch_assets.merge.single_file import refuse_others_files
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.chained import plan_chained
from batch_assets.sharding.opening import file_rules
from batch_assets.sharding.planner import source_uri
from batch_assets.sources.listing import list_source
from batch_assets.storage import Storage, is_local, open_storage


def check_configuration(settings: PipelineSettings, executor: Executor, *, add_source: bool = False) -> None:
    """Look at the source, the root's owner and the model, and write nothing.

    Raises ConfigurationError, SourceError or ModelError, with what to do about it.
    """
    root = open_storage(settings.output.root)
    _check_writable(root)
    check_owner(settings, root, add_source=add_source)
    refuse_remains(root)
    if is_chained(settings):
        plan_chained(settings, root, max_records=executor.limits.records)
    elif settings.source.requests is None:
        source = settings.source
        list_source(source_uri(settings), source.format, [settings.output.root], file_rules(settings))
    if settings.output.single_file:
        refuse_others_files(root)
    executor.fingerprint()


def check_model(settings: PipelineSettings, executor: Executor, ledger: Ledger) -> None:
    """Try the model out before anything is written, unless it has embedded for this pipeline before.

    Whether there is room for what an executor in place asks for is looked at each time. Raises
    ModelError or ConfigurationError.
    """
    if executor.in_place:
        executor.at_once()
    known = ledger.pipeline(settings.name)
    if known is None or known.fingerprint != executor.fingerprint():
        executor.check()


def check_sizes(executor: Executor, shards: Sequence[int]) -> None:
    """Raise ConfigurationError where a service cannot take shards with so many records each, by any way."""
    if has_results(executor):
        executor.check_sizes(shards)


def _check_writable(root: Storage) -> None:
    """Refuse a local root that cannot be made or written; of an object store only writing tells."""
    if not is_local(root.uri):
        return
    folder = Path(root.uri)
    there = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    if not there.is_dir():
        raise ConfigurationError(
            f"output.root: {root.uri} cannot be a folder, because {there} is none; name another"
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"output.root: {root.uri} cannot be written, because {there} is read-only for this user; "
            "allow it, or name another"
        )
