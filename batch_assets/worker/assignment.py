"""What the workers of one submission are to do: one file that all of them read, each its own line of it.

Written by whoever submits, before the call; carried out in `container.py`. Others may be able to write
where it lies, so the command that names it holds its digest: only so do its settings allow anything.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import pydantic

from batch_assets.errors import ConfigurationError
from batch_assets.settings.permissions import without_permissions
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.storage import Storage, open_storage

FORMAT = 1
_WITH_DIGEST = re.compile(r"(.+)#sha256=([0-9a-f]{64})")


@dataclass(frozen=True)
class Assignment:
    """One shard to embed under the claim `fence`. A marker up to `outdated_fence` does not count as done."""

    shard: str
    fence: int
    attempt: int
    outdated_fence: int = -1


@dataclass(frozen=True)
class WorkerManifest:
    """A submission's shards; a worker's place in an array is its place in `assignments`.

    `settings` are the pipeline's, with one worker's share of its `calls_per_second`; `usd_per_hour`
    is the price of one worker; `deployment` the output root's random id, None where it has none.
    """

    name: str
    fingerprint: str
    executor: str
    settings: dict[str, Any]
    assignments: Sequence[Assignment]
    usd_per_hour: float | None = None
    deployment: str | None = None
    format: int = field(default=FORMAT)

    @property
    def pipeline(self) -> PipelineSettings:
        return PipelineSettings.model_validate(self.settings)


_MANIFEST = pydantic.TypeAdapter(WorkerManifest)


def write_manifest(storage: Storage, path: str, manifest: WorkerManifest) -> str:
    """Put a manifest; its URI, with `#sha256=` and the digest (hex) of what was put."""
    content = orjson.dumps(manifest, option=orjson.OPT_INDENT_2) + b"\n"
    storage.write(path, content)
    return with_digest(f"{storage.uri}/{path}", content)


def with_digest(uri: str, content: bytes) -> str:
    """The URI of a manifest as commands name it."""
    return f"{uri}#sha256={hashlib.sha256(content).hexdigest()}"


def read_manifest(uri: str) -> WorkerManifest:
    """The manifest at `uri`; without a digest there, its settings are data, and lose every permission.

    Raises ConfigurationError for what is none and for one of another digest, StorageError.
    """
    parts = _WITH_DIGEST.fullmatch(uri)
    place, digest = parts.groups() if parts else (uri, None)
    folder, _, name = place.rpartition("/")
    if not folder or not name:
        raise ConfigurationError(f"--manifest {uri!r}: write the URI of a file, s3://bucket/…/name.json")
    found = open_storage(folder).read_versioned(name)
    if found is None:
        raise ConfigurationError(f"--manifest {uri}: there is no such file")
    if digest is not None and (there := hashlib.sha256(found[0]).hexdigest()) != digest:
        raise ConfigurationError(
            f"--manifest {uri}: the file has the sha256 {there}, so it is not what was submitted; find out who changed "
            "it, then submit the shards again (`batch-assets retry`)"
        )
    try:
        manifest = _MANIFEST.validate_json(found[0])
        _ = manifest.pipeline
    except pydantic.ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise ConfigurationError(
            f"--manifest {uri}: not a manifest that this version reads ({where}: {problem['msg']}); run the version "
            "that wrote it"
        ) from None
    if manifest.format != FORMAT:
        raise ConfigurationError(
            f"--manifest {uri}: is in format {manifest.format}, this version reads {FORMAT}; run the one that wrote it"
        )
    if digest is None:
        return replace(manifest, settings=without_permissions(manifest.pipeline).model_dump(mode="json"))
    return manifest
