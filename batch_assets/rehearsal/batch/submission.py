"""What SubmitJob is given: whether AWS Batch would take it, and what its children are to do."""

import re
from collections.abc import Mapping
from typing import Any

from batch_assets.rehearsal.batch.definitions import Definition
from batch_assets.rehearsal.batch.job import Work
from batch_assets.rehearsal.wire import ServiceError

MOST_BYTES = 30 * 1024
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,127}")
SHARE = re.compile(r"[a-zA-Z0-9]{1,255}")
GLOB = re.compile(r"[A-Za-z0-9.:\s]*\*?")
CODE_GLOB = re.compile(r"[0-9]*\*?")
ARRAY = (2, 10_000)
MOST_DEPENDENCIES = 20
SHORTEST_TIMEOUT = 60
MOST_TAGS = 50


def check_submission(given: Mapping[str, Any], size: int) -> None:
    """Raises ServiceError for what the service refuses; `size`: bytes of the request."""
    if size > MOST_BYTES:
        raise refused(f"Request size {size} is above the maximum payload of {MOST_BYTES} bytes")
    if not NAME.fullmatch(given["jobName"]):
        raise refused("Job name should match valid pattern")
    array = given.get("arrayProperties")
    if array is not None and not ARRAY[0] <= array.get("size", 0) <= ARRAY[1]:
        raise refused(f"Array size must be between {ARRAY[0]} and {ARRAY[1]}, was {array.get('size')}")
    if "shareIdentifier" in given and not SHARE.fullmatch(given["shareIdentifier"]):
        raise refused("shareIdentifier should match valid pattern")
    if not 0 <= given.get("schedulingPriorityOverride", 0) <= 9999:
        raise refused("schedulingPriorityOverride must be between 0 and 9999")
    if len(given.get("tags", {})) > MOST_TAGS:
        raise refused(f"A job must not have more than {MOST_TAGS} tags")
    _check_dependencies(given, isinstance(array, Mapping))
    check_limits(given)
    for variable in given.get("containerOverrides", {}).get("environment", []):
        if variable.get("name", "").startswith("AWS_BATCH"):
            raise refused(f"Environment variables must not start with AWS_BATCH: {variable['name']}")


def check_limits(given: Mapping[str, Any]) -> None:
    """RetryStrategy and timeout, of a job or of a definition; raises ServiceError."""
    retry = given.get("retryStrategy", {})
    if not 1 <= retry.get("attempts", 1) <= 10:
        raise refused(f"retryStrategy.attempts must be between 1 and 10, was {retry['attempts']}")
    rules = retry.get("evaluateOnExit", [])
    if len(rules) > 5:
        raise refused("retryStrategy.evaluateOnExit must not have more than 5 rules")
    for rule in rules:
        for name, pattern in (("onExitCode", CODE_GLOB), ("onReason", GLOB), ("onStatusReason", GLOB)):
            text = rule.get(name, "")
            if len(text) > 512 or not pattern.fullmatch(text):
                raise refused(f"{name} should match valid pattern, was {text!r}")
    seconds = given.get("timeout", {}).get("attemptDurationSeconds", SHORTEST_TIMEOUT)
    if seconds < SHORTEST_TIMEOUT:
        raise refused(f"attemptDurationSeconds must be at least {SHORTEST_TIMEOUT}, was {seconds}")


def _check_dependencies(given: Mapping[str, Any], is_array: bool) -> None:
    dependencies = given.get("dependsOn", [])
    if len(dependencies) > MOST_DEPENDENCIES:
        raise refused(f"A job must not depend on more than {MOST_DEPENDENCIES} jobs")
    for dependency in dependencies:
        kind = dependency.get("type")
        if kind == "SEQUENTIAL" and ("jobId" in dependency or not is_array):
            raise refused("SEQUENTIAL is for array jobs, without a jobId")
        if kind == "N_TO_N" and not is_array:
            raise refused("N_TO_N is for array jobs")
        if kind != "SEQUENTIAL" and "jobId" not in dependency:
            raise refused("A dependency needs a jobId")


def work_of(given: Mapping[str, Any], definition: Definition) -> Work:
    """The definition with what the request lays over it."""
    container, over = definition.container, given.get("containerOverrides", {})
    parameters = definition.content.get("parameters", {}) | given.get("parameters", {})
    command = over.get("command") or container.get("command") or []
    retry = given.get("retryStrategy") or definition.content.get("retryStrategy") or {}
    timeout = given.get("timeout") or definition.content.get("timeout") or {}
    resources = {each["type"]: each for each in container.get("resourceRequirements", [])}
    resources |= {each["type"]: each for each in over.get("resourceRequirements", [])}
    return Work(
        command=tuple(_filled_in(word, parameters) for word in command),
        environment={
            variable["name"]: variable.get("value", "")
            for variable in (*container.get("environment", []), *over.get("environment", []))
        },
        attempts=retry.get("attempts", 1),
        rules=retry.get("evaluateOnExit", []),
        timeout=timeout.get("attemptDurationSeconds"),
        resources=list(resources.values()),
    )


def _filled_in(word: str, parameters: Mapping[str, str]) -> str:
    return parameters.get(word.removeprefix("Ref::"), word) if word.startswith("Ref::") else word


def refused(message: str) -> ServiceError:
    """A ClientException as the service words it."""
    return ServiceError("ClientException", f"Error executing request, Exception : {message}")
