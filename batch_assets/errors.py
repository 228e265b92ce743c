"""The errors that a person can act on.

Each says the offending value, the reason and the next step. Faults of the program itself
stay ordinary exceptions and keep their traceback.
"""

from batch_assets.plain_text import plain_text


class BatchAssetsError(Exception):
    """The root of every error below; its text is meant for a person: one line, whatever it names."""

    def __str__(self) -> str:
        return plain_text(super().__str__())


class ConfigurationError(BatchAssetsError):
    """A setting cannot work. Raised before anything is written or paid for (exit code 2)."""


class CredentialsRefused(ConfigurationError):
    """Credentials have run out, or are no longer known; in the middle of a run, new ones may be on their way."""


class SourceError(BatchAssetsError):
    """A source cannot be listed or read as a whole: a missing path, a touched file."""


class UnreadableFile(SourceError):
    """What one file of a source holds cannot be read: it is cut off, damaged, or not what its name says.

    `beside` is its path and version where it holds no records, but what belongs to those of another file.
    """

    def __init__(self, message: str, beside: tuple[str, str] | None = None) -> None:
        super().__init__(message)
        self.beside = beside


class StorageError(BatchAssetsError):
    """A store does not answer as it should: no network, a refused request, a broken object."""


class LastingStorageError(StorageError):
    """One that waiting longer does not mend: a full disk, a store that has been waited for long enough."""


class LedgerError(BatchAssetsError):
    """The ledger's database refuses, or has been away for longer than is waited."""


class ModelError(BatchAssetsError):
    """A model cannot be found, loaded or trusted."""


class ClusterLost(BatchAssetsError):
    """The machines that compute are gone, and do not come back while this process waits; another one may find them."""


class ClaimLost(BatchAssetsError):
    """Another holder has claimed the shard since; whatever this one made is void."""


class NotReady(BatchAssetsError):
    """Something was asked for too early; the text says what is missing and what to do."""


class SubmissionRefused(BatchAssetsError):
    """A service will take no job of this pipeline until a person has changed something."""


class BudgetReached(BatchAssetsError):
    """What is left to do does not fit the pipeline's budget (exit code 4)."""


class AccountingError(BatchAssetsError):
    """Files and counts do not add up. Nothing is published from them."""


class AllRejected(AccountingError):
    """All records are rejected, which no other attempt would change. Nothing is published of them."""
