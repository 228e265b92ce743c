"""A shard's input manifest, `shards/<key>/input.json`: what checking its records has found."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import orjson

from batch_assets import paths
from batch_assets.errors import SourceError
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan import PlanSummary, Shard
from batch_assets.sharding.plan_files import read_summary
from batch_assets.sharding.reading import read_unprepared
from batch_assets.sharding.upstream import UpstreamCommit, current_commit, is_chained, upstream_root
from batch_assets.storage import Storage, open_storage

MOST_EXAMPLES = 20
SAMPLED_TEXTS = 256
CHARACTERS_PER_TOKEN = 4.0  # of English prose, about; used where nobody can count tokens


@dataclass(frozen=True)
class RejectedExample:
    """One rejected record, as an example."""

    file: str
    row: int
    code: str
    message: str


@dataclass(frozen=True)
class InputManifest:
    """`planned = valid + rejected`. `bytes` are the valid texts' in UTF-8, `characters` theirs too.

    Of images, `bytes` are the shard's, as it was cut; nothing is said of captions, nor of tokens.
    `lengths` is a histogram of the texts: the lower end of each doubling of characters (1, 2,
    4, …) to a number of records. `digest` is of the shard's segments. `upstream` is the commit of
    another pipeline's shard that its records are, where they are.
    """

    shard: str
    planned: int
    valid: int
    rejected: int
    rejected_by_code: dict[str, int]
    bytes: int
    characters: int
    estimated_tokens: int
    digest: str
    lengths: dict[int, int] = field(default_factory=dict)
    examples: Sequence[RejectedExample] = ()
    upstream: UpstreamCommit | None = None


def prepare_input(
    settings: PipelineSettings,
    shard: Shard,
    plan: PlanSummary | None = None,
    count_tokens: Callable[[list[str]], list[int]] | None = None,
    root: Storage | None = None,
) -> InputManifest:
    """Read a shard and check every record. `count_tokens` is asked for a sample only.

    Images are not read: what is wrong with one is found where the work is. Of another pipeline's
    shard, what is committed now is read.

    Raises SourceError where a file is missing or touched, or holds other records than planned.
    """
    images = settings.source.images
    root = root if root is not None else open_storage(settings.output.root)
    plan = plan if plan is not None else read_summary(root, paths.shard_generation(shard.key))
    marker = current_commit(upstream_root(plan.base_uri), shard.key) if is_chained(plan) else None
    planned = size = characters = valid = 0
    codes: Counter[str] = Counter()
    lengths: Counter[int] = Counter()
    examples: list[RejectedExample] = []
    sample: list[str] = []
    every = max(shard.records // SAMPLED_TEXTS, 1)
    for records in read_unprepared(settings, shard, plan, root, marker):
        texts = [] if images else records.texts
        counts = [len(text) for text in texts]
        sample += texts[-planned % every :: every]
        planned += len(records) + len(records.rejections)
        valid += len(records)
        characters += sum(counts)
        size += sum(len(text) if text.isascii() else len(text.encode()) for text in texts)
        lengths.update(1 << (count.bit_length() - 1) for count in counts)
        for rejection in records.rejections:
            codes[rejection.code] += 1
            if len(examples) < MOST_EXAMPLES:
                examples.append(
                    RejectedExample(
                        rejection.source_file, rejection.source_row, rejection.code, rejection.message
                    )
                )
    if planned != shard.records:
        raise SourceError(
            f"shard {shard.key}: {shard.records:,} records were planned and {planned:,} are there; has a "
            "file been touched without changing its time? `plan --replace` plans it anew"
        )
    return InputManifest(
        shard=shard.key,
        planned=planned,
        valid=valid,
        rejected=sum(codes.values()),
        rejected_by_code=dict(sorted(codes.items())),
        bytes=shard.bytes if images else size,
        characters=characters,
        estimated_tokens=estimate_tokens(sample, characters, count_tokens),
        digest=shard_digest(shard),
        lengths=dict(sorted(lengths.items())),
        examples=examples,
        upstream=UpstreamCommit.of(marker) if marker is not None else None,
    )


def estimate_tokens(
    sample: list[str], characters: int, count_tokens: Callable[[list[str]], list[int]] | None = None
) -> int:
    """Tokens in `characters` of text like the sample's."""
    sampled = sum(map(len, sample))
    if count_tokens is None or not sampled:
        return round(characters / CHARACTERS_PER_TOKEN)
    return round(characters * sum(count_tokens(sample)) / sampled)


def shard_digest(shard: Shard) -> str:
    """Digest of what the shard consists of: sha256 (hex) of its segments."""
    content = orjson.dumps([dataclasses.astuple(segment) for segment in shard.segments])
    return hashlib.sha256(content).hexdigest()


def write_input_manifest(storage: Storage, manifest: InputManifest) -> None:
    """Write the manifest in place of an older one."""
    storage.write(paths.input_manifest(manifest.shard), _bytes(manifest))


def replace_input_manifest(storage: Storage, manifest: InputManifest, version: str | None) -> bool:
    """Write the manifest if the one there is still that `version` (None: there is none); False if not."""
    path = paths.input_manifest(manifest.shard)
    if version is None:
        return storage.create(path, _bytes(manifest))
    return storage.replace(path, _bytes(manifest), version)


def _bytes(manifest: InputManifest) -> bytes:
    content = {name: value for name, value in vars(manifest).items() if name != "upstream" or value}
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS) + b"\n"


def read_input_manifest(storage: Storage, shard: str) -> InputManifest | None:
    """The manifest, or None where the shard has not been prepared."""
    found = storage.read_versioned(paths.input_manifest(shard))
    if found is None:
        return None
    content = orjson.loads(found[0])
    content["lengths"] = {int(length): count for length, count in content["lengths"].items()}
    content["examples"] = [RejectedExample(**example) for example in content["examples"]]
    if "upstream" in content:
        content["upstream"] = UpstreamCommit(**content["upstream"])
    return InputManifest(**content)
