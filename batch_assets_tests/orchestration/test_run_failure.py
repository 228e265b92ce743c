"""A run's failure is the error that its asset met, also where Dagster hands on no more than its name."""

import dagster as dg
import pytest

from batch_assets.errors import (
    BatchAssetsError,
    CredentialsRefused,
    LastingStorageError,
    NotReady,
    StorageError,
    UnreadableFile,
)
from batch_assets.ledger.database import LedgerAway, TransactionLost
from batch_assets.orchestration.run_failure import RunFailed, cause_of


def cause_of_a_run_that_meets(error: BatchAssetsError) -> Exception:
    @dg.asset
    def failing() -> None:
        raise dg.Failure(description=str(error), allow_retries=False) from error

    with dg.DagsterInstance.ephemeral() as instance:
        return cause_of(dg.materialize([failing], instance=instance, raise_on_error=False))


@pytest.mark.parametrize(
    "kind",
    [UnreadableFile, LedgerAway, TransactionLost, CredentialsRefused, LastingStorageError, StorageError],
)
def test_a_special_kind_of_error_is_told_as_what_it_is(kind: type[BatchAssetsError]) -> None:
    found = cause_of_a_run_that_meets(kind("a.jsonl: the reason; the next step"))
    assert type(found) is kind
    assert str(found) == "a.jsonl: the reason; the next step"


def test_what_only_concerns_its_shard_is_a_failed_run() -> None:
    found = cause_of_a_run_that_meets(NotReady("shard g0001-00000: not yet"))
    assert type(found) is RunFailed
    assert str(found) == "shard g0001-00000: not yet"
