"""What all tests share: one tiny model, made once, and AWS on this machine."""

import contextlib
import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

# The same examples at every run: a change is judged by what it changed. HYPOTHESIS_PROFILE=random looks for others.
# How long one takes says how busy the machine is, and nothing else.
SLOWLY: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("fixed", derandomize=True, **SLOWLY)
settings.register_profile("random", **SLOWLY)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

pytest.register_assert_rewrite("batch_assets_tests.sites", "batch_assets_tests.rehearsed")

import batch_assets_tests.databases  # noqa: E402, F401
from batch_assets_tests.builders import make_tiny_model  # noqa: E402
from batch_assets_tests.rehearsed import Rehearsal, rehearsed  # noqa: E402

# What costs seconds to start serves all tests that ask for it: by their names, they run in one process.
TOGETHER = {
    "/executors/test_ray.py": "ray",
    "postgresql": "postgresql",
    "/ledger/test_patience.py": "postgresql",
}
# What the daily round leaves out: services, servers, processes, deaths, and the search for odd orders of events.
NOT_QUICK = ("/benchmarks/", "/cli/", "/examples/", "/rehearsal/", "/server/", "end_to_end.py", "crashes.py",
             "invariants.py", "test_imports.py", "test_nvjpeg.py", "test_image.py", "test_text.py", "test_processes.py",
             "test_model_server.py", "test_racing.py", "test_together.py", "test_two_ledgers.py",
             "test_preprocessing.py")  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick", action="store_true", help="leave out tests of services, servers, processes and deaths"
    )


class Together(LoadScopeScheduling):
    """One test after the other goes to whatever process is free; those that share a server go to one."""

    def _split_scope(self, nodeid: str) -> str:
        return next((name for part, name in TOGETHER.items() if part in nodeid), nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    return Together(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long tests first, so that no core waits for one of them at the end."""
    long = ("/test_end_to_end.py", "/test_images_end_to_end.py", "/cli/", "")
    items.sort(key=lambda item: next(rank for rank, name in enumerate(long) if name in item.path.as_posix()))
    if config.getoption("--quick"):
        left_out = [item for item in items if not _is_quick(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def _is_quick(item: pytest.Item) -> bool:
    asked = item.fixturenames if isinstance(item, pytest.Function) else ()
    names = (*NOT_QUICK, *TOGETHER)
    return "rehearse" not in asked and not any(name in item.nodeid for name in names)


def pytest_collection_finish() -> None:
    """All modules are loaded: the collector need not go through them again and again (0.4 s each time)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a small random BERT in the sentence-transformers layout."""
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt here, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def rehearse(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Rehearsal]]:
    """Starts a rehearsed AWS with the faults it is given, until the test ends."""
    with contextlib.ExitStack() as stack:

        def start(**faults: Any) -> Rehearsal:
            return stack.enter_context(rehearsed(monkeypatch, **faults))

        yield start
