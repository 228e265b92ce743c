"""The published version, verified from its bytes and against the shards that it says it merges."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from batch_assets import paths
from batch_assets.embeddings.accounting import Accounting, count_stages
from batch_assets.embeddings.parquet_files import DataFile, count_rows
from batch_assets.embeddings.validation import VectorError
from batch_assets.errors import AccountingError
from batch_assets.merge.base import FailuresPart, Manifest, Part
from batch_assets.merge.checks import check_results
from batch_assets.merge.copying import check_file
from batch_assets.merge.inputs import digest_of, name_some
from batch_assets.merge.parity import read_parity
from batch_assets.merge.verified_groups import verify_groups
from batch_assets.merge.verified_shards import VerifiedShard
from batch_assets.storage import Storage
from batch_assets.storage.threads import map_in_order, threads_for


@dataclass
class VerifiedVersion:
    """What the published version's files hold, and what is wrong with them."""

    accounting: Accounting = field(default_factory=Accounting)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify_version(
    storage: Storage,
    manifest: Manifest,
    shards: Mapping[str, VerifiedShard],
    removed: Collection[str],
    advance: Callable[[int], None],
) -> VerifiedVersion:
    """Check every part's digest, rows and vectors, and that the version is the sum of its shards.

    Of shards that were `removed`, as requests are after a time, only the version itself tells. `advance` is called
    with the records of each part read.
    """
    found = VerifiedVersion()
    embedded = 0
    verified = map_in_order(
        lambda part: _verify_part(storage, manifest, part), manifest.parts, threads_for(storage)
    )
    for part, (rows, problem) in zip(manifest.parts, verified, strict=True):
        embedded += rows
        if problem is not None:
            found.problems.append(problem)
        advance(part.planned or part.rows)
    rejected = failed = 0
    try:
        check_file(storage, _data_file(manifest, manifest.failures))
        rejected, failed = count_stages(storage, manifest.path(manifest.failures))
    except AccountingError as error:
        found.problems.append(str(error))
    merged = {shard.shard: shard for shard in manifest.merged_shards}
    planned = sum(shards[key].shard.records for key in merged if key in shards)
    planned += sum(merged[key].planned for key in removed)
    found.accounting = Accounting(planned, embedded, rejected, failed)
    if found.accounting != manifest.accounting:
        found.problems.append(
            f"{paths.merged_manifest(manifest.version)}: says {manifest.accounting.line()}; "
            f"its files and the plan say {found.accounting.line()}"
        )
    found.problems += _repeated(manifest) + _unnamed_files(storage, manifest)
    _compare_with_shards(manifest, shards, removed, found)
    parity = read_parity(storage, manifest.version)
    if parity is not None and not parity.passed:
        found.notes.append(f"{manifest.version}: when it was merged, {parity.sentence}")
    if manifest.merge_by is not None and not found.problems:
        found.problems += verify_groups(storage, manifest, shards)
    return found


def _verify_part(storage: Storage, manifest: Manifest, part: Part) -> tuple[int, str | None]:
    """Rows of a part, 0 where they cannot be counted, and what is wrong with it."""
    rows = 0
    try:
        rows = count_rows(storage, manifest.path(part))
        check_file(storage, _data_file(manifest, part))
        if rows != part.rows:
            raise AccountingError(f"{manifest.path(part)}: holds {rows} rows, its manifest says {part.rows}")
        check_results(storage, manifest.path(part), manifest)
    except (AccountingError, VectorError) as error:
        return rows, str(error)
    return rows, None


def _data_file(manifest: Manifest, part: Part | FailuresPart) -> DataFile:
    return DataFile(manifest.path(part), part.rows, part.bytes, part.sha256)


def _repeated(manifest: Manifest) -> list[str]:
    names = [f"shard {shard.shard}" for shard in manifest.merged_shards]
    names += [f"part {part.uri}" for part in manifest.parts]
    names += [f"group folder {group.folder}" for group in manifest.groups]
    path = paths.merged_manifest(manifest.version)
    return [f"{path}: names {name} {times} times" for name, times in Counter(names).items() if times > 1]


def _unnamed_files(storage: Storage, manifest: Manifest) -> list[str]:
    """Data that a reader of the folder would take for part of the version."""
    named = {manifest.path(part) for part in [*manifest.parts, manifest.failures]}
    named |= {paths.merged_manifest(manifest.version), paths.merged_metadata(manifest.version)}
    found = (info.path for info in storage.list(paths.merged_folder(manifest.version)))
    return [
        f"{path}: the manifest does not name this file; delete it"
        for path in found
        if not _is_named(path, named)
    ]


def _is_named(path: str, named: set[str]) -> bool:
    return path in named or path.rsplit("/", 1)[1].startswith(".")


def _compare_with_shards(
    manifest: Manifest,
    shards: Mapping[str, VerifiedShard],
    removed: Collection[str],
    found: VerifiedVersion,
) -> None:
    path = paths.merged_manifest(manifest.version)
    renewed: list[str] = []
    lines: list[tuple[str, int, str, str]] = []
    merged = manifest.merged_shards
    for one in merged:
        shard = shards.get(one.shard)
        if one.shard in removed:
            continue
        if shard is None:
            found.problems.append(f"{path}: merges shard {one.shard}, which no plan names")
        elif shard.uncommitted:
            marker = paths.shard_marker(one.shard)
            found.problems.append(f"{marker}: missing, though {manifest.version} merges its shard")
        elif shard.marker is not None and shard.marker.embeddings.sha256 != one.source_sha256:
            renewed.append(one.shard)
        elif shard.marker is not None:
            lines.append((one.shard, one.planned, one.source_sha256, shard.marker.failures.sha256))
    if removed:
        found.notes.append(
            f"not kept any longer, but in {manifest.version}: {name_some(sorted(removed))}; the next merge is without"
        )
    if renewed:
        found.notes.append(
            f"embedded again since {manifest.version} was merged: {name_some(renewed)}; merge to publish them"
        )
    digest = digest_of(manifest.fingerprint, lines, manifest.merge_by)
    if len(lines) == len(merged) and digest != manifest.digest:
        found.problems.append(f"{path}: its digest is not that of the shards it names; merge again")
