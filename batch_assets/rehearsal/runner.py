"""What a job does with its records: reads them from S3, asks the model, writes results and manifest, bills.

<output>/<job id>/<input file>.jsonl.out
<output>/<job id>/manifest.json.out
"""

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import orjson

from batch_assets.rehearsal.books import Books
from batch_assets.rehearsal.faults import Scenario
from batch_assets.rehearsal.file_work import FileWork
from batch_assets.rehearsal.job import Counts, Job, JobInvalid, Results
from batch_assets.rehearsal.request_files import (
    bucket_problem,
    count_records,
    line_bounds,
    opened,
    request_files,
    split_uri,
)

BATCH_DISCOUNT = 0.5


@dataclass
class S3Runner:
    """Runs jobs on S3 as `s3` reaches it; `scenario` is asked anew for every job, so that faults may change."""

    s3: Any
    books: Books
    scenario: Callable[[], Scenario]

    def check(self, job: Job) -> int:
        scenario = self.scenario()
        if not scenario.jobs.role_reads_buckets:
            raise JobInvalid(
                f"The role {job.request['roleArn']} is not authorized to access the S3 location {job.input['s3Uri']}. "
                "Check its permissions and trust policy."
            )
        for config in (job.input, job.output):
            if problem := bucket_problem(self.s3, config["s3Uri"], job.region, config.get("s3BucketOwner")):
                raise JobInvalid(problem)
        return count_records(self.s3, job, scenario.quotas)

    def produce(self, job: Job, share: float) -> Results:
        scenario = self.scenario()
        chance = scenario.draw("output", job.name)
        output = scenario.output
        absent = chance.random() < output.absent
        late = chance.uniform(*output.late_seconds) if chance.random() < output.late else 0.0
        manifest_late = (
            chance.uniform(*output.late_seconds) if chance.random() < output.late_manifest else 0.0
        )
        manifest_absent = absent or chance.random() < output.absent_manifest

        bucket, prefix = split_uri(job.output["s3Uri"].rstrip("/"))
        folder = f"{prefix}/{job.id}" if prefix else job.id
        counts = Counts(total=job.counts.total)
        uploads: list[tuple[float, Callable[[], object]]] = []
        done = round(counts.total * share)
        before = 0
        for file in request_files(self.s3, job):
            with opened(self.s3, file) as content:
                bounds = list(line_bounds(content))
                results: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed by its upload
                work = FileWork(scenario, job, file, len(bounds), max(0, min(len(bounds), done - before)))
                work.write(content, bounds, results, counts)
            self._bill(job, work, spoiled=absent)
            before += len(bounds)
            if absent:
                results.close()
            else:
                key = f"{folder}/{file.name}.out"
                uploads.append((late, functools.partial(self._upload, results, bucket, key)))
        if not manifest_absent:
            put = functools.partial(
                self.s3.put_object, Bucket=bucket, Key=f"{folder}/manifest.json.out", Body=_manifest(counts)
            )
            uploads.append((late + manifest_late, put))
        return Results(counts, uploads)

    def _upload(self, results: IO[bytes], bucket: str, key: str) -> None:
        with results:
            results.seek(0)
            self.s3.put_object(Bucket=bucket, Key=key, Body=results)

    def _bill(self, job: Job, work: FileWork, spoiled: bool) -> None:
        for entry in work.entries:
            entry.spoiled = entry.spoiled or spoiled
        model = work.model
        self.books.post(
            job.id, work.entries, model.input_price * BATCH_DISCOUNT, model.output_price * BATCH_DISCOUNT
        )


def _manifest(counts: Counts) -> bytes:
    return orjson.dumps(
        {
            "totalRecordCount": counts.total,
            "processedRecordCount": counts.processed,
            "successRecordCount": counts.success,
            "errorRecordCount": counts.error,
            "inputTokenCount": counts.input_tokens,
            "outputTokenCount": counts.output_tokens,
        }
    )
