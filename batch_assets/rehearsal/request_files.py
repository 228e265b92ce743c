"""A job's input on S3: which objects it is, and whether the service would accept them."""

import contextlib
import mmap
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from batch_assets.rehearsal.account import ACCOUNT
from batch_assets.rehearsal.faults import Quotas
from batch_assets.rehearsal.job import Job, JobInvalid


@dataclass(frozen=True, slots=True)
class RequestFile:
    """One input object. `name`: relative to the input folder; its results are `<name>.out`."""

    bucket: str
    key: str
    name: str
    size: int


def split_uri(uri: str) -> tuple[str, str]:
    """s3://bucket/some/key → (bucket, some/key)."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def request_files(s3: Any, job: Job) -> list[RequestFile]:
    """The job's input objects, in the order of their keys; raises JobInvalid if there is none."""
    uri: str = job.input["s3Uri"]
    bucket, key = split_uri(uri)
    if key.endswith(".jsonl"):
        found = s3.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents", [])
        if not found or found[0]["Key"] != key:
            raise JobInvalid(f"The provided S3 input {uri} does not exist.")
        return [RequestFile(bucket, key, key.rsplit("/", 1)[-1], found[0]["Size"])]
    folder = key if not key or key.endswith("/") else f"{key}/"
    files: list[RequestFile] = []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=folder):
        for item in page.get("Contents", []):
            if item["Key"].endswith(".jsonl"):
                name = item["Key"].removeprefix(folder)
                files.append(RequestFile(bucket, item["Key"], name, item["Size"]))
    if not files:
        raise JobInvalid(f"No files with the extension .jsonl were found under {uri}.")
    return files


def bucket_problem(s3: Any, uri: str, region: str, owner: str | None) -> str | None:
    """Why the service cannot use the bucket of a URI from this region, or None."""
    from botocore.exceptions import ClientError

    bucket, _ = split_uri(uri)
    try:
        place = s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] or "us-east-1"
    except ClientError as error:
        return f"The S3 bucket {bucket} cannot be accessed: {error.response['Error'].get('Code')}."
    if place != region:
        return f"The S3 bucket {bucket} is in {place}, not in {region}, the region of the batch job."
    if owner is not None and owner != ACCOUNT:
        return f"The S3 bucket {bucket} is not owned by the account {owner}."
    return None


@contextlib.contextmanager
def opened(s3: Any, file: RequestFile) -> Iterator[mmap.mmap | bytes]:
    """The content of an object, mapped from a temporary file: memory does not grow with it."""
    with tempfile.TemporaryFile() as local:
        s3.download_fileobj(file.bucket, file.key, local)
        local.flush()
        if not local.tell():
            yield b""
            return
        with mmap.mmap(local.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield content


def line_bounds(content: mmap.mmap | bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each line that is not blank, without its newline."""
    start, size = 0, len(content)
    while start < size:
        newline = content.find(b"\n", start)
        end = size if newline < 0 else newline
        if content[start:end].strip():
            yield start, end
        start = end + 1


def count_records(s3: Any, job: Job, quotas: Quotas) -> int:
    """The records of all files; raises JobInvalid where the service's validation would.

    It looks for JSON objects with a modelInput, and at quotas; not at what a modelInput holds.
    """
    files = request_files(s3, job)
    if sum(file.size for file in files) > quotas.max_job_bytes:
        raise JobInvalid(f"The input exceeds the batch job size of {quotas.max_job_bytes / 10**9} GB.")
    total = 0
    for file in files:
        if file.size > quotas.max_file_bytes:
            raise JobInvalid(f"The file {file.name} exceeds the size of {quotas.max_file_bytes / 10**9} GB.")
        with opened(s3, file) as content:
            count = 0
            for start, end in line_bounds(content):
                count += 1
                _check_line(content[start:end], file.name, count)
        if count > quotas.max_file_records:
            raise JobInvalid(
                f"The file {file.name} has {count} records, more than the maximum of {quotas.max_file_records}."
            )
        total += count
    if total < quotas.min_records:
        raise JobInvalid(
            f"Batch job {job.arn} contains less records ({total}) than the required minimum of {quotas.min_records}."
        )
    if total > quotas.max_records:
        raise JobInvalid(
            f"Batch job {job.arn} contains more records ({total}) than the maximum of {quotas.max_records}."
        )
    return total


def _check_line(line: bytes, name: str, number: int) -> None:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise JobInvalid(f"Line {number} of the file {name} is no valid JSON: {error}.") from error
    if not isinstance(record, dict) or not isinstance(record.get("modelInput"), dict):
        raise JobInvalid(f"Line {number} of the file {name} has no object modelInput.")
