"""What is too little for a batch job: the model called for each record, here and now.

Each answer is kept as a file as soon as it is there, so that a crash pays twice for no more than
the calls that were under way. How fast calls may be made is for `control/` to say.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.job_rows import JobRows
from batch_assets.errors import SubmissionRefused
from batch_assets.executors.aws.errors import (
    common_step,
    error_code,
    error_message,
    is_slow_down,
    status_code,
    told,
)
from batch_assets.executors.aws.passing import is_passing_status
from batch_assets.executors.aws.settling import begin
from batch_assets.executors.bedrock.pipeline import BedrockPipeline
from batch_assets.executors.bedrock.requests import fit
from batch_assets.executors.bedrock.results import BedrockSorter
from batch_assets.executors.bedrock.serving import explain_call
from batch_assets.executors.jobs import JobDescription
from batch_assets.executors.service_jobs import Pace
from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import CALL_FIRST_PAUSE_SECONDS, CALL_LONGEST_PAUSE_SECONDS, CALL_TRIES

CALLS_AT_ONCE = 4
logger = plain_logger(__name__)


@dataclass
class _Caller:
    """Asks the model for one record, and keeps what it says."""

    pipeline: BedrockPipeline
    client: Any
    folder: str
    pace: Pace

    def __call__(self, record: str, request: dict[str, Any]) -> dict[str, Any]:
        """What a result line would say of the record: its modelOutput, or its error."""
        import tenacity

        # The pace is ours; that the service wants a slower one it says by refusing.
        found = tenacity.Retrying(
            retry=tenacity.retry_if_result(_may_pass),
            stop=tenacity.stop_after_attempt(CALL_TRIES),
            wait=tenacity.wait_exponential(CALL_FIRST_PAUSE_SECONDS, CALL_LONGEST_PAUSE_SECONDS)
            + tenacity.wait_random(0, CALL_FIRST_PAUSE_SECONDS),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome is not None else {},
        )(self._call, record, request)
        if "modelOutput" in found:
            self.pipeline.staging.write(f"{self.folder}/{record}.json", orjson.dumps(found))
        return found

    def _call(self, record: str, request: dict[str, Any]) -> dict[str, Any]:
        self.pace(1, self.pipeline.options.on_demand_rpm)
        try:
            return {"recordId": record, "modelOutput": ask(self.pipeline, self.client, request)}
        except Exception as error:
            if refusal := explain_call(error, self.pipeline.options.model_id):
                raise refusal from error
            # A quota that is used up says nothing of the record, whatever its status.
            status = 429 if is_slow_down(error) else status_code(error)
            told = f"{error_code(error)}: {error_message(error)}"
            return {"recordId": record, "error": {"errorCode": status or 503, "errorMessage": told}}


def _may_pass(found: dict[str, Any]) -> bool:
    """Whether the same call may have an answer in a while."""
    code = found.get("error", {}).get("errorCode")
    return code is not None and (code == 424 or is_passing_status(code))


def ask(pipeline: BedrockPipeline, client: Any, request: dict[str, Any]) -> Any:
    """The `modelOutput` of one request, as a batch job would give it. Raises what botocore raises."""
    model = pipeline.options.model_id
    if pipeline.family.invocation_type == "Converse":
        answer = client.converse(modelId=model, **request)
        return {name: answer.get(name) for name in ("output", "stopReason", "usage")}
    answer = client.invoke_model(
        modelId=model,
        body=orjson.dumps(request),
        contentType="application/json",
        accept="application/json",
    )
    return orjson.loads(answer["body"].read())


def embed_text(pipeline: BedrockPipeline, client: Any, text: str) -> npt.NDArray[np.float32]:
    """The vector (dimensions,) of a query. Raises SubmissionRefused where the model cannot be called."""
    family = replace(pipeline.family, prompt=pipeline.settings.model.query_prompt or "")
    try:
        output = ask(pipeline, client, family.query(fit(text, family) or text))
    except Exception as error:
        model = pipeline.options.model_id
        step = common_step(error) or f"allow bedrock:InvokeModel on {model}"
        raise SubmissionRefused(f"the text cannot be embedded by {model}: {told(error)}; {step}") from error
    vector = family.answer(output).vector
    if vector is None:
        raise SubmissionRefused(
            f"{pipeline.options.model_id} makes answers, not vectors; there is nothing to search"
        )
    length = float(np.linalg.norm(vector)) if pipeline.settings.model.normalize else 1.0
    return (np.asarray(vector) / (length or 1.0)).astype(np.float32)


def answer_requests(
    pipeline: BedrockPipeline,
    client: Any,
    job: JobDescription,
    rows: JobRows,
    facts: JobFacts,
    pace: Pace,
) -> None:
    """Settle every record of an on_demand job by a call of its own; answers that are there already are taken."""
    begin(job, rows)
    if not job.files:
        return  # every record was refused before it was sent
    folder = f"{job.folder}-answers"
    known = {
        info.path.rsplit("/", 1)[-1].removesuffix(".json"): info.path
        for info in pipeline.staging.list(folder)
    }
    sorter = BedrockSorter(rows, pipeline.family, job.attempt, job.first_id)
    calls: deque[Future[dict[str, Any]]] = deque()
    with ThreadPoolExecutor(CALLS_AT_ONCE, "on-demand") as pool:
        caller = _Caller(pipeline, client, folder, pace)
        try:
            for request in _requests(pipeline, job):
                record = request["recordId"]
                if record in known:
                    sorter.add_line(pipeline.staging.read(known[record]))
                    continue
                calls.append(pool.submit(caller, record, request["modelInput"]))
                if len(calls) >= CALLS_AT_ONCE:
                    sorter.add_line(orjson.dumps(calls.popleft().result()))
            while calls:
                sorter.add_line(orjson.dumps(calls.popleft().result()))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    sorter.flush()
    tokens, answers = sorter.tally.input_tokens, sorter.tally.output_tokens
    facts.add(tokens, answers, pipeline.cost(tokens, answers, on_demand=True))


def _requests(pipeline: BedrockPipeline, job: JobDescription) -> Iterator[dict[str, Any]]:
    """The job's requests as they were uploaded; they are few."""
    for file in job.files:
        for line in pipeline.staging.read(file.path).splitlines():
            yield orjson.loads(line)
