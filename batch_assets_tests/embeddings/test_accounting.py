from dataclasses import replace
from pathlib import Path

import pytest

from batch_assets.embeddings.accounting import Accounting, account_shard
from batch_assets.errors import AccountingError
from batch_assets.storage import Storage, open_storage
from batch_assets_tests.embeddings.builders import write_shard

SHARD = "g0001-00000"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path))


def test_a_sound_shard_adds_up(storage: Storage) -> None:
    accounting = account_shard(storage, 6, write_shard(storage, SHARD, "eerffe"))
    assert accounting == Accounting(planned=6, embedded=3, rejected=1, failed=2)
    assert accounting.line() == "accounting: planned=6 embedded=3 rejected=1 failed=2"
    assert (accounting + accounting).planned == 12


@pytest.mark.parametrize(("planned", "said"), [(7, "1 records are missing"), (5, "1 are too many")])
def test_the_plan_is_what_counts(storage: Storage, planned: int, said: str) -> None:
    marker = write_shard(storage, SHARD, "eerffe")
    with pytest.raises(AccountingError, match=rf"shard {SHARD}: {planned} records planned.*{said}"):
        account_shard(storage, planned, marker)


def test_counters_are_not_believed(storage: Storage) -> None:
    marker = write_shard(storage, SHARD, "eer")
    lying = replace(marker, counts={"planned": 3, "embedded": 3, "rejected": 0, "failed": 0})
    with pytest.raises(AccountingError, match="its marker says"):
        account_shard(storage, 3, lying)


def test_a_lost_or_cut_file_is_named(storage: Storage, tmp_path: Path) -> None:
    marker = write_shard(storage, SHARD, "eer")
    file = tmp_path / marker.failures.path
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    with pytest.raises(AccountingError, match=r"failures-1\.parquet: has \d+ bytes"):
        account_shard(storage, 3, marker)
    file.write_bytes(b"x" * len(data))
    with pytest.raises(AccountingError, match=r"failures-1\.parquet: not a whole Parquet file"):
        account_shard(storage, 3, marker)
    file.unlink()
    with pytest.raises(AccountingError, match=r"failures-1\.parquet: the file is missing"):
        account_shard(storage, 3, marker)
