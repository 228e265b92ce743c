"""What the settings of several executors have in common: their base class, and fields that are the same in each.

A class lists such a field among its own, in place of inheriting it: pydantic would put a base's fields before
its own, and that is the order which the documentation, the schema and errors have.
"""

import re
from typing import Annotated, ClassVar, Literal

import pydantic
from pydantic import Field

from batch_assets.settings.base import Settings

MAX_ATTEMPTS = 3
POLL_SECONDS = 30.0

# The service's own pattern of an s3Uri (botocore's model of CreateModelInvocationJob).
S3_URI = re.compile(r"s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](/[-!_*'().a-z0-9A-Z]+)*/?")


class ExecutorSettings(Settings):
    """Base of all executors' settings: what any of them can be asked, whatever its fields are."""

    in_place: ClassVar[bool]
    """Whether the run is the work; else it goes on at a service."""
    acts_elsewhere: ClassVar[bool]
    """Whether it acts in an account, or at an address, of its settings: what is read as data may not order that."""
    paid_by_time: ClassVar[bool] = False
    """Whether a service takes money for its machines' time; else for tokens, if it takes any."""

    @property
    def own_model(self) -> str | None:
        """What the service calls the model, where it names its models itself; None: `model` names it."""
        return None

    @property
    def longest_job_hours(self) -> float | None:
        """After how many hours a job is to be stopped by us; None: never."""
        return None


def _positive(tokens: int | str) -> int | str:
    if isinstance(tokens, int) and tokens < 1:
        raise ValueError("must be auto or a positive number of tokens")
    return tokens


def _s3_prefix(uri: str | None) -> str | None:
    if uri is not None and not S3_URI.fullmatch(uri):
        raise ValueError(
            "write s3://bucket/prefix/, with letters, digits and -!_*'(). only (the service takes no others)"
        )
    return uri


# Of executors whose work our worker does.
BatchTokens = Annotated[
    int | Literal["auto"],
    pydantic.AfterValidator(_positive),
    Field(description="Tokens in one batch (padding included); auto fits the device."),
]
BatchRecords = Annotated[
    int | None, Field(ge=1, description="Records in one batch, at most; by default as many as fit.")
]
ShardAttempts = Annotated[int, Field(ge=1, description="How often a shard is tried before it is exhausted.")]

# Of executors at a service.
Region = Annotated[str | None, Field(description="AWS region; by default that of the environment.")]
PollSeconds = Annotated[
    float, Field(gt=0, description="How often the service is asked for what no event has told.")
]
Tags = Annotated[dict[str, str], Field(max_length=50, description="Tags of the jobs, at most 50.")]

# Of those whose service reads request files and writes result files.
Staging = Annotated[
    str | None,
    pydantic.AfterValidator(_s3_prefix),
    Field(
        description="Where request and result files lie: s3://bucket/prefix/; by default the output root, if that "
        "is on S3."
    ),
]
RecordAttempts = Annotated[
    int, Field(ge=1, description="How often a record is tried before it counts as failed.")
]
Priority = Annotated[
    int, Field(description="Among pipelines that share a quota, higher goes first; equal ones by age.")
]
