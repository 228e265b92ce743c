"""What the death of a worker says: of the shard it had, or only of the machine."""

from typing import Any

from batch_assets.executors.base import WorkerDied
from batch_assets.executors.ray.actor import Loaded

LONGEST_REASON = 300


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

    return any(each["NodeID"] == node and each["Alive"] for each in ray.nodes())
