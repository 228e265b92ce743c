"""A store in memory for each test, and the environment that leads to it."""

from collections.abc import Iterator

import pytest

from batch_assets_tests.storage.stores import Store, lead_to, serving


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    found = Store()
    with serving(found) as address:
        lead_to(address, monkeypatch)
        yield found
