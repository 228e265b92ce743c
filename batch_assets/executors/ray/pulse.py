"""Whether the Ray that this process has joined is still there: asked now and then, by whoever waits for it.

Ray lets its driver wait for ever for what a node that is gone was asked for; and where its control store (GCS)
is gone, it answers nothing for 60 seconds and then ends the process. What is done about a Ray that is gone
belongs to `cluster.py`.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from batch_assets.errors import ClusterLost
from batch_assets.executors.base import WorkerDied

LOOK_EVERY_SECONDS = 5.0
UNREACHABLE_SECONDS = 30.0
"""So long the control store may be away, to be started again: well under the 60 s after which Ray ends us."""
SILENT_SECONDS = 300.0
ANSWER_SECONDS = 10.0
CONNECT_SECONDS = 5.0
GO_ON = "; once it is there again, the same command goes on"

Answer = TypeVar("Answer")


class Gone(Exception):
    """This Ray is gone. `final`: this process can have no other one."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


SILENT = Gone(f"it has not answered for {SILENT_SECONDS:g} s", final=True)


class Unreachable(Exception):
    """Its control store is not to be reached at the moment."""


class Pulse:
    """What is known of one Ray. `look` returns where it is there, and raises Gone or Unreachable."""

    def __init__(self, look: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.gone: Gone | None = None
        self._look = look
        self._clock = clock
        self._lock = threading.Lock()
        self._looked = clock()
        self._began: float | None = None
        self._without: dict[str, float] = {}  # since when looks, one after the other, have ended so

    def demand(self) -> None:
        """Return where it is there as far as is known, at once.

        Raises WorkerDied where it is gone and another may be had, ClusterLost where none may.
        """
        with self._lock:
            now = self._clock()
            if self._began is None and now - self._looked >= LOOK_EVERY_SECONDS and self.gone is None:
                self._began = now
                threading.Thread(target=self._look_once, name="ray-pulse", daemon=True).start()
            if self._began is not None and now - self._began > SILENT_SECONDS:
                self._lose(SILENT)
            gone = self.gone
        if gone is not None:
            raise lost(gone)

    def look_now(self) -> None:
        """The same after a look of its own, which takes ANSWER_SECONDS at most."""
        with contextlib.suppress(TimeoutError):  # `demand` knows for how long that has been so
            answer_within(ANSWER_SECONDS, self._look_once)
        self.demand()

    def _look_once(self) -> None:
        began, found, ended = self._clock(), None, ""
        try:
            self._look()
        except Gone as error:
            found = error
        except Unreachable:
            ended = "store"
        except Exception:  # what Ray raises where it is too busy, or disconnected meanwhile
            ended = "answer"
        with self._lock:
            self._began, self._looked = None, self._clock()
            self._without = {ended: self._without.get(ended, began)} if ended else {}
            if found is not None:
                self._lose(found)
            elif self._looked - self._without.get("store", self._looked) > UNREACHABLE_SECONDS:
                self._lose(Gone("its control store (GCS) is not to be reached any more", final=True))
            elif self._looked - self._without.get("answer", self._looked) > SILENT_SECONDS:
                self._lose(SILENT)

    def _lose(self, gone: Gone) -> None:
        self.gone = self.gone or gone


def lost(gone: Gone) -> Exception:
    """The error for whoever has work at a Ray that is gone."""
    if gone.final:
        return ClusterLost(
            f"Ray: {gone}, and a process that has lost it can join no other; nothing that is committed is lost"
            f"{GO_ON}"
        )
    return WorkerDied(f"Ray: {gone}", machine_lost=True)


def look_at_own(started_here: bool, through_client: bool) -> Callable[[], None]:
    """A look at the Ray that this process has joined: its processes if they are ours, its store, its nodes."""
    import ray

    context = ray.get_runtime_context()
    node = context.get_node_id()
    store = None if through_client else str(context.gcs_address)

    def look() -> None:
        if not ray.is_initialized():
            raise Gone("this process has been disconnected from it")
        if started_here:
            _look_at_processes()
        elif store is not None:
            _reach(store)
        if not any(each["NodeID"] == node and each["Alive"] for each in ray.nodes()):
            raise Gone("the node that this process has joined is gone (its raylet has ended)")

    return look


def _look_at_processes() -> None:
    from ray._private import worker

    started: Any = getattr(worker, "_global_node", None)
    dead = {name for name, _ in started.dead_processes()} if started is not None else set()
    for name, what, final in (("gcs_server", "control store (GCS)", True), ("raylet", "raylet", False)):
        if name in dead:
            raise Gone(f"its {what} on this machine has ended: killed, or out of memory", final=final)


def _reach(store: str) -> None:
    host, _, port = store.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise Unreachable(str(error)) from None


def answer_within(seconds: float, ask: Callable[[], Answer]) -> Answer:
    """What `ask` returns or raises. Raises TimeoutError where that takes longer; its thread is left behind."""
    answers: list[Answer] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            answers.append(ask())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="ray-question", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError
    return answers[0]
