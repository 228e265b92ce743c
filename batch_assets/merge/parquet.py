"""Merges committed shards into Parquet: one part per shard, one file of failures, a manifest.

Parts are the shards' own bytes wherever their columns agree, unless a column's values are to be
told apart; how they are written is in `writing.py`. Nothing is published here: checks
(`checks.py`) come first, then the swap (`publishing.py`). A merge that dies leaves a folder without
a manifest, which nobody reads and a later merge removes.
"""

import contextlib
import datetime
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson
import pyarrow as pa

from batch_assets import paths
from batch_assets.crash_points import crash_point
from batch_assets.embeddings.schema import GENERATE, plan_columns
from batch_assets.errors import AccountingError
from batch_assets.merge.base import (
    NOTHING_LEFT_OUT,
    Group,
    LeftOut,
    Manifest,
    MergeResult,
    Progress,
    read_manifest,
    write_manifest,
)
from batch_assets.merge.groups import check_column, count_folders, count_values, group_folders, grouped_column
from batch_assets.merge.ids import count_ids
from batch_assets.merge.inputs import Inputs, gather
from batch_assets.merge.publishing import current, start_version, versions_since
from batch_assets.merge.unify import unified_schema
from batch_assets.merge.writing import Made, Steps, write_split, write_whole
from batch_assets.settings.source import UNIQUE, Ids
from batch_assets.storage import Storage


@dataclass(frozen=True)
class Grouping:
    """Several outputs in place of one: `by` is `folder`, or a column of the output.

    By folder, `folder_of` has the source folder of each shard, where no shard is of several.
    """

    by: str
    folder_of: Mapping[str, str] = field(default_factory=dict)


def merge(
    storage: Storage,
    shards: Iterable[tuple[str, int]],
    fingerprint: str,
    *,
    grouping: Grouping | None = None,
    left_out: LeftOut = NOTHING_LEFT_OUT,
    ids: Ids | None = None,
    metadata: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> MergeResult:
    """Write a merged version of `shards`, (key, planned records) in source order; it is not published.

    `metadata` goes into `metadata.json` beside what the merge knows itself; so does `left_out`, of
    the shards that are planned and not in `shards`. The same committed shards again give the version
    that is there. With `ids`, those of the records are counted, and refused where they are to be unique and
    are not. Raises NotReady where shards are missing or stale, AccountingError where their files are not what
    was committed or, with nothing written, for such ids, ConfigurationError, with nothing written, where no
    groups, or too many, can be made.
    """
    inputs = gather(storage, shards, fingerprint, grouping.by if grouping else None)
    published = current(storage)
    found = _find_finished(storage, published, inputs.digest, left_out, ids)
    if found is not None:
        return MergeResult(found, reused=True, expected_current=published)
    schema, vector_dtype = unified_schema(storage, inputs)
    make = _choose(storage, schema, inputs, grouping)
    counted = None if ids is None else count_ids(storage, inputs.shards, ids)
    version = start_version(storage, published, inputs.digest)
    crash_point("version-started")
    made = make(version, Steps(inputs.planned, progress))
    crash_point("parts-written")
    manifest = Manifest(
        version=version,
        format="parquet",
        fingerprint=inputs.fingerprint,
        digest=inputs.digest,
        parts=made.parts,
        failures=made.failures,
        rows=sum(part.rows for part in made.parts),
        planned=inputs.planned,
        rejected=sum(shard.rejected for shard in made.shards),
        failed=sum(shard.failed for shard in made.shards),
        columns=plan_columns(schema),
        dimensions=inputs.shards[0].layout.dimensions,
        vector_dtype=vector_dtype,
        normalized=inputs.normalized,
        tokens=inputs.tokens,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        norms=inputs.norms.summary(),
        task=inputs.shards[0].layout.task,
        output_tokens=inputs.output_tokens,
        cost_usd=inputs.cost_usd,
        merge_by=inputs.merge_by,
        groups=made.groups,
        # Where each part is one shard's, the parts say it.
        shards=[]
        if [part.shard for part in made.parts] == [shard.shard for shard in made.shards]
        else made.shards,
        left_out=left_out,
        previous=published,
        ids=counted,
    )
    told = {
        **(metadata or {}),
        "version": version,
        "num_samples": manifest.rows,
        "model": (metadata or {}).get("model", inputs.model),
        "timestamp": manifest.created,
        "fingerprint": fingerprint,
        **_results(manifest),
        "cost_usd": manifest.cost_usd,
        **vars(manifest.accounting),
        "left_out": {"shards": left_out.shards, "records": left_out.records},
        **_ids(manifest),
        **({"merge_by": manifest.merge_by, "groups": len(manifest.groups)} if manifest.merge_by else {}),
    }
    data = orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS, default=str)
    storage.write(paths.merged_metadata(version), data + b"\n")
    write_manifest(storage, manifest)
    crash_point("manifest-written")
    return MergeResult(manifest, reused=False, expected_current=published)


def _results(manifest: Manifest) -> dict[str, Any]:
    """What `metadata.json` says of the vectors, or of the answers."""
    if manifest.task == GENERATE:
        return {
            "task": manifest.task,
            "input_tokens": manifest.tokens,
            "output_tokens": manifest.output_tokens,
        }
    return {"dimensions": manifest.dimensions, "dtype": manifest.vector_dtype}


def _ids(manifest: Manifest) -> dict[str, Any]:
    """What `metadata.json` says of the records' ids, where they were counted."""
    if manifest.ids is None:
        return {}
    return {
        "duplicate_ids": manifest.ids.duplicates,
        "duplicate_id_records": manifest.ids.records,
        "missing_ids": manifest.ids.missing,
        "ids_exact": manifest.ids.exact,
    }


def _choose(
    storage: Storage, schema: pa.Schema, inputs: Inputs, grouping: Grouping | None
) -> Callable[[str, Steps], Made]:
    """How the files of a version are made, given its name. Raises ConfigurationError where that cannot be."""
    if grouping is None:
        return partial(write_whole, storage, schema, inputs, None)
    if grouping.folder_of:
        names = count_folders(inputs.shards, grouping.folder_of)
        groups = {
            name: Group(name, paths.merged_group(folder), 0) for name, folder in group_folders(names).items()
        }
        of_shard = {one.shard: groups[grouping.folder_of[one.shard]] for one in inputs.shards}
        return partial(write_whole, storage, schema, inputs, of_shard)
    check_column(grouped_column(grouping.by), schema)
    return partial(
        write_split, storage, schema, inputs, count_values(storage, inputs.shards, grouping.by, schema)
    )


def _find_finished(
    storage: Storage, published: str | None, digest: str, left_out: LeftOut, ids: Ids | None
) -> Manifest | None:
    """A version of this content that is whole, published or not; none that misses shards where all are there.

    Where ids are to be unique, one of which that is known.
    """
    for version, files in versions_since(storage, published).items():
        if version.endswith(digest[:8]) and paths.merged_manifest(version) in files:
            with contextlib.suppress(AccountingError):  # a spoiled manifest is as good as none
                manifest = read_manifest(storage, version)
                if manifest is None or manifest.digest != digest or not _whole(storage, manifest):
                    continue
                if ids == UNIQUE and not (manifest.ids and manifest.ids.exact and manifest.ids.unique):
                    continue
                if manifest.left_out == left_out or left_out != NOTHING_LEFT_OUT:
                    return manifest
    return None


def _whole(storage: Storage, manifest: Manifest) -> bool:
    """Whether all parts are there in their size, so that a version with a lost file is made anew."""
    sizes = {info.path: info.size for info in storage.list(paths.merged_folder(manifest.version))}
    return all(sizes.get(manifest.path(part)) == part.bytes for part in [*manifest.parts, manifest.failures])
