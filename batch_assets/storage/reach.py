"""Asking an object store until it answers: what is away, what is wrong, and who renews the credentials.

How long that goes on is in `retry_policy.py`; what the store says is put in words in `object_errors.py`.
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
from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import (
    AWAY_SECONDS,
    FIRST_ANSWER_SECONDS,
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    SPEAK_SECONDS,
    Patience,
)
from batch_assets.storage.object_answers import parse_answer, seconds_tried

Made = TypeVar("Made")

_NOTHING_THERE = ("NotFoundError", "AlreadyExistsError", "PreconditionError", "NotModifiedError")
logger = plain_logger(__name__)


def is_away(told: Exception) -> bool:
    """Whether the store does not answer, or asks to come back: what was asked may be done, or not."""
    return isinstance(told, StorageError) and not isinstance(told, LastingStorageError)


@dataclass
class Reach:
    """The way to one store from this process. `renew` has its credentials read again; None: they never change.

    `answered`: it has done so before, so that its address and the credentials were right.
    """

    renew: Callable[[], None] | None = None
    answered: bool = False
    _said_at: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def ask(self, call: Callable[[], Made], explained: Callable[[Exception], Exception]) -> Made:
        """What `call` returns, however often it takes; `call` may be carried out more than once.

        `explained` puts an error in words. Raises what is wrong at once, LastingStorageError for what stays away.
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
                self._demand_hope(error, told)
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

    def _demand_hope(self, error: Exception, told: Exception) -> None:
        """Raise what waiting would not mend."""
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

    def meant(self, error: Exception, told: Exception) -> Exception:
        """What to raise where the call cannot be made again from here: `error` is obstore's, `told` puts it in words.

        Where obstore has tried for as long as a store is waited for, that is a LastingStorageError.
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
        """Once for all threads that wait for this store."""
        with self._lock:
            now = time.monotonic()
            if self._said_at is not None and now - self._said_at < SPEAK_SECONDS:
                return
            self._said_at = now
        logger.warning("%s", sentence)


def patient_retries() -> Any:
    """Obstore's own settings for what cannot be asked again from outside: the parts of an upload under way."""
    return {
        "max_retries": 1_000,
        "retry_timeout": timedelta(seconds=AWAY_SECONDS),
        "backoff": {
            "init_backoff": timedelta(seconds=FIRST_PAUSE_SECONDS),
            "max_backoff": timedelta(seconds=LONGEST_PAUSE_SECONDS),
            "base": 2,
        },
    }
