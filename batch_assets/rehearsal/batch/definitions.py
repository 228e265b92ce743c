"""Job definitions: registered in revisions, found by name, name:revision or ARN."""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batch_assets.rehearsal.account import ACCOUNT
from batch_assets.rehearsal.wire import ServiceError

MOST_BYTES = 24 * 1024


@dataclass(frozen=True, slots=True)
class Definition:
    """One revision. `content` is what RegisterJobDefinition was given."""

    name: str
    revision: int
    region: str
    content: Mapping[str, Any]

    @property
    def arn(self) -> str:
        return f"arn:aws:batch:{self.region}:{ACCOUNT}:job-definition/{self.name}:{self.revision}"

    @property
    def container(self) -> Mapping[str, Any]:
        return self.content["containerProperties"]

    def described(self) -> dict[str, Any]:
        return {
            "jobDefinitionArn": self.arn,
            "revision": self.revision,
            "status": "ACTIVE",
            "containerOrchestrationType": "ECS",
            "parameters": {},
            "platformCapabilities": ["EC2"],
            **self.content,
        }


class Definitions:
    """All definitions of the account; calls may come from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], list[Definition]] = {}

    def register(self, region: str, given: Mapping[str, Any]) -> Definition:
        """A new revision, the same content or not; raises ServiceError."""
        _check(given)
        name = given["jobDefinitionName"]
        with self._lock:
            revisions = self._known.setdefault((region, name), [])
            revisions.append(Definition(name, len(revisions) + 1, region, given))
            return revisions[-1]

    def find(self, region: str, asked: str) -> Definition | None:
        """The revision that is asked for, else the newest."""
        name, _, revision = asked.rsplit("/", 1)[-1].partition(":")
        with self._lock:
            revisions = self._known.get((region, name), [])
        if not revision:
            return revisions[-1] if revisions else None
        return next((found for found in revisions if str(found.revision) == revision), None)

    def all(self, region: str, name: str | None, asked: Sequence[str]) -> list[Definition]:
        """Revisions of a name, or the ones asked for, or all: the newest of each name first."""
        if asked:
            return [found for each in asked if (found := self.find(region, each))]
        with self._lock:
            return [
                found
                for (place, known), revisions in self._known.items()
                if place == region and name in (None, known)
                for found in reversed(revisions)
            ]


def _check(given: Mapping[str, Any]) -> None:
    if given["type"] != "container" or "containerProperties" not in given:
        raise ServiceError("ClientException", "the rehearsal has definitions with containerProperties only")
    if len(json.dumps(given).encode()) > MOST_BYTES:
        raise ServiceError("ClientException", f"Job definition must not be larger than {MOST_BYTES} bytes.")
    container = given["containerProperties"]
    if not container.get("image"):
        raise ServiceError("ClientException", "Container properties should specify image.")
    kinds = {each["type"] for each in container.get("resourceRequirements", [])}
    for kind, old in (("VCPU", "vcpus"), ("MEMORY", "memory")):
        if kind not in kinds and not container.get(old):
            raise ServiceError("ClientException", f"Container properties should specify {kind}.")
    if "FARGATE" in given.get("platformCapabilities", []):
        if "GPU" in kinds:
            raise ServiceError("ClientException", "GPU is not supported for Fargate job definitions.")
        if not container.get("executionRoleArn"):
            raise ServiceError(
                "ClientException",
                "EC2 and Fargate: executionRoleArn is required for Fargate job definitions.",
            )
