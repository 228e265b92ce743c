"""Checks that an object store honours conditions on writes, which every commit relies on.

Some stores with S3's interface accept the headers and ignore them. Before a root is first used, the check
writes a small object with a random name (a probe), tries the conditions on it, and deletes it.
"""

import secrets

from batch_assets import paths
from batch_assets.errors import ConfigurationError
from batch_assets.storage.base import Storage, is_local
from batch_assets.storage.probes import delete_old_probes, delete_probes, probe_content


def require_conditions(storage: Storage) -> None:
    """Raise ConfigurationError where the store ignores conditions, knows none, or refuses a write that meets one."""
    if is_local(storage.uri):
        return
    path = paths.probe(secrets.token_hex(8))
    try:
        fault = _find_fault(storage, path)
        if not fault:
            delete_old_probes(storage, path)
    finally:
        delete_probes(storage, [path])
    if fault:
        raise ConfigurationError(
            f"{storage.uri}: the store {fault}, so two writers would overwrite each other's commits without noticing; "
            "name an output root on a store with conditional writes (docs/operations.md, Object stores)"
        )


def _find_fault(storage: Storage, path: str) -> str:
    """Return what the store does wrong, to be read after "the store"; an empty string where it does nothing wrong."""
    # Where an answer was lost and the request sent again, the first one may have written.
    if not storage.create(path, probe_content(path, 1)) and storage.read(path) != probe_content(path, 1):
        return "says of a new object that it is there already"
    if storage.create(path, probe_content(path, 2)):
        return "ignores the condition to create an object only where there is none (If-None-Match: *)"
    found = storage.read_versioned(path)
    if found is None:
        return "does not return an object that was just written"
    if not storage.replace(path, probe_content(path, 3), found[1]) and storage.read(path) != probe_content(
        path, 3
    ):
        return f"does not recognize an object's version ({found[1]}) in If-Match"
    if storage.replace(path, probe_content(path, 4), found[1]):
        return "ignores the condition to replace an object only if it is unchanged (If-Match)"
    return ""
