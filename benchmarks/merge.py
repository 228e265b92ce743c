"""Merging against `cat`: the same bytes, the same disk, both synced, in turns.

Ours merges, checks accounting and vectors, and publishes. Each round runs in a process of
its own, whose peak memory is measured too.

    python -m benchmarks.merge [--quick | --smallest] [--folder DIR]
"""

import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from batch_assets import paths
from batch_assets.embeddings.marker import ShardMarker, commit_marker
from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.embeddings.shard_writer import ShardWriter
from batch_assets.merge.checks import check_accounting, check_vectors
from batch_assets.merge.parquet import merge
from batch_assets.merge.publishing import publish
from batch_assets.sources.base import Records
from batch_assets.storage import open_storage
from benchmarks.arguments import Size, make_parser
from benchmarks.measure import Targets, in_new_process, peak_megabytes

TARGET_RATIO, TARGET_MEGABYTES = 0.5, 512
DIMENSIONS = 384
FENCE = 1
EMBEDDINGS = paths.embeddings("*", FENCE)


@dataclass(frozen=True)
class Counts:
    shards: int
    records: int  # in each shard
    rounds: int


COUNTS = {
    Size.FULL: Counts(shards=24, records=50_000, rounds=7),
    Size.QUICK: Counts(shards=8, records=50_000, rounds=5),
    Size.SMALLEST: Counts(shards=2, records=300, rounds=1),
}


def write_shards(root: Path, keys: Sequence[str], count: int) -> int:
    """Commit shards of random vectors and a text column; returns the bytes of their embeddings files."""
    storage = open_storage(str(root))
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((count, DIMENSIONS), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = pa.record_batch(
        {"text": pa.array([f"record {n} has a text of its own, as most do" for n in range(count)])}
    )
    total = 0
    rows = list(range(count))
    for key in keys:
        ids = [f"{key}:{row}" for row in rows]
        records = Records(rows, ids, ["texts.jsonl"] * count, rows, [""] * count, texts)
        writer = ShardWriter(storage, key, FENCE, {"text": "string"}, "float32")
        tokens = np.full(count, 12, dtype=np.int32)
        writer.write(Outcomes(records, np.arange(count), vectors, tokens))
        files = writer.close()
        marker = ShardMarker(
            shard=key, pipeline="benchmark", fingerprint="benchmark", model="none", executor="gpu", job="1",
            attempt=1, fence=FENCE, dtype="float32", device="cpu", dimensions=DIMENSIONS, vector_dtype="float32",
            normalized=True, columns=files.columns, files=files.files, tokens=files.tokens, created="",
            counts={"planned": count, "embedded": count, "rejected": 0, "failed": 0}, norms=files.norms,
        )  # fmt: skip
        assert commit_marker(storage, marker, None)
        total += files.embeddings.bytes
    return total


def time_cat(root: Path) -> float:
    """Seconds to copy all embeddings files into one, on the disk."""
    target = root / "copy.bin"
    started = time.perf_counter()
    subprocess.run(f"cat {root}/{EMBEDDINGS} > {target} && sync {target}", shell=True, check=True)
    seconds = time.perf_counter() - started
    target.unlink()
    return seconds


def time_copies(root: Path) -> float:
    """Seconds to copy the files by two processes at once, nothing hashed or checked: what a merge cannot beat."""
    folder = root / "copies"
    folder.mkdir()
    started = time.perf_counter()
    subprocess.run(
        f"ls {root}/{EMBEDDINGS} | "
        f"xargs -P 2 -I FILE sh -c 'cp FILE $(mktemp -p {folder})' && sync {folder}/*",
        shell=True,
        check=True,
    )
    seconds = time.perf_counter() - started
    shutil.rmtree(folder)
    return seconds


def time_merge(root: Path, keys: Sequence[str], count: int) -> tuple[float, float, float]:
    """Seconds from the first file to the published version, those of the checks, and peak memory in MB."""
    shutil.rmtree(root / "merged", ignore_errors=True)
    return in_new_process(merge_and_publish, str(root), [(key, count) for key in keys])


def merge_and_publish(root: str, shards: list[tuple[str, int]]) -> tuple[float, float, float]:
    """Merge, check and publish, in this process; the figures of `time_merge`."""
    storage = open_storage(root)
    started = time.perf_counter()
    result = merge(storage, shards, "benchmark")
    merged = time.perf_counter()
    assert check_accounting(storage, result.manifest).passed
    assert check_vectors(storage, result.manifest).passed
    checked = time.perf_counter()
    assert publish(storage, result.manifest.version, result.expected_current)
    return time.perf_counter() - started, checked - merged, peak_megabytes()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print it; the exit code."""
    parser = make_parser(__doc__)
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="a folder on the disk to measure")
    given = parser.parse_args(arguments)
    size: Size = given.size
    counts, targets = COUNTS[size], Targets(size.judged)
    keys = [paths.shard_key(1, number) for number in range(counts.shards)]
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="benchmark-merge-") as folder:
        root = Path(folder)
        megabytes = write_shards(root, keys, counts.records) / 1e6
        print(
            f"{counts.shards} shards of {counts.records:,} records, {megabytes:,.0f} MB, "
            f"rounds in turns: {counts.rounds}"
        )
        time_cat(root)  # once for the page cache
        turns = [
            (time_cat(root), time_merge(root, keys, counts.records), time_copies(root))
            for _ in range(counts.rounds)
        ]
    cat = statistics.median(megabytes / seconds for seconds, _, _ in turns)
    ours = statistics.median(megabytes / seconds for _, (seconds, _, _), _ in turns)
    checks = statistics.median(checks / seconds for _, (seconds, checks, _), _ in turns)
    ratio = statistics.median(seconds / merging for seconds, (merging, _, _), _ in turns)
    limit = statistics.median(seconds / copies for seconds, _, copies in turns)
    peak = max(memory for _, (_, _, memory), _ in turns)
    print(f"cat     {cat:8,.0f} MB/s")
    print(f"merge   {ours:8,.0f} MB/s, checks and publishing included ({checks:.0%} of the time are checks)")
    print(f"ratio   {ratio:8.2f}")
    print(f"limit   {limit:8.2f}    two processes copying the files, nothing hashed or checked")
    print(f"target  {TARGET_RATIO:8.2f}{targets.judge('ratio', ratio >= TARGET_RATIO)}")
    verdict = targets.judge("memory", peak <= TARGET_MEGABYTES)
    print(f"memory  {peak:8,.0f} MB at the peak; target {TARGET_MEGABYTES} MB{verdict}")
    return targets.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
