"""Every ledger test runs on SQLite and on a real PostgreSQL."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest

from batch_assets.ledger.ledger import Ledger
from batch_assets_tests.ledger.helpers import KEYS
from batch_assets_tests.ledger.postgres import find_binaries, running_server


@dataclass
class Clock:
    """Time that passes when a test says so."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    binaries = find_binaries()
    if binaries is None:
        pytest.fail(
            "no PostgreSQL here (initdb is neither on PATH nor in /usr/lib/postgresql): run `make test`, "
            "which installs one"
        )
    with running_server(binaries) as url:
        yield url


@pytest.fixture
def postgresql_url(postgresql_server: str) -> Iterator[str]:
    """An empty database of its own."""
    name = f"ledger_{uuid.uuid4().hex}"
    connection = psycopg2.connect(postgresql_server)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
        yield postgresql_server.replace("/postgres?", f"/{name}?")
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
    connection.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql_url")
    return f"sqlite:///{tmp_path}/ledger/ledger.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened() -> Iterator[Callable[..., Ledger]]:
    """Opens ledgers that are closed when the test ends."""
    ledgers: list[Ledger] = []

    def open_ledger(url: str, **options: object) -> Ledger:
        ledgers.append(Ledger.open(url, **options))
        return ledgers[-1]

    yield open_ledger
    for ledger in ledgers:
        ledger.dispose()


@pytest.fixture
def ledger(url: str, clock: Clock, opened: Callable[..., Ledger]) -> Ledger:
    """A ledger with pipeline `texts` at epoch 1 and five planned shards of 100 records."""
    ledger = opened(url, clock=clock)
    ledger.attach("texts", "s3://bucket/out", 1)
    ledger.add_shards("texts", 1, [(key, ordinal, 100, 5_000) for ordinal, key in enumerate(KEYS)])
    return ledger
