"""This process and its Ray: a cluster that it joins, or one that it starts on this machine.

A process has one Ray at a time. One that somebody else joined before (dagster-ray, or the caller's
own code) is used and left as it is.
"""

import contextlib
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from batch_assets.errors import ConfigurationError
from batch_assets.plain_text import plain_logger

ANSWER_SECONDS = 15
AUTO, LOCAL = "auto", "local"
TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE")

logger = plain_logger(__name__)


@dataclass(frozen=True)
class Connection:
    """What this process is connected to. `asked` is the address that was asked for; `ours`: we made it.

    `again` is the address at which it is joined again, or `local`, where it was started.
    """

    asked: str
    address: str
    ours: bool
    again: str = AUTO


def join(asked: str, *, again: str | None = None) -> Connection:
    """Join the Ray at an address (`settings.RayExecutorSettings.address`), or start one here.

    With `again`, what stood at `asked` before is joined again, or started anew.

    Raises ConfigurationError where Ray is not installed, where nothing answers (within about
    ANSWER_SECONDS), and where this process is connected to another one.
    """
    ray = import_ray()
    if ray.is_initialized():
        raise ConfigurationError(
            f"executor.address: this process is connected to another Ray than {asked}; run it in a process of its own"
        )
    target = _target(again or asked)
    if target is None:
        address = "a Ray on this machine"
        _give_token()
        with _on_loopback_only():
            # Ray makes its workers nice, as guests of somebody's machine; here they are the work.
            _init(ray, address, address=LOCAL, include_dashboard=False, _system_config={"worker_niceness": 0})
    else:
        address = target
        _demand_answer(target)
        _init(ray, address, address=target)
    return Connection(asked, address, ours=True, again=target or LOCAL)


def leave() -> None:
    """Disconnect; a Ray that was started here ends."""
    import_ray().shutdown()


def import_ray() -> Any:
    """The library. Raises ConfigurationError where it is not installed."""
    try:
        import ray
    except ModuleNotFoundError:
        raise ConfigurationError(
            "executor ray needs Ray, which is not installed; pip install 'batch-assets[ray]'"
        ) from None
    return ray


def _target(asked: str) -> str | None:
    """The address to join; None: start a Ray here."""
    if asked == AUTO:
        asked = os.environ.get("RAY_ADDRESS") or AUTO
    if asked == AUTO:
        from ray._private.services import find_bootstrap_address

        running = find_bootstrap_address(None)  # what `ray start` on this machine noted
        if running is None or _answers(running):
            return running
        logger.warning("the Ray that was started at %s answers no more; another one is started here", running)
        return None
    return None if asked == LOCAL else asked


def _demand_answer(address: str) -> None:
    """Refuse at once what Ray would wait for: two minutes, and then it would end this process."""
    scheme, _, place = address.rpartition("://")
    if scheme not in ("", "ray"):
        raise ConfigurationError(
            f"executor.address: {address!r} is no address of Ray; write ray://<head>:10001, or <head>:6379 from "
            "a machine of the cluster"
        )
    host, _, port = place.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigurationError(
            f"executor.address: {address!r} names no port; write {scheme + '://' if scheme else ''}{place}:"
            f"{10001 if scheme else 6379}"
        )
    if not _answers(place):
        raise ConfigurationError(
            f"executor.address: no Ray answers at {address} within {ANSWER_SECONDS} s; start it (ray start --head), "
            "or correct the address (port 10001 with ray://, else 6379)"
        )


def _answers(place: str) -> bool:
    """Whether something speaks gRPC at host:port."""
    import grpc

    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except OSError:
        return False
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0", "false"):
        return True  # only Ray has the keys to find out more
    channel = grpc.insecure_channel(place, options=[("grpc.enable_http_proxy", 0)])
    try:
        grpc.channel_ready_future(channel).result(timeout=ANSWER_SECONDS)
    except grpc.FutureTimeoutError:
        return False
    finally:
        channel.close()
    return True


def _init(ray: Any, shown: str, **options: Any) -> None:
    handler = _sigterm_handler()
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(
            f"executor.address: {shown} cannot be used: {reason}; outside the cluster's machines write "
            "ray://<head>:10001, and use the cluster's own versions of Ray and Python"
        ) from error
    finally:
        if handler is not None:  # Ray puts its own, which knows nothing of the run
            signal.signal(signal.SIGTERM, handler)
    _never_start_by_itself()
    # What Ray prints about workers that die goes to stdout; here it becomes an error or a warning.
    ray._private.worker._worker_logs_enabled = False


def _never_start_by_itself() -> None:
    """Any call of Ray would start one here where there is none: a run whose cluster is gone would go on in that."""
    from ray._private import auto_init_hook

    auto_init_hook.enable_auto_connect = False


def _sigterm_handler() -> Any:
    return signal.getsignal(signal.SIGTERM) if threading.current_thread() is threading.main_thread() else None


def _give_token() -> None:
    """A token of this process's Rays alone, unless there is one: Ray would write one into the user's home.

    It stays for the life of the process, which reads it once.
    """
    if not any(name in os.environ for name in TOKEN_VARIABLES):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


@contextlib.contextmanager
def _on_loopback_only() -> Iterator[None]:
    """Have a new Ray listen on 127.0.0.1, as it does on macOS; on Linux it has no option for that."""
    from ray._private import ray_constants

    name = "ENABLE_RAY_CLUSTER"
    before = getattr(ray_constants, name, None)
    setattr(ray_constants, name, False)
    try:
        yield
    finally:
        setattr(ray_constants, name, before)
