"""One committed shard, verified from its bytes; the merged version is `verified_version.py`'s business."""

from dataclasses import dataclass

from batch_assets.embeddings.accounting import Accounting, account_shard
from batch_assets.embeddings.marker import ShardMarker, read_marker
from batch_assets.embeddings.validation import VectorError
from batch_assets.errors import AccountingError
from batch_assets.merge.checks import check_results
from batch_assets.merge.copying import check_file
from batch_assets.merge.provenance import check_provenance
from batch_assets.sharding.plan import Shard
from batch_assets.storage import Storage


@dataclass(frozen=True)
class VerifiedShard:
    """What the files of one planned shard hold.

    `marker` is None where the shard is not committed, or its marker cannot be read, which is
    then the `problem`. What could not be counted is 0 in `accounting`.
    """

    shard: Shard
    marker: ShardMarker | None
    accounting: Accounting
    problem: str | None = None

    @property
    def uncommitted(self) -> bool:
        return self.marker is None and self.problem is None


def verify_shard(storage: Storage, shard: Shard, merged_sha256: str | None) -> VerifiedShard:
    """Check digests, counts, records and vectors (or answers) of a shard against its marker and the plan.

    `merged_sha256` is the digest of its merged part: where that has the same bytes, vectors are
    left to whoever reads the part.
    """
    marker, accounting = None, Accounting(planned=shard.records)
    try:
        found = read_marker(storage, shard.key)
        if found is None:
            return VerifiedShard(shard, None, accounting)
        marker = found[0]
        accounting = account_shard(storage, shard.records, marker)
        for file in marker.files:
            check_file(storage, file)
        check_provenance(storage, shard, marker)
        if marker.embeddings.sha256 != merged_sha256:
            check_results(storage, marker.embeddings.path, marker)
    except (AccountingError, VectorError) as error:
        return VerifiedShard(shard, marker, accounting, str(error))
    return VerifiedShard(shard, marker, accounting)
