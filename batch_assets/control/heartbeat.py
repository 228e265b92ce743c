"""Keeps this process's leases alive while it works. What a lease means is the ledger's business."""

import contextlib
import logging
import threading
from collections.abc import Iterator

from batch_assets.ledger.holder import Holder
from batch_assets.ledger.ledger import Ledger

HEARTBEAT_SECONDS = 10.0
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def heartbeat(ledger: Ledger, holder: Holder) -> Iterator[None]:
    """Extend all leases of `holder` every 10 s for as long as the block runs.

    A beat that fails is tried again at the next one: the lease outlives five of them, and a
    holder whose lease was lost cannot commit anything.
    """
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            try:
                ledger.heartbeat(holder)
            except Exception as error:  # the ledger may be away for a moment
                logger.warning("heartbeat: the ledger did not answer (%s); trying again", error)

    thread = threading.Thread(target=beat, name="ledger-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
