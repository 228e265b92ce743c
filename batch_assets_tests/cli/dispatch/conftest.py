"""A deployment, a model server, and a queue of each kind that a kill is survived by."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_assets_tests.command import Machine, make_machine
from batch_assets_tests.dispatch.valkey import Valkey, running_valkey
from batch_assets_tests.gateway.model_servers import RunningServer, model_server


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return make_machine(tmp_path / "home")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with model_server(tmp_path) as running:
        yield running


@pytest.fixture
def redis_server() -> Iterator[Valkey]:
    with running_valkey() as running:
        yield running


@pytest.fixture(params=["local", "redis"])
def queue(request: pytest.FixtureRequest) -> str:
    """The URL of a queue, of each kind that a kill is survived by."""
    if request.param == "local":
        return "local:asked"
    running: Valkey = request.getfixturevalue("redis_server")
    return f"redis://127.0.0.1:{running.port}/0?queue=asked"
