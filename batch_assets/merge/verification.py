"""Verifies a whole output root from outside: the plan, every committed shard, the published version.

Nothing is believed but the bytes: digests, footers, rows and vectors are read again, and
neither ledger nor source is asked. Problems are sentences that name a file or a shard;
notes say what is no error, such as shards embedded since the last merge.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from batch_assets import paths
from batch_assets.embeddings.accounting import Accounting
from batch_assets.errors import BatchAssetsError
from batch_assets.merge.base import Manifest, Progress
from batch_assets.merge.inputs import name_some
from batch_assets.merge.publishing import open_current
from batch_assets.merge.verified_shards import VerifiedShard, verify_shard
from batch_assets.merge.verified_version import verify_version
from batch_assets.sharding.plan import Shard
from batch_assets.sharding.plan_files import generations, read_plan
from batch_assets.sharding.removed import RemovedGenerations
from batch_assets.storage import Storage, open_storage
from batch_assets.storage.threads import map_in_order, threads_for


@dataclass
class VerifyReport:
    """What is true of an output root.

    `accounting` is that of the published version where there is one, otherwise of the whole
    plan; `version` is the published version's name.
    """

    accounting: Accounting = field(default_factory=Accounting)
    version: str | None = None
    planned_shards: int = 0
    committed_shards: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(root: str | Storage, progress: Progress | None = None) -> VerifyReport:
    """Read everything under `root` again and count it; what is wrong there is reported, not raised."""
    storage = open_storage(root) if isinstance(root, str) else root
    report = VerifyReport()
    planned, superseded = _read_plans(storage, report)
    manifest = _read_manifest(storage, report)
    merged = _merged_digests(manifest) if manifest else {}
    # What is superseded counts no more, and may be deleted; but it stays published until the next merge.
    wanted = [shard for key, shard in planned.items() if key not in superseded or key in merged]
    report.planned_shards = len(planned) - len(superseded)
    total = sum(shard.records for shard in wanted) + (manifest.planned if manifest else 0)
    done = 0

    def advance(records: int) -> None:
        nonlocal done
        done += records
        if progress is not None:
            progress(done, total)

    shards: dict[str, VerifiedShard] = {}
    for shard in map_in_order(
        lambda one: verify_shard(storage, one, merged.get(one.key)), wanted, threads_for(storage)
    ):
        shards[shard.shard.key] = shard
        report.committed_shards += shard.marker is not None
        if shard.problem is not None:
            report.problems.append(shard.problem)
        advance(shard.shard.records)
    report.problems += _unplanned(storage, planned)
    if manifest is None:
        report.accounting = sum((shard.accounting for shard in shards.values()), Accounting())
    else:
        gone = _removed(storage, merged, planned, report)
        version = verify_version(storage, manifest, shards, gone, advance)
        report.accounting = version.accounting
        report.problems += version.problems
        report.notes += version.notes
        if renewed := [key for key in merged if key in superseded]:
            report.notes.append(
                f"superseded by a later plan but in {manifest.version}: {name_some(renewed)}; merge again"
            )
    _tell_unmerged(shards, manifest, report)
    return report


def _removed(
    storage: Storage, merged: Mapping[str, str], planned: Mapping[str, Shard], report: VerifyReport
) -> set[str]:
    """The merged shards whose generation was removed, its time being up."""
    without_plan = [key for key in merged if key not in planned]
    if not without_plan:
        return set()
    try:
        removed = RemovedGenerations.read(storage)
    except BatchAssetsError as error:
        report.problems.append(str(error))
        return set()
    return {key for key in without_plan if paths.shard_generation(key) in removed}


def _merged_digests(manifest: Manifest) -> dict[str, str]:
    """The digest of each merged shard's part; empty where its rows are in several groups' parts."""
    return {shard.shard: "" for shard in manifest.merged_shards} | {
        part.shard: part.sha256 for part in manifest.parts if part.shard
    }


def _read_plans(storage: Storage, report: VerifyReport) -> tuple[dict[str, Shard], set[str]]:
    """All planned shards, and the keys of those that a later generation supersedes."""
    planned: dict[str, Shard] = {}
    superseded: set[str] = set()
    try:
        for generation in generations(storage):
            summary, shards = read_plan(storage, generation)
            planned |= {shard.key: shard for shard in shards}
            superseded |= set(summary.superseded)
    except (BatchAssetsError, FileNotFoundError) as error:
        report.problems.append(f"the plan cannot be read: {error}")
    else:
        if not planned:
            report.problems.append(
                f"there is no plan under {storage.uri}/plan: nothing says what should be there"
            )
    return planned, superseded & planned.keys()


def _read_manifest(storage: Storage, report: VerifyReport) -> Manifest | None:
    try:
        manifest = open_current(storage)
    except BatchAssetsError as error:
        report.problems.append(str(error))
        return None
    report.version = manifest.version if manifest else None
    return manifest


def _unplanned(storage: Storage, planned: Mapping[str, Shard]) -> list[str]:
    """Markers of shards that are in no plan."""
    found: list[str] = []
    for info in storage.list("shards"):
        key = info.path.split("/")[1]
        if info.path == paths.shard_marker(key) and key not in planned:
            found.append(f"{info.path}: commits a shard that no plan under {storage.uri} names")
    return found


def _tell_unmerged(
    shards: Mapping[str, VerifiedShard], manifest: Manifest | None, report: VerifyReport
) -> None:
    """Shards outside the published version: an error only where there is no published version."""
    merged = {shard.shard for shard in manifest.merged_shards} if manifest else set[str]()
    uncommitted = [key for key, shard in shards.items() if shard.uncommitted and key not in merged]
    waiting = [key for key, shard in shards.items() if shard.marker is not None and key not in merged]
    if uncommitted:
        records = sum(shards[key].shard.records for key in uncommitted)
        sentence = (
            f"not embedded yet: {records} records of {len(uncommitted)} shards ({name_some(uncommitted)})"
        )
        if manifest is None:
            report.problems.append(f"{sentence}; run the pipeline to go on")
        else:
            report.notes.append(sentence)
    if manifest is None and not report.problems:
        report.notes.append("nothing is published yet; merge to publish")
    elif manifest is not None and waiting:
        report.notes.append(
            f"embedded but not in {manifest.version}, being newer, stale or superseded: {name_some(waiting)}"
        )
