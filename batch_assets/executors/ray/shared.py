"""What all that this process does on Ray shares: the one connection that it may have, and the pools of workers on it.

For how long a cluster that is gone is waited for is `cluster.py`'s to say.
"""

import atexit
import contextlib
import threading
from dataclasses import dataclass, field

from batch_assets.encoders.fingerprint import fingerprint
from batch_assets.errors import ClusterLost, ConfigurationError
from batch_assets.executors.base import WorkerDied
from batch_assets.executors.ray.connection import AUTO, LOCAL, Connection, import_ray, join, leave
from batch_assets.executors.ray.deaths import deaths_explained, summary
from batch_assets.executors.ray.pool import WorkerPool
from batch_assets.executors.ray.pulse import GO_ON, Pulse, answer_within, look_at_own
from batch_assets.executors.ray.room import Room, count_workers, need_of
from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import LEAVE_SECONDS, LOSSES_IN_A_ROW
from batch_assets.settings.in_place import RayExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings

logger = plain_logger(__name__)


class Away(Exception):
    """The cluster is gone, and nothing answers at its address yet."""


@dataclass
class Shared:
    """What the process has. Everything is called under `lock`."""

    connection: Connection | None = None
    pulse: Pulse | None = None
    pools: dict[tuple[str, object, object, object], WorkerPool] = field(default_factory=dict)
    registered: bool = False
    losses: int = 0
    away: Connection | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)

    def pool(self, settings: PipelineSettings, executor: RayExecutorSettings, asked: str) -> WorkerPool:
        """The workers of the pipeline's model, on a Ray that is there as far as is known."""
        connection, pulse = self._connect(asked)
        key = (fingerprint(settings), executor.cpus_per_worker, executor.gpus_per_worker, executor.workers)
        known = self.pools.get(key)
        if known is not None and known.pulse is not pulse:
            # As many as there were, whatever has come back already: whoever waits for room does so for a while.
            known = self.pools[key] = known.on(pulse)
            return known
        if known is not None and not (executor.workers == "auto" and known.is_idle()):
            return known  # also where nodes have been lost since: it goes on with the others
        room = self._room(connection, pulse)
        if known is not None:
            known.size = room.fits(known.need) or known.size
            return known
        need = need_of(executor, room)
        size = count_workers(executor, room, need, connection.address)
        # Workers of another model would keep their room for themselves.
        for other in [other for other, pool in self.pools.items() if pool.is_idle()]:
            self.pools.pop(other).close()
        self.pools[key] = WorkerPool(settings, key[0], need, size, pulse)
        return self.pools[key]

    def _room(self, connection: Connection, pulse: Pulse) -> Room:
        """What the cluster's nodes have. Raises Away where it does not tell, ClusterLost where it never will."""
        try:
            with deaths_explained(pulse, None):
                return Room.of(import_ray().nodes())
        except WorkerDied as error:
            why = summary(error.__cause__ or error)
            logger.warning("%s does not tell of its nodes; it is asked again: %s", connection.address, why)
            raise Away(f"{connection.address} does not tell of its nodes ({why})") from error

    def forget(self) -> None:
        """Whoever comes next joins what it is told to join."""
        self.away = None
        self.pools.clear()

    def close(self) -> None:
        """End the workers, and leave the cluster; one that was started here ends."""
        for pool in self.pools.values():
            pool.close()
        self.pools.clear()
        if self.connection is not None and self.connection.ours:
            leave()
        self.connection, self.pulse, self.away = None, None, None

    def _connect(self, asked: str) -> tuple[Connection, Pulse]:
        ray = import_ray()
        if self.connection is not None and self.pulse is not None:
            self._look_after(self.connection, self.pulse)
        if self.connection is None and self.away is not None:
            self._join_again(self.away)
        if self.connection is None and ray.is_initialized() and asked == AUTO:
            # dagster-ray's resource or the caller's own code has joined it.
            self.connection = Connection(AUTO, "the Ray that this process has joined", ours=False)
        if self.connection is not None and asked not in (AUTO, self.connection.asked):
            if not self.connection.ours or not all(pool.is_idle() for pool in self.pools.values()):
                raise ConfigurationError(
                    f"executor.address: {asked} cannot be joined, since this process works with "
                    f"{self.connection.address}; run it in a process of its own"
                )
            self.close()
        if self.connection is None:
            self.connection, self.pulse = join(asked), None
            if not self.registered:
                self.registered = True
                atexit.register(self.close)
        if self.pulse is None:
            through_client = bool(ray.util.client.ray.is_connected())
            self.pulse = Pulse(look_at_own(self.connection.again == LOCAL, through_client))
        return self.connection, self.pulse

    def _look_after(self, connection: Connection, pulse: Pulse) -> None:
        """Leave a Ray that is gone, so that another can be had. Raises ClusterLost where none can."""
        if pulse.gone is None:
            if import_ray().is_initialized():
                return
            if connection.again in (AUTO, LOCAL):  # somebody has shut it down
                self.connection = self.pulse = None
                self.pools.clear()
                return
        reason = pulse.gone or "the connection to it is lost"
        if pulse.gone is not None and pulse.gone.final:
            pulse.demand()
        self.connection = self.pulse = None
        if not connection.ours:
            raise ClusterLost(
                f"Ray: {reason}; it was joined by somebody else in this process, who must join it again{GO_ON}"
            )
        self.losses = 1 if any(pool.has_worked for pool in self.pools.values()) else self.losses + 1
        with contextlib.suppress(Exception):  # there may be nothing left to take leave of
            answer_within(LEAVE_SECONDS, leave)
        if self.losses > LOSSES_IN_A_ROW:
            self.losses = 0
            self.forget()
            raise ClusterLost(
                f"Ray: {reason}, for the {LOSSES_IN_A_ROW + 1}th time before a shard was done; fewer workers, or a "
                f"smaller executor.batch_tokens or batch_records, need less memory{GO_ON}"
            )
        self.away = connection

    def _join_again(self, lost: Connection) -> None:
        """Start anew what was started here, join again what was joined. Raises Away where it does not answer yet."""
        if lost.again == LOCAL:
            logger.warning("Ray on this machine is gone; it is started anew")
        try:
            self.connection, self.pulse = join(lost.asked, again=lost.again), None
        except ConfigurationError as error:
            logger.warning("%s is gone; it is waited for: %s", lost.address, error)
            raise Away(f"the cluster at {lost.address} is gone") from error
        self.away = None
