"""Ledgers for tests: on SQLite, and with `both_databases` on a real PostgreSQL too.

Both come from a database that was migrated once; what migrations do is in `test_opening.py`.
"""

import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest
import sqlalchemy as sa

from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.outage import steady
from batch_assets_tests.ledger.helpers import planned
from batch_assets_tests.ledger.postgres import Server, running_server


@dataclass
class Clock:
    """Time that passes when a test says so."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Passing:
    """Time, by the ledger's clock and by the steady one, which pass together."""

    clock: Clock
    passed: float = 0.0

    def pass_by(self, seconds: float) -> None:
        self.clock.now += seconds
        self.passed += seconds


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    with running_server() as server:
        yield server.url


@pytest.fixture
def mortal_postgresql_server() -> Iterator[Server]:
    """A PostgreSQL server of a test's own, to be killed."""
    with running_server() as server:
        yield server


@contextmanager
def postgresql_database(server: str, template: str = "template1") -> Iterator[str]:
    """A database of its own, made like `template`; its URL."""
    name = f"ledger_{uuid.uuid4().hex}"
    connection = psycopg2.connect(server)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield server.replace("/postgres?", f"/{name}?")
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
    connection.close()


@contextmanager
def sqlite_database() -> Iterator[str]:
    """The URL of a file that is not there yet."""
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite:///{folder}/ledger.db"


@pytest.fixture(scope="session")
def postgresql_template(postgresql_server: str) -> Iterator[str]:
    """The name of a database that has been migrated and is otherwise empty."""
    with postgresql_database(postgresql_server) as url:
        Ledger.open(url).dispose()
        yield sa.make_url(url).database or ""


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that has been migrated and is otherwise empty."""
    file = tmp_path_factory.mktemp("ledger") / "ledger.db"
    Ledger.open(f"sqlite:///{file}").dispose()
    return file


@pytest.fixture
def postgresql_url(postgresql_server: str, postgresql_template: str) -> Iterator[str]:
    with postgresql_database(postgresql_server, postgresql_template) as url:
        yield url


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path, sqlite_template: Path) -> str:
    """An empty ledger's URL, on the database that `both_databases` names, or else on SQLite."""
    if getattr(request, "param", "sqlite") == "postgresql":
        return request.getfixturevalue("postgresql_url")
    (tmp_path / "ledger").mkdir()
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'ledger' / 'ledger.db')}"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def passing(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Passing:
    passing, frozen = Passing(clock), steady()
    monkeypatch.setattr(time, "clock_gettime", lambda _: frozen + passing.passed)
    return passing


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
    return planned(opened(url, clock=clock), "s3://bucket/out")
