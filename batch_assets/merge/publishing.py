"""Which merged version is the published one, and the swap that makes another one it.

`merged/CURRENT` holds the name of the published version in one line; it is swapped by
compare-and-set. Version names sort: `v000001-<8 hex of the content's digest>`.
"""

import re
import secrets
from collections.abc import Iterable

import orjson

from batch_assets import paths
from batch_assets.errors import AccountingError
from batch_assets.merge.base import Manifest, read_manifest
from batch_assets.storage import Storage, is_local
from batch_assets.storage.temporary import remove_abandoned

_CLAIM = {"state": "merging"}
_VERSION = re.compile(r"v(\d{6,})-[0-9a-f]{8}")


def current(storage: Storage) -> str | None:
    """Name of the published version, or None. Raises AccountingError where CURRENT holds no version name."""
    found = storage.read_versioned(paths.CURRENT)
    return None if found is None else _parse(storage, found[0])


def _parse(storage: Storage, data: bytes) -> str:
    version = data.decode("utf-8", "replace").strip()
    if not _VERSION.fullmatch(version):
        raise AccountingError(
            f"{paths.CURRENT} under {storage.uri} holds {version[:80]!r}, which is no version name; "
            "delete it and merge again"
        )
    return version


def open_current(storage: Storage) -> Manifest | None:
    """Manifest of the published version, or None where nothing is published.

    Readers go by it, not by the files in the folder. Raises AccountingError where the version
    that CURRENT names is not there.
    """
    version = current(storage)
    if version is None:
        return None
    manifest = read_manifest(storage, version)
    if manifest is None:
        raise AccountingError(
            f"{paths.CURRENT} under {storage.uri} names {version}, which has no manifest; merge again"
        )
    return manifest


def publish(storage: Storage, version: str, expected_current: str | None) -> bool:
    """Make `version` the published one if `expected_current` still is; False if it is not.

    A version that is published already stays so (True). Afterwards the unfinished versions
    between the two, which crashes left behind, are deleted. Raises AccountingError for a
    version that was never finished.
    """
    if read_manifest(storage, version) is None:
        raise AccountingError(
            f"{paths.merged_manifest(version)}: no such manifest; only a finished merge is published"
        )
    data = version.encode() + b"\n"
    found = storage.read_versioned(paths.CURRENT)
    if found is not None and _parse(storage, found[0]) == version:
        return True
    if found is None:
        swapped = expected_current is None and storage.create(paths.CURRENT, data)
    else:
        swapped = _parse(storage, found[0]) == expected_current and storage.replace(
            paths.CURRENT, data, found[1]
        )
    if swapped:
        _delete_unfinished(storage, expected_current, version)
    return swapped


def is_version(name: str) -> bool:
    """Whether this is how versions are called."""
    return _VERSION.fullmatch(name) is not None


def version_number(version: str) -> int:
    """The number in a version's name."""
    match = _VERSION.fullmatch(version)
    if match is None:
        raise AccountingError(f"{version!r} is no version name; those are like v000001-0123abcd")
    return int(match[1])


def versions_since(storage: Storage, version: str | None) -> dict[str, list[str]]:
    """Versions that have files, from the number of `version` on, each with its files' paths.

    What lies before is not listed, so that the cost does not grow with the versions kept.
    """
    after = None if version is None else paths.merged_folder(version).rsplit("-", 1)[0]
    found: dict[str, list[str]] = {}
    for info in storage.list("merged", after=after):
        name = info.path.split("/")[1]
        if _VERSION.fullmatch(name):
            found.setdefault(name, []).append(info.path)
    return found


def start_version(storage: Storage, published: str | None, digest: str) -> str:
    """Take a version name that nobody had before, even in a merge at the same time.

    Its `metadata.json` is the claim: created now, filled in at the end. A name is never taken
    twice, so that no file of a version is ever written over.
    """
    if is_local(storage.uri):
        # A killed merge's files lie in the folder of a version that nobody goes on with.
        remove_abandoned(f"{storage.uri}/merged")
    numbers = [version_number(name) for name in versions_since(storage, published)]
    number = max(numbers, default=0) + 1
    # Nobody else's is like it: where the answer to the write is lost, it tells whose the claim is.
    claim = {**_CLAIM, "claim": secrets.token_hex(8)}
    while True:
        version = f"v{number:06d}-{digest[:8]}"
        if storage.create(paths.merged_metadata(version), orjson.dumps(claim) + b"\n"):
            return version
        number += 1


def files_of_version(storage: Storage, version: str, listed: Iterable[str]) -> list[str]:
    """Those of the files in a version's folder that a merge has written, in the order in which they may be deleted.

    Of a finished version the manifest says so. An unfinished one has a merge's `metadata.json`, and
    its files have the names that a merge gives. What proves it comes last.
    """
    proofs = [paths.merged_metadata(version), paths.merged_manifest(version)]
    try:
        manifest = read_manifest(storage, version)
    except AccountingError:
        return []
    if manifest is not None:
        own = {manifest.path(part) for part in (*manifest.parts, manifest.failures)}
    elif _is_claimed(storage, version):
        own = {path for path in listed if paths.is_own_name(path)}
    else:
        return []
    own = own.intersection(listed).difference(proofs)
    return [*sorted(own), *(path for path in proofs if path in {*listed})]


def _is_claimed(storage: Storage, version: str) -> bool:
    """Whether a merge has taken this version's name, and perhaps written all but the manifest."""
    found = storage.read_versioned(paths.merged_metadata(version))
    try:
        content = orjson.loads(found[0]) if found is not None else None
    except orjson.JSONDecodeError:
        return False
    return isinstance(content, dict) and (
        content.items() >= _CLAIM.items() or content.get("version") == version
    )


def _delete_unfinished(storage: Storage, previous: str | None, published: str) -> None:
    for name, files in versions_since(storage, previous).items():
        finished = paths.merged_manifest(name) in files
        if version_number(name) < version_number(published) and not finished:
            storage.delete(files_of_version(storage, name, files))
