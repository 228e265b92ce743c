"""Merged versions that the published one has replaced, and since when each of them has been."""

import datetime
import itertools
from collections.abc import Iterator

from batch_assets import paths
from batch_assets.control.retention import UNNAMED_SECONDS, Kind, Leftover, leftover, modified
from batch_assets.errors import AccountingError
from batch_assets.merge.base import Manifest, read_manifest
from batch_assets.merge.publishing import current, files_of_version, is_version, version_number
from batch_assets.storage import Storage


def old_versions(storage: Storage, now: float) -> Iterator[Leftover]:
    """The files of merged versions before the published one; of each, the manifest last: it says that it was whole."""
    published = current(storage)
    if published is None:
        return
    replaced_at = _publications(storage, published)
    for version, listed in itertools.groupby(
        storage.list("merged"), key=lambda info: info.path.split("/")[1]
    ):
        if not is_version(version) or version_number(version) >= version_number(published):
            continue
        since = next(at for number, at in replaced_at if number > version_number(version))
        there = {info.path: info for info in listed}
        files = [there[path] for path in files_of_version(storage, version, there)]
        manifest = paths.merged_manifest(version)
        if manifest not in {info.path for info in files}:
            # Never finished: a merge by another ledger may still be at it.
            since = max([since, *(modified(info) + UNNAMED_SECONDS for info in files)])
        for info in files:
            yield leftover(Kind.MERGED, storage, info, since)


def _publications(storage: Storage, published: str) -> list[tuple[int, float]]:
    """(number, when it was published) of the versions known to have been, oldest first.

    Each names the one before it. The newest was published when the pointer was written; of the
    others only the end of their merge is known, which is minutes earlier.
    """
    info = storage.info(paths.CURRENT)
    found = [(version_number(published), float("inf") if info is None else modified(info))]
    manifest = _manifest(storage, published)
    while manifest is not None and manifest.previous is not None:
        before = _manifest(storage, manifest.previous)
        if before is None or version_number(before.version) >= found[0][0]:
            break
        found.insert(
            0, (version_number(before.version), datetime.datetime.fromisoformat(before.created).timestamp())
        )
        manifest = before
    return found


def _manifest(storage: Storage, version: str) -> Manifest | None:
    try:
        return read_manifest(storage, version)
    except AccountingError:
        return None
