"""The objects that a job reads: those of a prefix (a mere beginning of keys), or of a manifest."""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from batch_assets.rehearsal.request_files import split_uri


class InputInvalid(Exception):
    """The job's input cannot be used, for this reason."""


@dataclass(frozen=True, slots=True)
class InputObject:
    """One object. `name`: where its output lies below the output path, without `.out`."""

    bucket: str
    key: str
    name: str


def input_objects(s3: Any, source: Mapping[str, Any], keeps_folder: bool) -> list[InputObject]:
    """The objects of an S3DataSource, by key; raises InputInvalid if there is none."""
    uri: str = source["S3Uri"]
    if source["S3DataType"] == "ManifestFile":
        return _of_manifest(s3, uri)
    bucket, prefix = split_uri(uri)
    # The prefix may end within a name: outputs lie where they lie below its last folder.
    folder = prefix[: prefix.rfind("/") + 1]
    if keeps_folder:
        folder = folder[: folder.rstrip("/").rfind("/") + 1]
    try:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    except s3.exceptions.ClientError as error:
        raise InputInvalid(f"The bucket {bucket} cannot be read: {error}") from error
    found = [InputObject(bucket, key, key.removeprefix(folder)) for key in keys if not key.endswith("/")]
    if not found:
        raise InputInvalid(
            f"No S3 objects found under S3 URL {uri!r} given in input data source. Please ensure that the bucket "
            "exists in the selected region, that objects exist under that S3 prefix, and that the role has "
            "s3:ListBucket permissions on it."
        )
    return found


def _of_manifest(s3: Any, uri: str) -> list[InputObject]:
    bucket, key = split_uri(uri)
    try:
        head, *names = orjson.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        bucket, prefix = split_uri(head["prefix"])
    except (s3.exceptions.ClientError, ValueError, TypeError, KeyError) as error:
        raise InputInvalid(f"The manifest {uri} cannot be read: {error}") from error
    if not names:
        raise InputInvalid(f"The manifest {uri} names no object.")
    return [InputObject(bucket, f"{prefix}{name}", name) for name in names]


def read_object(s3: Any, found: InputObject, compression: str) -> str:
    """The content as text; raises InputInvalid."""
    try:
        content: bytes = s3.get_object(Bucket=found.bucket, Key=found.key)["Body"].read()
        return (gzip.decompress(content) if compression == "Gzip" else content).decode()
    except (s3.exceptions.ClientError, OSError, UnicodeDecodeError) as error:
        raise InputInvalid(f"{found.key} cannot be read: {error}") from error
