"""Whether AWS Batch starts a job again: retryStrategy with its rules (evaluateOnExit)."""

from collections.abc import Mapping, Sequence

from batch_assets.rehearsal.batch.job import Ending

CONDITIONS = ("onExitCode", "onReason", "onStatusReason")


def is_retried(ending: Ending, attempt: int, attempts: int, rules: Sequence[Mapping[str, str]]) -> bool:
    """Whether an attempt (they count from 1) that failed is followed by another.

    The first rule decides whose conditions all match; none: it is retried.
    """
    if attempt >= attempts or ending.timed_out:
        return False
    for rule in rules:
        if _matches(rule, ending):
            return rule["action"].upper() == "RETRY"
    return True


def _matches(rule: Mapping[str, str], ending: Ending) -> bool:
    said = {
        "onExitCode": "" if ending.exit_code is None else str(ending.exit_code),
        "onReason": ending.reason or "",
        "onStatusReason": ending.status_reason,
    }
    return all(_glob(rule[name], said[name]) for name in CONDITIONS if rule.get(name))


def _glob(pattern: str, text: str) -> bool:
    # A star has a meaning at the end only.
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern
