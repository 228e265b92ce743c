"""Reading Bedrock's result files into rows, against `for line in file: orjson.loads(line)`.

Ours parses every line, joins it to its record, checks and normalizes the vector and keeps it on
a temporary file. Lines come in random order, one core for both. The limit is simdjson parsing
the same lines with nothing done about them. Then a file of 1 GB is collected to a
shard's Parquet in a process of its own, whose peak memory is measured.

    python -m benchmarks.bedrock_collection [--quick | --smallest] [--folder DIR]
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import simdjson

from batch_assets.embeddings.job_rows import JobRows
from batch_assets.embeddings.shard_writer import ShardWriter
from batch_assets.executors.aws.requests import record_id
from batch_assets.executors.aws.results import split_lines
from batch_assets.executors.bedrock.families.titan_text import TitanText
from batch_assets.executors.bedrock.results import read_results
from batch_assets.sources.base import Records
from batch_assets.storage import open_storage
from benchmarks.arguments import Size, make_parser
from benchmarks.measure import Comparison, Targets, in_new_process, peak_megabytes, report, take_turns

TARGET_RATIO, TARGET_MEGABYTES = 1.0, 500


@dataclass(frozen=True)
class Counts:
    bytes: int  # of a file that is read again and again
    big_bytes: int
    rounds: int


COUNTS = {
    Size.FULL: Counts(bytes=4 * 10**8, big_bytes=10**9, rounds=7),
    Size.QUICK: Counts(bytes=10**8, big_bytes=10**9, rounds=5),
    Size.SMALLEST: Counts(bytes=10**6, big_bytes=10**6, rounds=1),
}


def write_results(path: Path, size: int, dimensions: int, *, narrow: bool, by_type: bool) -> int:
    """A result file of about `size` bytes, shuffled; `narrow` numbers are written as float32. Returns its records."""
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((512, dimensions)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    lines: list[bytes] = []
    for number, vector in enumerate(vectors):
        told = vector if narrow else vector.astype(np.float64)
        output = {"embedding": told, "inputTextTokenCount": 60}
        if by_type:
            output["embeddingsByType"] = {"float": told}
        record = {
            "recordId": "RECORD_ID",
            "modelInput": {
                "inputText": f"record {number} has a text of its own, as most do. " * 6,
                "dimensions": dimensions,
                "normalize": True,
            },
            "modelOutput": output,
        }
        lines.append(orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))
    records = int(size / statistics.mean(map(len, lines)))
    with path.open("wb") as file:
        for place, ordinal in enumerate(generator.permutation(records).tolist()):
            file.write(lines[place % len(lines)].replace(b"RECORD_ID", record_id(ordinal).encode(), 1))
    return records


def parse_lines(path: Path) -> None:
    with path.open("rb") as file:
        for line in file:
            orjson.loads(line)


def parse_only(path: Path) -> None:
    parser = simdjson.Parser()
    for line in split_lines(open_storage(str(path.parent)).stream(path.name)):
        parser.parse(line)


def collect(path: Path, records: int, dimensions: int) -> None:
    family = TitanText("", True, True, dimensions, 0)
    with JobRows(records) as rows:
        assert read_results(open_storage(str(path.parent)), [path.name], rows, family).embedded == records


def compare(
    folder: Path, name: str, dimensions: int, size: int, rounds: int, *, narrow: bool, by_type: bool
) -> Comparison:
    path = folder / "results.jsonl.out"
    records = write_results(path, size, dimensions, narrow=narrow, by_type=by_type)
    parse_lines(path)  # once for the page cache
    seconds = take_turns(
        {
            "ours": lambda: collect(path, records, dimensions),
            "peer": lambda: parse_lines(path),
            "limit": lambda: parse_only(path),
        },
        rounds,
    )
    megabytes = path.stat().st_size / 1e6

    def rates(of: Sequence[float]) -> list[float]:
        return [megabytes / one for one in of]

    limit = statistics.median(rates(seconds["limit"]))
    return Comparison(name, "MB/s", rates(seconds["ours"]), rates(seconds["peer"]), limit, TARGET_RATIO)


def collect_shard(path: Path, records: int, dimensions: int) -> tuple[float, float, float]:
    """From a result file to a shard's files: seconds until it is read, seconds in all, and peak memory in MB."""
    storage, name = open_storage(str(path.parent)), path.name
    family = TitanText("", True, True, dimensions, 0)
    started = time.perf_counter()
    with JobRows(records) as rows:
        assert read_results(storage, [name], rows, family).embedded == records
        read = time.perf_counter() - started
        rows.save(storage, "attempt.parquet")
        writer = ShardWriter(storage, "g0001-00000", 1, {}, "float32")
        for start in range(0, records, 2048):
            ordinals = list(range(start, min(start + 2048, records)))
            names = [""] * len(ordinals)
            columns = pa.RecordBatch.from_pylist([{}] * len(ordinals))
            writer.write(rows.outcomes(Records(ordinals, names, names, ordinals, names, columns)))
        assert writer.close().embedded == records
    return read, time.perf_counter() - started, peak_megabytes()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print it; the exit code."""
    parser = make_parser(__doc__)
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="a folder on the disk to measure")
    given = parser.parse_args(arguments)
    chosen: Size = given.size
    counts, targets = COUNTS[chosen], Targets(chosen.judged)
    size, rounds = counts.bytes, counts.rounds
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="benchmark-collection-") as name:
        folder = Path(name)
        print(f"result files of {size / 1e6:,.0f} MB, rounds in turns: {rounds}")
        report(
            [
                compare(folder, "1024 numbers of float64", 1024, size, rounds, narrow=False, by_type=False),
                compare(folder, "1024 of float32, twice", 1024, size, rounds, narrow=True, by_type=True),
                compare(folder, "256 numbers of float32", 256, size, rounds, narrow=True, by_type=False),
            ],
            targets,
        )
        big = folder / "big.jsonl.out"
        records = write_results(big, counts.big_bytes, 1024, narrow=False, by_type=False)
        read, seconds, megabytes = in_new_process(collect_shard, big, records, 1024)
    verdict = targets.judge("memory", megabytes <= TARGET_MEGABYTES)
    print(
        f"{counts.big_bytes / 1e6:,.0f} MB, {records:,} records: read in {read:.1f} s, kept and written as a shard in "
        f"{seconds - read:.1f} s; {megabytes:,.0f} MB at the peak, target {TARGET_MEGABYTES} MB{verdict}"
    )
    return targets.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
