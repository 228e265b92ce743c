"""How many workers a cluster has room for, by what its nodes have: counted, never tried out.

Nodes that an autoscaler could add are not there yet and do not count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batch_assets.errors import ConfigurationError
from batch_assets.settings.in_place import RayExecutorSettings

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Need:
    """What one worker takes of its node."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        gpus = f" and {_count(self.gpus, 'GPU')}" if self.gpus else ""
        return f"{_count(self.cpus, 'CPU')}{gpus}"


@dataclass(frozen=True)
class Room:
    """The nodes that are there, each with its CPUs and GPUs, whoever uses them at the moment."""

    nodes: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, nodes: Sequence[Mapping[str, Any]]) -> "Room":
        """From what `ray.nodes()` tells."""
        alive = (node["Resources"] for node in nodes if node["Alive"])
        return cls(tuple((float(each.get("CPU", 0)), float(each.get("GPU", 0))) for each in alive))

    @property
    def gpus(self) -> float:
        return sum(gpus for _, gpus in self.nodes)

    def fits(self, need: Need) -> int:
        """How many workers, each on one node and its GPUs whole or a share of a single one."""
        return sum(_fits(cpus, gpus, need) for cpus, gpus in self.nodes)

    def __str__(self) -> str:
        cpus = sum(cpus for cpus, _ in self.nodes)
        return f"{_count(cpus, 'CPU')} and {_count(self.gpus, 'GPU')} on {_count(len(self.nodes), 'node')}"


def need_of(executor: RayExecutorSettings, room: Room) -> Need:
    """What one worker of the pipeline takes. Raises ConfigurationError for GPUs that Ray cannot divide so."""
    gpus = executor.gpus_per_worker
    if gpus == "auto":
        gpus = 1.0 if room.gpus >= 1 else 0.0
    if gpus > 1 and gpus != int(gpus):
        raise ConfigurationError(
            f"executor.gpus_per_worker: {gpus:g} cannot be given out; write a whole number, or a share of one GPU"
        )
    return Need(executor.cpus_per_worker, float(gpus))


def count_workers(executor: RayExecutorSettings, room: Room, need: Need, address: str) -> int:
    """How many workers the pipeline gets. Raises ConfigurationError where there is no room for so many."""
    most = room.fits(need)
    wanted = most if executor.workers == "auto" else executor.workers
    if most == 0:
        remedy = "write smaller executor.cpus_per_worker or gpus_per_worker"
        if need.gpus and not room.gpus:
            remedy = "write executor.gpus_per_worker: 0 for workers on CPUs"
        raise ConfigurationError(
            f"executor ray: a worker takes {need}, and no node of {address} has that: there are {room}; "
            f"{remedy}, or add nodes"
        )
    if wanted > most:
        raise ConfigurationError(
            f"executor.workers: {wanted} workers of {need} each have no room on {address}, which has {room}: "
            f"at most {most}; write workers: {most} or auto, or add nodes first"
        )
    return wanted


def _fits(cpus: float, gpus: float, need: Need) -> int:
    by_cpus = int(cpus / need.cpus + _ROUNDING)
    if not need.gpus:
        return by_cpus
    # A share is of one GPU: what is left of two is not put together.
    by_gpus = (
        int(gpus / need.gpus + _ROUNDING) if need.gpus >= 1 else int(gpus) * int(1 / need.gpus + _ROUNDING)
    )
    return min(by_cpus, by_gpus)


def _count(number: float, what: str) -> str:
    return f"{number:g} {what}{'' if number == 1 else 's'}"
