"""What there is to tell a person: one function for each kind of event, its words and its key.

Whether it has happened is for the caller to know, whether it was told before for `delivery.notify`.
What may come back with the same words, such as a refusal, is told once an hour: a key holds the hour.
"""

import hashlib
import re
import time
from collections.abc import Sequence

from batch_assets.notifications.base import Notification

REASON_CHARACTERS = 500
NAMED_SHARDS = 5
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
# Run ids, request ids, shard keys, counts: what differs between two tellings of one error.
PARTICULARS = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\w*\d\w*")


def job_failed(
    pipeline: str, shards: Sequence[str], job: str, message: str, attempts_left: int
) -> Notification:
    """A job ended without all its records, or the children of these shards did, of a job that has children.

    `job` is its name at the service, which no other attempt has: it is one event, however many
    shards failed with it.
    """
    named = " ".join(shards[:NAMED_SHARDS])
    if attempts_left > 0:
        meaning = (
            f"What it has done is kept. The rest is tried again by itself, {attempts_left} "
            f"time{'s' if attempts_left > 1 else ''} at most; there is nothing to do."
        )
        command = f"batch-assets status {pipeline}"
    else:
        meaning = (
            "No attempt is left. What is not done counts as failed, and if that is more than the pipeline's "
            "max_failed_fraction, nothing is published."
        )
        # Without names, all that have failed are taken up again.
        chosen = f" {named}" if len(shards) <= NAMED_SHARDS else ""
        command = f"batch-assets retry {pipeline}{chosen} && batch-assets run {pipeline}"
    what = f"the job of shard {named}" if len(shards) == 1 else f"a job of {len(shards):,} shards"
    more = f" ({named}{', …' if len(shards) > NAMED_SHARDS else ''})" if len(shards) > 1 else ""
    return Notification(
        key=job_key(pipeline, job),
        title=f"{pipeline}: {what} failed",
        happened=f"Job {job}{more}: {shorten(message)}",
        meaning=meaning,
        command=command,
        pipeline=pipeline,
        severity="warning" if attempts_left > 0 else "error",
    )


def job_key(pipeline: str, job: str) -> str:
    """The key of a failed job."""
    return f"job:{pipeline}:{job}"


def budget_reached(pipeline: str, budget_usd: float, message: str) -> Notification:
    """The next job does not fit into the budget; told once for each budget. `message`: the ledger's sum."""
    return Notification(
        key=f"budget:{pipeline}:{budget_usd!r}",
        title=f"{pipeline}: the budget of {budget_usd:g} USD is reached",
        happened=shorten(message),
        meaning="What runs is collected; nothing more is submitted until executor.budget_usd is raised.",
        command=f"batch-assets run {pipeline}  # after raising executor.budget_usd in its defs.yaml",
        pipeline=pipeline,
        severity="warning",
    )


def submission_refused(pipeline: str, message: str) -> Notification:
    """The service takes no job of this pipeline, for a reason that waiting does not mend."""
    return Notification(
        key=f"refused:{pipeline}:{_this_hour()}:{gist(message)}",
        title=f"{pipeline}: the service refuses its jobs",
        happened=one_line(message),
        meaning="Nothing was started and nothing is lost: the jobs stay queued, their files uploaded. "
        "None is submitted until this is mended.",
        command=f"batch-assets run {pipeline}  # after mending it",
        pipeline=pipeline,
        severity="error",
    )


def output_unexpected(pipeline: str, message: str) -> Notification:
    """Jobs write what the pipeline did not ask for, so none of them is of use."""
    return Notification(
        key=f"output:{pipeline}:{_this_hour()}:{gist(message)}",
        title=f"{pipeline}: stopped, since its jobs' output is not what was asked for",
        happened=one_line(message),
        meaning="What has run is paid for and of no use. Its jobs under way are stopped, and nothing more is started "
        "until this is mended.",
        command=f"batch-assets run {pipeline}  # after mending it",
        pipeline=pipeline,
        severity="error",
    )


def jobs_fail_alike(pipeline: str, since: float, message: str) -> Notification:
    """Jobs of which no record did well, one after the other, all with one answer; nothing is submitted `since` then."""
    return Notification(
        key=f"failing:{pipeline}:{since!r}",
        title=f"{pipeline}: stopped, since its jobs fail as a whole, one after the other",
        happened=one_line(message),
        meaning="No record has failed for good by it, and what did well is kept. Nothing more is submitted until "
        "this is mended.",
        command=f"batch-assets retry {pipeline} && batch-assets run {pipeline}  # after mending it",
        pipeline=pipeline,
        severity="error",
    )


def publishing_blocked(pipeline: str, revision: int, reason: str, *, rejected: bool = False) -> Notification:
    """A merge was made and may not be published; told once as long as nothing changes (the ledger's `revision`).

    Where all is `rejected`, which is final, trying again is no way out.
    """
    return Notification(
        key=blocked_key(pipeline, revision),
        title=f"{pipeline}: publishing is blocked",
        happened=shorten(reason),
        meaning="What was published before stays as it is, and all that is embedded stays. The same data is not "
        "published until this is mended.",
        command=f"batch-assets {'plan' if rejected else 'retry'} {pipeline}{' --replace' if rejected else ''}"
        f" && batch-assets run {pipeline}",
        pipeline=pipeline,
        severity="error",
    )


def blocked_key(pipeline: str, revision: int) -> str:
    """The key of a publishing that was blocked while the pipeline stood at this revision."""
    return f"blocked:{pipeline}:{revision}"


def published(
    pipeline: str,
    version: str,
    *,
    planned: int,
    embedded: int,
    rejected: int,
    failed: int,
    cost_usd: float | None,
    uri: str,
) -> Notification:
    """A version was published; told once for each."""
    bad = rejected + failed
    cost = f", for {cost_usd:,.2f} USD" if cost_usd is not None else ""
    return Notification(
        key=f"published:{pipeline}:{version}",
        title=f"{pipeline}: {version} is published",
        happened=f"{embedded:,} of {planned:,} records are embedded, {rejected:,} rejected, {failed:,} failed{cost}. "
        f"They lie in {uri}",
        meaning=f"Readers see it from now on. Why {bad:,} records are not in it, its failures.parquet says."
        if bad
        else "Readers see it from now on. Every record is in it.",
        command=f"batch-assets verify {pipeline}",
        pipeline=pipeline,
        severity="info",
    )


def start_failed(pipeline: str, key: str, reason: str) -> Notification:
    """A start of the pipeline that was ordered by web hook came to nothing; `key` is the order's."""
    return Notification(
        key=f"start:{pipeline}:{_this_hour()}:{gist(reason)}",
        title=f"{pipeline}: a start by web hook failed",
        happened=f"Order {one_line(key)}: {shorten(reason)}",
        meaning="What is committed stays. The same error is told again after an hour at the earliest.",
        command=f"batch-assets run {pipeline}",
        pipeline=pipeline,
        severity="error",
    )


def run_failed(
    pipelines: Sequence[str],
    run_id: str,
    reason: str,
    *,
    backfill: str = "",
    started_by: str = "",
    family: str,
) -> Notification:
    """A Dagster run failed; `family` is the id of the first of its re-executions.

    The runs of one `backfill` are one event; so are, for an hour, those that one error makes fail of
    the runs that a sensor or a schedule starts (`started_by`).
    """
    names = ", ".join(pipelines)
    if backfill:
        key = f"backfill:{backfill}"
        title = f"{names}: runs of backfill {backfill} fail"
        meaning = "Other runs of this backfill may fail too; this is its only notification."
    elif started_by:
        key = f"runs:{names}:{_this_hour()}:{gist(reason)}"
        title = f"{names}: a run that {started_by} started failed"
        meaning = "The same error is told again after an hour at the earliest."
    else:
        key = family_key(family)
        title = f"{names}: a run failed"
        meaning = "It is told once, however often the run is executed again."
    return Notification(
        key=key,
        title=title,
        happened=f"/runs/{run_id}: {shorten(reason)}",
        meaning=f"What is committed stays. {meaning}",
        command=" && ".join(f"batch-assets run {name}" for name in pipelines),
        pipeline=names,
        severity="error",
    )


def family_key(family: str) -> str:
    """The key of a run and all that execute it again."""
    return f"run:{family}"


def one_line(message: str) -> str:
    """A whole message on one line: a refusal's second sentence is what to do about it."""
    line = " ".join(message.split())
    return line if len(line) <= REASON_CHARACTERS else line[: REASON_CHARACTERS - 1] + "…"


def shorten(message: str) -> str:
    """The first sentence of an error, in at most 500 characters that every target can carry."""
    first = next((line for line in message.splitlines() if line.strip()), "no reason was given")
    sentence = SENTENCE_END.split(first.strip(), maxsplit=1)[0]
    if len(sentence) > REASON_CHARACTERS:
        sentence = sentence[: REASON_CHARACTERS - 1] + "…"
    return sentence.encode("utf-8", "replace").decode("utf-8")


def gist(message: str) -> str:
    """Sixteen hex digits that two tellings of one error share, whatever shard, run or request they name."""
    general = PARTICULARS.sub("#", shorten(message).rstrip(".").lower())
    return hashlib.sha256(general.encode()).hexdigest()[:16]


def _this_hour() -> int:
    return int(time.time() // 3600)
