"""The pipelines that take requests, as they are declared now, without reading their files at every request."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from batch_assets.components.declared import Declared
from batch_assets.requests.bodies import BodyRules
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.settings.requests import RequestsSettings

READ_AGAIN_SECONDS = 2.0
STALE_SECONDS = 30.0


@dataclass(frozen=True)
class RequestPipeline:
    """A pipeline whose records come over HTTP."""

    settings: PipelineSettings
    bodies: BodyRules

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def rules(self) -> RequestsSettings:
        assert self.settings.source.requests is not None
        return self.settings.source.requests


class Unusable(Exception):
    """A request names no pipeline that takes it; `status` is HTTP's."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class RequestPipelines:
    """Those of a defs folder. `load` reads it; threads may share this."""

    def __init__(self, load: Callable[[], Declared]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._declared = Declared({}, [], [])
        self._found: dict[str, RequestPipeline] = {}

    def all(self) -> dict[str, RequestPipeline]:
        """By name."""
        self._refresh()
        return self._found

    def names(self) -> list[str]:
        """As they were read last."""
        return sorted(self._found)

    def longest_body(self) -> int:
        """The longest body that any of them takes."""
        return max((one.rules.max_body_bytes for one in self._found.values()), default=0)

    def meant(self, name: str | None) -> RequestPipeline:
        """The one of this name, or the only one. Raises Unusable.

        Files are read only where somebody else has not done so of late (`all`), or the name is not known.
        """
        found = self._found
        if (name not in found if name is not None else len(found) != 1) or self._age() > STALE_SECONDS:
            found = self.all()
        if name is None and len(found) == 1:
            return next(iter(found.values()))
        known = ", ".join(sorted(found)) or "none"
        if name is None:
            raise Unusable(404, f"name the pipeline, as ?pipeline=NAME (taking requests: {known})")
        if name in found:
            return found[name]
        if (broken := self._declared.why_broken(name)) is not None:
            raise Unusable(503, broken)
        raise Unusable(404, f"there is no pipeline {name!r} that takes requests (taking requests: {known})")

    def _age(self) -> float:
        return time.monotonic() - self._read_at

    def _refresh(self) -> None:
        with self._lock:
            if self._age() < READ_AGAIN_SECONDS:
                return
            self._declared = self._load()
            known = self._found
            self._found = {
                name: known[name]
                if name in known and known[name].settings == settings
                else RequestPipeline(settings, BodyRules(settings))
                for name, settings in self._declared.pipelines.items()
                if settings.source.requests is not None
            }
            self._read_at = time.monotonic()
