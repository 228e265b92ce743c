"""Repeats a request until the object store answers it: which failures to wait for, and when to renew credentials.

`retry_policy.py` says how long to wait; `object_errors.py` puts a store's errors into words.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from batch_assets.errors import (
    BatchAssetsError,
    ConfigurationError,
    CredentialsRefused,
    LastingStorageError,
    StorageError,
)
from batch_assets.patience import Patience
from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import (
    AWAY_SECONDS,
    FIRST_ANSWER_SECONDS,
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    SPEAK_SECONDS,
)
from batch_assets.storage.object_answers import parse_answer, seconds_tried

Made = TypeVar("Made")

_NOTHING_THERE = ("NotFoundError", "AlreadyExistsError", "PreconditionError", "NotModifiedError")
logger = plain_logger(__name__)


def is_away(told: Exception) -> bool:
    """Whether waiting may help: the store gave no answer, or said "not now". It may have carried out the request."""
    return isinstance(told, StorageError) and not isinstance(told, LastingStorageError)


@dataclass
class Reach:
    """What this process knows of one store's address: whether it has answered there, and how to renew credentials.

    `renew` makes the next request read the credentials again; it is None where they cannot change. `answered` is
    set by the first answer: from then on the address and the credentials are known to have been right.
    """

    renew: Callable[[], None] | None = None
    answered: bool = False
    _said_at: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def ask(self, call: Callable[[], Made], explained: Callable[[Exception], Exception]) -> Made:
        """Repeat `call` until it succeeds, and return what it returns.

        The store may carry out `call` more than once. `explained` turns an error of obstore's into one for a person.
        Raises that error at once where waiting cannot help, LastingStorageError where the store has been waited for
        long enough.
        """
        patience: Patience | None = None
        while True:
            try:
                made = call()
            except BatchAssetsError:
                raise
            except Exception as error:
                if type(error).__name__ in _NOTHING_THERE or isinstance(error, FileNotFoundError):
                    self.answered = True
                told = explained(error)
                self._raise_where_waiting_cannot_help(error, told)
                if patience is None:
                    # Whoever says "slow down" is there, at an address that is right.
                    there = self.answered or parse_answer(error).status
                    patience = Patience(self.say, AWAY_SECONDS if there else FIRST_ANSWER_SECONDS)
                patience.wait(told)
                if isinstance(told, CredentialsRefused) and self.renew is not None:
                    self.renew()
            else:
                self.answered = True
                return made

    def _raise_where_waiting_cannot_help(self, error: Exception, told: Exception) -> None:
        """Raise the error where waiting cannot help."""
        if isinstance(told, CredentialsRefused) and self.answered:
            if self.renew is not None:
                return
            # Nobody can change this process's environment; and it is too late to call it a matter of configuration.
            raise LastingStorageError(str(told)) from error
        if told is error:
            raise error
        if not is_away(told):
            raise told from error
        if not self.answered and "dns error" in str(error):
            raise ConfigurationError(str(told)) from error

    def error_of_upload(self, error: Exception, told: Exception) -> Exception:
        """The error to raise where only obstore itself can repeat the request (a part of an upload).

        `error` is obstore's, `told` the same in words. Returns a LastingStorageError where obstore has repeated the
        request for AWAY_SECONDS, a StorageError where the caller may begin anew, else `told`.
        """
        if is_away(told) and (waited := seconds_tried(error)):
            return LastingStorageError(f"{told}; waited {waited:,.0f} s for it")
        if not (isinstance(told, CredentialsRefused) and self.answered):
            return told
        if self.renew is None:
            return LastingStorageError(str(told))
        self.renew()
        return StorageError(str(told))

    def say(self, sentence: str) -> None:
        """Log the sentence, unless a thread that waits for this store too has logged one in the last 30 seconds."""
        with self._lock:
            now = time.monotonic()
            if self._said_at is not None and now - self._said_at < SPEAK_SECONDS:
                return
            self._said_at = now
        logger.warning("%s", sentence)


def patient_retries() -> Any:
    """Settings by which obstore itself repeats a request for AWAY_SECONDS: a caller cannot repeat an upload's parts."""
    return {
        "max_retries": 1_000,
        "retry_timeout": timedelta(seconds=AWAY_SECONDS),
        "backoff": {
            "init_backoff": timedelta(seconds=FIRST_PAUSE_SECONDS),
            "max_backoff": timedelta(seconds=LONGEST_PAUSE_SECONDS),
            "base": 2,
        },
    }
