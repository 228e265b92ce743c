"""Records as request files: JSON lines of `recordId` and `modelInput`, within the service's limits.

What a `modelInput` holds is the family's business; what comes back is read in `results.py`.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import orjson

from batch_assets.embeddings.parquet_files import HashingSink
from batch_assets.errors import ConfigurationError, StorageError
from batch_assets.executors.aws.requests import record_id, wanted_texts
from batch_assets.executors.bedrock.families.base import Family
from batch_assets.executors.bedrock.quotas import Quotas
from batch_assets.executors.jobs import RequestFile
from batch_assets.sources.base import Records
from batch_assets.storage import Storage

_SHRINK = 0.4
_WRITE_BYTES = 2**20


@dataclass
class RenderedRequests:
    """The request files of a job. `ordinals` are the records in them, ascending.

    The token bounds are what the service can charge for, at most. `too_long` are records that are
    not in the files, with the reason, where the pipeline rejects long texts.
    """

    files: list[RequestFile] = field(default_factory=list)
    ordinals: list[int] = field(default_factory=list)
    input_token_bound: int = 0
    output_token_bound: int = 0
    too_long: list[tuple[int, str]] = field(default_factory=list)

    @property
    def records(self) -> int:
        return len(self.ordinals)


class RequestFiles:
    """Where the files of one job go: `<folder>/<stem>-00000.jsonl` and on, none above the quotas."""

    def __init__(self, storage: Storage, folder: str, stem: str, quotas: Quotas) -> None:
        self.finished: list[RequestFile] = []
        self._storage = storage
        self._pattern = f"{folder}/{stem}-{{:05d}}.jsonl"
        self._quotas = quotas
        self._sink: HashingSink | None = None
        self._path = ""
        self._records = self._bytes = 0
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._job_records = self._job_bytes = 0

    def add(self, line: bytes) -> None:
        """Write a line, in a further file where the current one is full. Raises ConfigurationError."""
        quotas = self._quotas
        self._job_records += 1
        self._job_bytes += len(line)
        if self._job_records > quotas.records_per_job or self._job_bytes > quotas.job_bytes:
            raise ConfigurationError(
                f"shards: {self._job_records:,} requests of a shard make {self._job_bytes:,} bytes, and one job takes "
                f"{quotas.records_per_job:,} records and {quotas.job_bytes:,} bytes; lower shards.records or "
                "shards.bytes and plan again"
            )
        if self._records and (
            self._records == quotas.records_per_file or self._bytes + len(line) > quotas.file_bytes
        ):
            self._finish()
        if self._sink is None:
            self._path = self._pattern.format(len(self.finished))
            self._sink = HashingSink(self._storage, self._path)
        self._records += 1
        self._bytes += len(line)
        self._pending.append(line)
        self._pending_bytes += len(line)
        if self._pending_bytes >= _WRITE_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._sink is not None and self._pending:
            self._sink.write(b"".join(self._pending))
        self._pending, self._pending_bytes = [], 0

    def _finish(self) -> None:
        self._flush()
        if self._sink is not None:
            self._sink.close()
            self._verify()
            self.finished.append(RequestFile(self._path, self._records, self._bytes, self._sink.sha256))
        self._sink, self._records, self._bytes = None, 0, 0

    def _verify(self) -> None:
        """A job is paid for by what lies in the bucket: that is looked at before the job is queued."""
        found = self._storage.info(self._path)
        if found is None or found.size != self._bytes:
            there = "is not there" if found is None else f"has {found.size:,} bytes"
            raise StorageError(
                f"{self._storage.uri}/{self._path}: {there}, {self._bytes:,} bytes were written; try again"
            )

    def close(self) -> list[RequestFile]:
        """Finish the last file; all are durable when this returns."""
        self._finish()
        return self.finished

    def abort(self) -> None:
        """Give up: the current file is dropped, and the finished ones are deleted."""
        if self._sink is not None:
            self._sink.abort()
        self._storage.delete([file.path for file in self.finished])


def render(
    batches: Iterable[Records],
    family: Family,
    out: RequestFiles,
    ordinals: Collection[int] | None = None,
    narrowed: Mapping[int, int] | None = None,
    first_id: int = 0,
) -> RenderedRequests:
    """Write the requests of a shard's records, of `ordinals` only where those are given. Streams.

    `narrowed` are the records whose text was too long for the model, with how often. Raises
    ConfigurationError where they do not fit one job; then no file is left.
    """
    rendered = RenderedRequests()
    narrowed = narrowed or {}
    try:
        for ordinal, record_text in wanted_texts(batches, ordinals):
            text = fit(record_text, family, narrowed.get(ordinal, 0))
            if text is None:
                rendered.too_long.append((ordinal, _too_long(record_text, family)))
                continue
            out.add(request_line(first_id + ordinal, text, family))
            rendered.ordinals.append(ordinal)
            rendered.input_token_bound += token_bound(text, family)
        rendered.files = out.close()
    except BaseException:
        out.abort()
        raise
    rendered.output_token_bound = family.answer_tokens * rendered.records
    return rendered


def fit(text: str, family: Family, times_shortened: int = 0) -> str | None:
    """The text as it is sent: prompt in front, cut to what the model takes. None: to be rejected.

    Of how many tokens a text has only the model knows. A text that it has refused is cut to 0.4
    of what was sent, each time; from the second time on also to half a character for each token
    that the model takes, so that a third attempt is seldom refused, whatever the script.
    """
    text = family.prompt + text
    limit = family.max_characters
    if not family.truncate:
        return None if limit is not None and len(text) > limit else text
    length = len(text) if limit is None else min(len(text), limit)
    if times_shortened:
        length = int(length * _SHRINK**times_shortened)
        if times_shortened > 1 and family.max_tokens is not None:
            length = min(length, family.max_tokens >> (times_shortened - 1))
    return text[: max(length, 1)]


def request_line(number: int, text: str, family: Family) -> bytes:
    """One line of a request file. `number` is the record's ordinal in the shard, counted from `first_id`."""
    record = {"recordId": record_id(number), "modelInput": family.request(text)}
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def token_bound(text: str, family: Family) -> int:
    """Input tokens that the service can count for a text, at most: no token is less than a byte."""
    size = len(text) if text.isascii() else len(text.encode())
    bound = size + family.template_tokens
    return bound if family.max_tokens is None else min(bound, family.max_tokens)


def _too_long(text: str, family: Family) -> str:
    return f"the text has {len(family.prompt) + len(text):,} characters, the model takes {family.max_characters:,}"
