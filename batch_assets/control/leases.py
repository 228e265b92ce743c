"""Taking leases by name, keeping this process's leases alive, giving back what was held.

What a lease means is the ledger's business.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator

from batch_assets.ledger.database import LedgerAway
from batch_assets.ledger.holder import Holder
from batch_assets.ledger.ledger import Ledger
from batch_assets.patience import is_ended, pause, waiting_shortly
from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import HEARTBEAT_SECONDS, HELD_SECONDS

logger = plain_logger(__name__)


@contextlib.contextmanager
def heartbeat(ledger: Ledger, holder: Holder) -> Iterator[None]:
    """Extend all leases of `holder` every 10 s for as long as the block runs.

    The ledger waits for a database that is away, and so does a beat; one that fails all the same
    is tried again at the next. A holder whose lease was lost meanwhile cannot commit anything.
    """
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            try:
                ledger.heartbeat(holder)
            except LedgerAway:
                pass  # it has said so itself, and whoever has something to commit will be told
            except Exception as error:
                logger.warning("heartbeat: the ledger did not answer (%s); trying again", error)

    thread = threading.Thread(target=beat, name="ledger-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        # A beat that waits for the ledger holds nobody up who has been told to stop.
        thread.join(HEARTBEAT_SECONDS)


@contextlib.contextmanager
def exclusive(
    ledger: Ledger, name: str, holder: Holder, waiting: Callable[[str], None] = logger.warning
) -> Iterator[None]:
    """Have the lease `name` while the block runs; waits for whoever has it, and says so once."""
    said: Holder | None = None
    while ledger.lease(name, holder) is None:
        found = ledger.lease_holder(name)
        if found is not None and found != said:
            waiting(f"waiting for {name}, which {found} has")
            said = found
        pause(HELD_SECONDS)
    try:
        yield
    except BaseException as error:
        with giving_back(error):
            ledger.release_lease(name, holder)
        raise
    ledger.release_lease(name, holder)


@contextlib.contextmanager
def giving_back(ended_by: BaseException) -> Iterator[None]:
    """Give back in the block what some work had: what ended the work is told, not that the ledger is away as well.

    Whoever is told to end (Ctrl-C, termination) waits for the ledger no longer than a tick does.
    """
    is_told_to_end = is_ended() or not isinstance(ended_by, Exception)
    with contextlib.suppress(Exception), waiting_shortly() if is_told_to_end else contextlib.nullcontext():
        yield
