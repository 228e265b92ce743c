"""What a worker's settings become: gates that several pools share, and errors before anything is connected."""

import asyncio
from pathlib import Path

import pytest

from batch_assets.dispatch.assembly import Parts, assemble
from batch_assets.dispatch.metrics import Metrics
from batch_assets.errors import ConfigurationError
from batch_assets.requests.database import RequestsDatabase
from batch_assets.settings.dispatch import DispatchSettings
from batch_assets_tests.dispatch.gates.given import message


async def parts_of(folder: Path, **fields: object) -> Parts:
    settings = DispatchSettings.model_validate(fields)
    return assemble(settings, Metrics(), lambda: RequestsDatabase(f"sqlite:///{folder}/requests.db"))


async def closed(parts: Parts) -> None:
    for client in parts.clients:
        await client.close()


def test_gates_of_all_pools_count_their_messages_together(tmp_path: Path) -> None:
    async def main() -> None:
        parts = await parts_of(
            tmp_path,
            queues=[{"url": "local:a", "pool": "one"}, {"url": "local:b", "pool": "two"}],
            pools=[
                {"name": "one", "endpoint": "http://one", "gates": [{"type": "concurrency", "limit": 5}]},
                {"name": "two", "endpoint": "http://two", "gates": [{"type": "concurrency", "limit": 5}]},
            ],
            gates=[{"type": "concurrency", "limit": 2}, {"type": "quota", "limit": 1}],
        )
        names = sorted(gate.name for gate in parts.gates)
        assert names == ["all:concurrency", "all:quota", "one:concurrency", "two:concurrency"]
        number = next(gate for gate in parts.gates if gate.name == "all:concurrency")
        number.admit(message("u"))
        assert number.room() == 1
        await closed(parts)

    asyncio.run(main())


def test_a_key_that_is_not_there_is_said_before_anything_is_connected(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(ConfigurationError, match="api_key_env: NO_SUCH_KEY is not set"):
            await parts_of(tmp_path, endpoint="http://h", api_key_env="NO_SUCH_KEY")

    asyncio.run(main())
