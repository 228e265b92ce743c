"""What a job does with its objects: splits them, sends their records through the container, writes `.out`, bills.

An object is whole or not at all: one record too large, refused or unreadable, and nothing of
it is written. The others' outputs stay, and the job is Failed.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from batch_assets.rehearsal.books import Books, Entry, digest_of
from batch_assets.rehearsal.faults import Scenario
from batch_assets.rehearsal.request_files import split_uri
from batch_assets.rehearsal.sagemaker.containers import Container, Refused
from batch_assets.rehearsal.sagemaker.job import REFUSED, TransformJob
from batch_assets.rehearsal.sagemaker.jobs import Outputs
from batch_assets.rehearsal.sagemaker.objects import InputInvalid, InputObject, input_objects, read_object
from batch_assets.rehearsal.sagemaker.records import Processing, RecordBroken

TOO_LARGE = "Too much data for max payload size"


class ObjectFailed(Exception):
    """No output of an object, for this reason."""


@dataclass
class TransformRunner:
    """Runs jobs on S3 as `s3` reaches it; `scenario` is asked anew for every job, so that faults may change."""

    s3: Any
    books: Books
    scenario: Callable[[], Scenario]

    def produce(self, job: TransformJob) -> Outputs:
        scenario = self.scenario()
        given = job.request["TransformInput"]
        try:
            objects = input_objects(
                self.s3, given["DataSource"]["S3DataSource"], scenario.transform.keeps_input_folder
            )
        except InputInvalid as error:
            return Outputs([], f"ClientError: {error}"[:1024])
        bucket, prefix = split_uri(job.request["TransformOutput"]["S3OutputPath"].rstrip("/"))
        folder = f"{prefix}/" if prefix else ""
        late = self._late(scenario, job)
        uploads: list[tuple[float, Callable[[], object]]] = []
        for found in objects:
            chance = scenario.draw("object", job.number, found.name)
            struck = chance.random() < scenario.transform.fail_object
            absent = chance.random() < scenario.transform.absent_objects
            try:
                content, entries = self._transformed(scenario, job, found, struck)
            except ObjectFailed as error:
                job.problems[found.name] = str(error)
                continue
            for entry in entries:
                entry.spoiled = absent
            self.books.post(job.arn, entries, 0.0, 0.0)
            if not absent:
                put = functools.partial(
                    self.s3.put_object, Bucket=bucket, Key=f"{folder}{found.name}.out", Body=content
                )
                uploads.append((late, put))
        failed = len(job.problems)
        self.books.objects(job.arn, succeeded=len(objects) - failed, failed=failed)
        # Which objects, and why, stands in the job's log only, as at AWS.
        return Outputs(uploads, REFUSED if failed else None)

    def ended(self, job: TransformJob) -> None:
        seconds = (job.ended or job.created) - (job.started or job.ended or job.created)
        self.books.instances(job.arn, seconds * job.instances)

    def _late(self, scenario: Scenario, job: TransformJob) -> float:
        chance = scenario.draw("transform output", job.number)
        output = scenario.output
        return chance.uniform(*output.late_seconds) if chance.random() < output.late else 0.0

    def _transformed(
        self, scenario: Scenario, job: TransformJob, found: InputObject, struck: bool
    ) -> tuple[bytes, list[Entry]]:
        """The object's output, and what was computed for it; raises ObjectFailed, once that is billed."""
        given, output = job.request["TransformInput"], job.request["TransformOutput"]
        content_type = given.get("ContentType", "")
        accept = output.get("Accept") or content_type
        container = Container(
            scenario, scenario.transform.kind(job.request["ModelName"]), content_type, accept
        )
        processing = Processing(job.request.get("DataProcessing") or {}, content_type)
        done: list[Entry] = []
        try:
            if processing.joins and accept != content_type:
                raise ObjectFailed(f"{accept} can not be joined to {content_type}")
            content = read_object(self.s3, found, given.get("CompressionType", "None"))
            records = _split(content, given.get("SplitType", "None"))
            calls = list(_calls(records, processing, job))
            responses: list[list[str]] = []
            for number, call in enumerate(calls):
                if struck and number == len(calls) // 2:
                    raise ObjectFailed("the container ended with an internal error")
                responses.append(_answered(call, container, processing, done))
        except (ObjectFailed, InputInvalid, RecordBroken, Refused) as error:
            for entry in done:
                entry.spoiled = True
            self.books.post(job.arn, done, 0.0, 0.0)
            raise ObjectFailed(str(error)) from error
        texts = ["\n".join(lines) for lines in responses]
        lined = output.get("AssembleWith", "None") == "Line"
        return "".join(f"{text}\n" if lined else text for text in texts).encode(), done


def _split(content: str, split: str) -> list[str]:
    if split == "None":
        return [content]
    if split != "Line":
        raise ObjectFailed(f"the rehearsal can not split by {split}")
    return [line for line in content.split("\n") if line.strip()]


def _calls(
    records: Sequence[str], processing: Processing, job: TransformJob
) -> Iterator[list[tuple[str, str]]]:
    """The records as calls of the container get them, each with what is sent of it."""
    most = job.max_payload
    single = job.request.get("BatchStrategy", "MultiRecord") == "SingleRecord"
    call: list[tuple[str, str]] = []
    size = 0
    for record in records:
        sent = processing.sent(record)
        length = len(sent.encode()) + 1
        if most is not None and length - 1 > most:
            raise ObjectFailed(f"{TOO_LARGE}: {length - 1} bytes in a record, MaxPayloadInMB {most // 2**20}")
        if call and (single or (most is not None and size + length > most)):
            yield call
            call, size = [], 0
        call.append((record, sent))
        size += length
    if call:
        yield call


def _answered(
    call: list[tuple[str, str]], container: Container, processing: Processing, done: list[Entry]
) -> list[str]:
    texts = [container.text_of(sent) for _, sent in call]
    answers = container.answers(texts)
    done += [Entry(digest_of(text), paid=True) for text in texts]
    return [processing.stored(record, answer) for (record, _), answer in zip(call, answers, strict=True)]
