"""Probes: small files of a random name by which somebody finds out what can be done under an output root.

A probe's content holds its own name, so that no other file is taken for one and deleted.
"""

from collections.abc import Sequence

from batch_assets import paths
from batch_assets.errors import BatchAssetsError
from batch_assets.patience import in_a_tick
from batch_assets.plain_text import plain_logger
from batch_assets.storage.base import Storage

logger = plain_logger(__name__)
_MARK = "batch-assets tries out this store by"
KEPT_SECONDS = 3600.0
"""A probe that is older than this was left by a process that died: it may be deleted."""


def probe_content(path: str, step: int) -> bytes:
    """What a probe of that name holds at a step of what it is for."""
    return _begin(path) + f"{step}\n".encode()


def answer_probe(storage: Storage, path: str) -> bool:
    """Change the probe that somebody has put at step 1 to step 2; False where it is not to be found here."""
    found = storage.read_versioned(path)
    if found is None or found[0] != probe_content(path, 1):
        return False
    # Where an answer was lost and the request sent again, the first one may have written.
    return storage.replace(path, probe_content(path, 2), found[1]) or storage.read(path) == probe_content(
        path, 2
    )


def delete_old_probes(storage: Storage, newest: str) -> None:
    """Delete what dead processes have left. Age is counted up to the `newest`: only the store's own clock matters."""
    listed = {info.path: info.modified for info in storage.list(paths.PROBES) if paths.is_own_name(info.path)}
    now = listed.pop(newest, None)
    if now is not None:
        old = [name for name, at in listed.items() if at is not None and now - at > KEPT_SECONDS]
        delete_probes(storage, old)


def delete_probes(storage: Storage, names: Sequence[str]) -> None:
    """Delete those of the named objects that are probes by their content; log a warning where that fails.

    A pipeline can work without the right to delete. Nor is a store waited for here that does not answer: a later
    check deletes what this one leaves.
    """
    try:
        with in_a_tick():
            for name in names:
                found = storage.read_versioned(name)
                if found is not None and found[0].startswith(_begin(name)):
                    storage.delete([name])
    except BatchAssetsError as error:
        logger.warning("%s", error)


def _begin(path: str) -> bytes:
    """How a probe of that name begins, whatever step wrote it: that it is one of ours."""
    return f"{_MARK} {path} ".encode()
