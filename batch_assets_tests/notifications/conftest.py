"""A hook for each test, and no pauses between attempts."""

from collections.abc import Iterator

import pytest

from batch_assets.notifications import posting
from batch_assets_tests.notifications.servers import Hook, hook


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    monkeypatch.setattr(posting, "HOOK_FIRST_PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with hook() as found:
        yield found
