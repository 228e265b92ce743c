"""Merging against `cat`: the same bytes, the same disk, both synced, in turns.

Ours merges, checks accounting and vectors, and publishes. Each round runs in a process of
its own, whose peak memory is measured too.

    python -m benchmarks.merge [--quick] [--folder DIR]
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

TARGET_RATIO, TARGET_MEGABYTES = 0.5, 512
DIMENSIONS, RECORDS = 384, 50_000

MERGE = """
import sys, time
from pathlib import Path
from batch_assets.merge.checks import check_accounting, check_vectors
from batch_assets.merge.parquet import merge
from batch_assets.merge.publishing import publish
from batch_assets.storage import open_storage
storage = open_storage(sys.argv[1])
shards = [(f"g0001-{number:05d}", int(sys.argv[3])) for number in range(int(sys.argv[2]))]
started = time.perf_counter()
result = merge(storage, shards, "benchmark")
merged = time.perf_counter()
assert check_accounting(storage, result.manifest).passed
assert check_vectors(storage, result.manifest).passed
checked = time.perf_counter()
assert publish(storage, result.manifest.version, result.expected_current)
seconds = time.perf_counter() - started
# Of this program alone: what getrusage tells includes its parent's memory before exec.
peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
print(seconds, checked - merged, int(peak) * 1024 / 1e6)
"""


def write_shards(root: Path, shards: int) -> int:
    """Commit shards of random vectors and a text column; returns the bytes of their embeddings files."""
    from batch_assets.embeddings.marker import ShardMarker, commit_marker
    from batch_assets.embeddings.outcomes import Outcomes
    from batch_assets.embeddings.shard_writer import ShardWriter
    from batch_assets.sources.base import Records
    from batch_assets.storage import open_storage

    storage = open_storage(str(root))
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((RECORDS, DIMENSIONS), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = pa.record_batch(
        {"text": pa.array([f"record {n} has a text of its own, as most do" for n in range(RECORDS)])}
    )
    total = 0
    for number in range(shards):
        key = f"g0001-{number:05d}"
        rows = list(range(RECORDS))
        ids = [f"{key}:{row}" for row in rows]
        records = Records(rows, ids, ["texts.jsonl"] * RECORDS, rows, [""] * RECORDS, texts)
        writer = ShardWriter(storage, key, 1, {"text": "string"}, "float32")
        counts = np.full(RECORDS, 12, dtype=np.int32)
        writer.write(Outcomes(records, np.arange(RECORDS), vectors, counts))
        files = writer.close()
        marker = ShardMarker(
            shard=key, pipeline="benchmark", fingerprint="benchmark", model="none", executor="gpu", job="1",
            attempt=1, fence=1, dtype="float32", device="cpu", dimensions=DIMENSIONS, vector_dtype="float32",
            normalized=True, columns=files.columns, files=files.files, tokens=files.tokens, created="",
            counts={"planned": RECORDS, "embedded": RECORDS, "rejected": 0, "failed": 0}, norms=files.norms,
        )  # fmt: skip
        assert commit_marker(storage, marker, None)
        total += files.embeddings.bytes
    return total


def time_cat(root: Path) -> float:
    """Seconds to copy all embeddings files into one, on the disk."""
    target = root / "copy.bin"
    started = time.perf_counter()
    subprocess.run(
        f"cat {root}/shards/*/embeddings-1.parquet > {target} && sync {target}", shell=True, check=True
    )
    seconds = time.perf_counter() - started
    target.unlink()
    return seconds


def time_copies(root: Path) -> float:
    """Seconds to copy the files by two processes at once, nothing hashed or checked: what a merge cannot beat."""
    folder = root / "copies"
    folder.mkdir()
    started = time.perf_counter()
    subprocess.run(
        f"ls {root}/shards/*/embeddings-1.parquet | "
        f"xargs -P 2 -I FILE sh -c 'cp FILE $(mktemp -p {folder})' && sync {folder}/*",
        shell=True,
        check=True,
    )
    seconds = time.perf_counter() - started
    shutil.rmtree(folder)
    return seconds


def time_merge(root: Path, shards: int) -> tuple[float, float, float]:
    """Seconds from the first file to the published version, those of the checks, and peak memory in MB."""
    shutil.rmtree(root / "merged", ignore_errors=True)
    command = [sys.executable, "-c", MERGE, str(root), str(shards), str(RECORDS)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, checks, megabytes = map(float, done.stdout.split())
    return seconds, checks, megabytes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less data, fewer rounds: about half a minute")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="a folder on the disk to measure")
    arguments = parser.parse_args()
    shards, rounds = (8, 5) if arguments.quick else (24, 7)
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="benchmark-merge-") as folder:
        root = Path(folder)
        megabytes = write_shards(root, shards) / 1e6
        print(f"{shards} shards of {RECORDS:,} records, {megabytes:,.0f} MB, {rounds} rounds in turns")
        time_cat(root)  # once for the page cache
        turns = [(time_cat(root), time_merge(root, shards), time_copies(root)) for _ in range(rounds)]
    cat = statistics.median(megabytes / seconds for seconds, _, _ in turns)
    ours = statistics.median(megabytes / seconds for _, (seconds, _, _), _ in turns)
    checks = statistics.median(checks / seconds for _, (seconds, checks, _), _ in turns)
    ratio = statistics.median(seconds / merge for seconds, (merge, _, _), _ in turns)
    limit = statistics.median(seconds / copies for seconds, _, copies in turns)
    peak = max(memory for _, (_, _, memory), _ in turns)
    print(f"cat     {cat:8,.0f} MB/s")
    print(f"merge   {ours:8,.0f} MB/s, checks and publishing included ({checks:.0%} of the time are checks)")
    print(f"ratio   {ratio:8.2f}")
    print(f"limit   {limit:8.2f}    two processes copying the files, nothing hashed or checked")
    print(f"target  {TARGET_RATIO:8.2f}")
    print(f"memory  {peak:8,.0f} MB at the peak; target {TARGET_MEGABYTES} MB")
    return 0 if ratio >= TARGET_RATIO and peak <= TARGET_MEGABYTES else 1


if __name__ == "__main__":
    sys.exit(main())
