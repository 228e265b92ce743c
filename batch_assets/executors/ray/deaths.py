"""What the death of a worker says: of the shard it had, or only of the machine."""

import contextlib
from collections.abc import Iterator
from typing import Any

from batch_assets.errors import ClusterLost
from batch_assets.executors.base import Cancelled, WorkerDied
from batch_assets.executors.ray.actor import Loaded
from batch_assets.executors.ray.pulse import ANSWER_SECONDS, Pulse, answer_within, lost

LONGEST_REASON = 300


@contextlib.contextmanager
def deaths_explained(pulse: Pulse, loaded: Loaded | None) -> Iterator[None]:
    """Have what a worker raised be raised as it was, and what Ray says of one that is gone as what it means."""
    from ray.exceptions import RayError, RayTaskError

    try:
        yield
    except RayTaskError as error:
        raise error.cause from error
    except (
        RayError,
        OSError,
    ) as error:  # the latter: a connection to it breaks
        pulse.look_now()
        raise explain_death(error, loaded) from error
    except Exception as error:
        if pulse.gone is None or isinstance(error, Cancelled | WorkerDied | ClusterLost):
            raise
        raise lost(pulse.gone) from error  # its references mean nothing to the next Ray


def explain_death(error: Any, loaded: Loaded | None) -> WorkerDied:
    """The error of a worker that is gone, from what Ray raised. Asks Ray whether its node is still there.

    A process that dies alone may have died of its shard. A node that is lost, or was taken back as
    spot instances are, says nothing about it; nor does a network that broke.
    """
    from ray.exceptions import ActorDiedError, OutOfMemoryError, WorkerCrashedError

    died = isinstance(error, ActorDiedError | WorkerCrashedError | OutOfMemoryError)
    preempted = bool(getattr(error, "preempted", False))
    where = "" if loaded is None else f" (pid {loaded.pid} on {loaded.host})"
    if died and not preempted and loaded is not None and _is_alive(loaded.node):
        return WorkerDied(
            f"its worker died{where}, perhaps for lack of memory: a smaller executor.batch_tokens or batch_records, "
            f"or fewer workers on a node, need less. Ray says: {summary(error)}"
        )
    what = "its node was taken back" if preempted else "its worker's node was lost"
    return WorkerDied(f"{what}{where}. Ray says: {summary(error)}", machine_lost=True)


def summary(error: BaseException) -> str:
    """What Ray says, on one line, from where it comes to the point."""
    text = " ".join(str(error).split())
    for beginning in ("Worker exit detail:", "The actor is dead because", "The actor died because"):
        if beginning in text:
            text = text[text.index(beginning) + len("Worker exit detail:") * (beginning[0] == "W") :].strip()
            break
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"


def _is_alive(node: str) -> bool:
    import ray

    try:
        nodes = answer_within(ANSWER_SECONDS, ray.nodes)
    except OSError:  # TimeoutError among them
        return False
    return any(each["NodeID"] == node and each["Alive"] for each in nodes)
