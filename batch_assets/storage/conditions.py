"""Checks that an object store honours conditions on writes, which every commit relies on.

Some stores with S3's interface accept the headers and ignore them. Before a root is first used, the check
writes a small object with a random name (a probe), tries the conditions on it, and deletes it. A probe's
content holds its own name, so that no other object is taken for one and deleted.
"""

import secrets
from collections.abc import Sequence

from batch_assets import paths
from batch_assets.errors import BatchAssetsError, ConfigurationError
from batch_assets.patience import in_a_tick
from batch_assets.plain_text import plain_logger
from batch_assets.storage.base import Storage, is_local

logger = plain_logger(__name__)
_MARK = "batch-assets tries out this store by"
KEPT_SECONDS = 3600.0
"""A probe that is older than this was left by a process that died: it may be deleted."""


def require_conditions(storage: Storage) -> None:
    """Raise ConfigurationError where the store ignores conditions, knows none, or refuses a write that meets one."""
    if is_local(storage.uri):
        return
    path = paths.probe(secrets.token_hex(8))
    try:
        fault = _find_fault(storage, path)
        if not fault:
            _delete_left_behind(storage, path)
    finally:
        _delete_own(storage, [path])
    if fault:
        raise ConfigurationError(
            f"{storage.uri}: the store {fault}, so two writers would overwrite each other's commits without noticing; "
            "name an output root on a store with conditional writes (docs/operations.md, Object stores)"
        )


def _find_fault(storage: Storage, path: str) -> str:
    """Return what the store does wrong, to be read after "the store"; an empty string where it does nothing wrong."""
    # Where an answer was lost and the request sent again, the first one may have written.
    if not storage.create(path, _content(path, 1)) and storage.read(path) != _content(path, 1):
        return "says of a new object that it is there already"
    if storage.create(path, _content(path, 2)):
        return "ignores the condition to create an object only where there is none (If-None-Match: *)"
    found = storage.read_versioned(path)
    if found is None:
        return "does not return an object that was just written"
    if not storage.replace(path, _content(path, 3), found[1]) and storage.read(path) != _content(path, 3):
        return f"does not recognize an object's version ({found[1]}) in If-Match"
    if storage.replace(path, _content(path, 4), found[1]):
        return "ignores the condition to replace an object only if it is unchanged (If-Match)"
    return ""


def _delete_left_behind(storage: Storage, path: str) -> None:
    """Delete old probes. Their age is counted up to the new one at `path`: only the store's own clock matters."""
    listed = {info.path: info.modified for info in storage.list(paths.PROBES) if paths.is_own_name(info.path)}
    now = listed.pop(path, None)
    if now is not None:
        old = [name for name, at in listed.items() if at is not None and now - at > KEPT_SECONDS]
        _delete_own(storage, old)


def _begin(path: str) -> bytes:
    """How a probe of that name begins, whatever step wrote it: that it is one of ours."""
    return f"{_MARK} {path} ".encode()


def _content(path: str, step: int) -> bytes:
    return _begin(path) + f"{step}\n".encode()


def _delete_own(storage: Storage, names: Sequence[str]) -> None:
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
