"""Photographs of 0.35 megapixels in tars and Parquet to CLIP ViT-B/32 vectors in Parquet, against a plain loop.

The peer reads the same files and gives them, 32 at a time, to transformers' processor and model as
they come, in float32; its vectors stay in memory. Ours reads, decodes, embeds and writes, by the
executor that a pipeline has. Of the files 19 in 20 are JPEG, the others PNG and WebP.

    python -m benchmarks.images [--quick] [--device cpu|cuda] [--images N] [--rounds N]
"""

import argparse
import importlib.util
import io
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
import transformers
from transformers import CLIPImageProcessor, CLIPModel

from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.shard_writer import ShardWriter
from batch_assets.encoders.base import Encoder
from batch_assets.encoders.devices import available_cores
from batch_assets.executors.gpu import GpuMachine
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline
from batch_assets.sharding.plan import Shard
from batch_assets.sharding.plan_files import write_plan
from batch_assets.sharding.planner import plan_generation
from batch_assets.sharding.reading import read_shard
from batch_assets.storage import open_storage
from batch_assets.worker.fetching import Fetching
from batch_assets.worker.images import ImageWindows
from batch_assets.worker.timings import Timings
from benchmarks.measure import Comparison, report, take_turns
from examples.make_clip_model import make_model
from examples.make_image_dataset import write_data_set

TARGET_PEER, TARGET_LIMIT, TARGET_GROWTH, LEAST_COSINE = 2.5, 0.85, 1.15, 0.9995
PEER_BATCH = 32
FORMATS = ("webdataset", "img2dataset")
OPERATIONS = 8.82e9
"""Of one image in ViT-B/32: two for each of 4.41 billion multiplications."""
PART = 500
"""Images that memory is measured with, over and over again."""


def main() -> int:
    """Run everything and print it; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="about a minute on two idle cores")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--images", type=int, help="how many images, of both formats together")
    parser.add_argument("--rounds", type=int, help="how often everything takes its turn")
    given = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    images = given.images or (320 if given.quick else 768)
    rounds = given.rounds or (1 if given.quick else 3)
    with tempfile.TemporaryDirectory() as folder:
        code = compare(Path(folder), given.device, images, rounds)
        code |= memory(Path(folder), 4 * PART if given.quick else 20 * PART)
        if given.quick:
            print("two Ray workers against one: python -m benchmarks.ray_workers --quick")
            return code
        return code | two_workers(Path(folder), images, rounds)


@dataclass
class Ours:
    """The pipelines over both formats, on one machine, planned and with the model loaded."""

    machine: GpuMachine
    pipelines: list[PipelineSettings] = field(default_factory=list)
    shards: list[tuple[PipelineSettings, Shard, dict[str, str]]] = field(default_factory=list)
    written: int = 0

    def add(self, name: str, source: Path, format: str, model: Path, out: Path) -> None:
        """Plan a pipeline over the files of one format."""
        values = {
            "source": {"uri": str(source), "format": format},
            "model": {"id": str(model)},
            "output": {"root": str(out)},
        }
        settings = parse_pipeline(values, name, "benchmark")
        storage = open_storage(settings.output.root)
        plan = plan_generation(settings, storage)
        write_plan(storage, plan.summary, plan.shards)
        self.pipelines.append(settings)
        self.shards += [(settings, shard, plan.summary.columns) for shard in plan.shards]

    @property
    def encoder(self) -> Encoder:
        return self.machine.encoder(self.pipelines[0])

    def run(self, seen: Callable[[int], None] = lambda _: None) -> npt.NDArray[np.float32]:
        """From files to files; the vectors in source order."""
        vectors: list[npt.NDArray[np.float32]] = []
        for settings, shard, columns in self.shards:
            self.written += 1
            writer = ShardWriter(
                open_storage(settings.output.root), shard.key, self.written, columns, "float32"
            )
            executor = self.machine.executor(settings)
            handle = executor.submit([executor.prepare(shard, 1)], "benchmark")[0]
            for outcomes in executor.collect(handle, JobFacts()):
                writer.write(outcomes)
                vectors.append(outcomes.vectors)
                seen(len(outcomes.records))
            writer.close(self.encoder.dimensions)
        return np.concatenate(vectors)

    def decode(self) -> list[Any]:
        """Read and decode everything, as a run does, and embed nothing; the first prepared images."""
        kept: list[Any] = []
        for settings, shard, _ in self.shards:
            windows = ImageWindows(self.encoder, Fetching(), Timings({}))
            for window in windows.windows(read_shard(settings, shard)):
                kept += window.inputs[: max(0, 512 - len(kept))]
        return kept

    def forward(self, inputs: list[Any], images: int) -> None:
        """Embed prepared images, `images` of them, in the batches and threads that a run has."""
        encoder = self.encoder
        size = max(1, encoder.batch_tokens // int(encoder_tokens(encoder)))
        size = min(size, encoder.batch_records or size)
        many = (inputs * (images // len(inputs) + 1))[:images]
        batches = [many[first : first + size] for first in range(0, images, size)]
        with ThreadPoolExecutor(encoder.threads) as pool:
            list(pool.map(encoder.encode, batches))


def encoder_tokens(encoder: Encoder) -> int:
    """Tokens of an image, by the encoder's own count."""
    from batch_assets.worker.encoding import trivial_record

    return int(encoder.prepare([trivial_record(encoder)]).counts[0])


def compare(folder: Path, device: str, images: int, rounds: int) -> int:
    """Ours against the plain loop, and against what decoding and the model allow together."""
    model = make_model(folder / "vit-b-32", "vit-b-32")
    ours = Ours(GpuMachine(device))
    for format in FORMATS:
        write_data_set(folder / format, format=format, images=images // 2, shards=2)
        ours.add(f"bench_{format}", folder / format, format, model, folder / f"out-{format}")
    processor = CLIPImageProcessor.from_pretrained(str(model))
    exact = CLIPModel.from_pretrained(str(model)).to(device).eval()
    encoder = ours.encoder
    print(f"{images:,} images, {rounds} rounds in turns; {available_cores()} cores, {encoder.device}, "
          f"ours computes in {encoder.dtype}")  # fmt: skip
    kept: dict[str, npt.NDArray[np.float32]] = {}
    inputs = ours.decode()
    runs: dict[str, Callable[[], object]] = {
        "decode": ours.decode,
        "forward": lambda: ours.forward(inputs, images),
        "whole": lambda: kept.update(ours=ours.run()),
        "peer": lambda: kept.update(peer=plain_loop(folder, processor, exact, device)),
    }
    ours.forward(inputs, min(images, 128))
    seconds = take_turns(runs, rounds)
    rates = {name: [images / each for each in taken] for name, taken in seconds.items()}
    for name, what in (("decode", "reading and decoding alone"), ("forward", "the model alone")):
        print(f"{what}: {statistics.median(rates[name]):,.1f} images/s")
    both = [
        min(pair) if device != "cpu" else 1 / (1 / pair[0] + 1 / pair[1])
        for pair in zip(rates["decode"], rates["forward"], strict=True)
    ]
    limit = statistics.median(both)
    code = report(
        [
            Comparison("plain loop, float32", "images/s", rates["whole"], rates["peer"], limit, TARGET_PEER),
            Comparison("what the two allow", "images/s", rates["whole"], both, limit, TARGET_LIMIT),
        ]
    )
    if device != "cpu":
        share = statistics.median(rates["forward"]) * OPERATIONS / product_rate(device, encoder.dtype)
        print(f"the model alone is at {share:.0%} of this device's best matrix product in {encoder.dtype}")
    cosine = lowest_cosine(kept["ours"], kept["peer"])
    print(f"lowest cosine to the plain loop: {cosine:.6f}; target {LEAST_COSINE}")
    return 1 if cosine < LEAST_COSINE else code


def plain_loop(folder: Path, processor: Any, model: Any, device: str) -> npt.NDArray[np.float32]:
    """What a first script does: open, process, embed, 32 at a time."""
    from PIL import Image

    torch.set_num_threads(available_cores())  # whatever ours has set in this thread
    vectors: list[npt.NDArray[np.float32]] = []
    batch: list[Any] = []

    def embed() -> None:
        pixels = processor(images=batch, return_tensors="pt").to(device)
        with torch.inference_mode():
            found = model.get_image_features(**pixels)
            found = getattr(found, "pooler_output", found)
            vectors.append(torch.nn.functional.normalize(found, dim=1).cpu().numpy())
        batch.clear()

    for content in files_of(folder):
        batch.append(Image.open(io.BytesIO(content)).convert("RGB"))
        if len(batch) == PEER_BATCH:
            embed()
    if batch:
        embed()
    return np.concatenate(vectors)


def files_of(folder: Path) -> Iterator[bytes]:
    """The image files of both data sets, in the order in which a run reads them."""
    for path in sorted((folder / "webdataset").glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if not member.name.endswith((".json", ".txt")):
                    file = tar.extractfile(member)
                    assert file is not None
                    yield file.read()
    for path in sorted((folder / "img2dataset").glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(64, columns=["jpg"]):
            yield from batch.column(0).to_pylist()


def product_rate(device: str, dtype: str) -> float:
    """Operations per second of the device's best matrix product, measured now."""
    a = torch.ones(8192, 8192, dtype=getattr(torch, dtype), device=device)
    best = float("inf")
    for _ in range(10):
        torch.cuda.synchronize(device)
        started = time.perf_counter()
        a @ a
        torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * 8192**3 / best


def lowest_cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    return float(((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def memory(folder: Path, images: int) -> int:
    """How much a process grows from its first fifth of `images` images to its last, with a tiny model."""
    source = folder / "part"
    write_data_set(source, format="webdataset", images=PART, shards=1)
    many = folder / "many"
    many.mkdir()
    for number in range(images // PART):
        for path in source.iterdir():
            os.link(path, many / path.name.replace("00000", f"{number:05d}"))
    make_model(folder / "tiny", "tiny")
    # A process of its own: in this one the peer's memory would hide what grows.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        first, last = pool.submit(_resident, folder, images).result()
    growth = last / first
    verdict = "" if growth <= TARGET_GROWTH else "  missed"
    print(f"memory: {first / 1e6:,.0f} MB up to image {images // 5:,}, {last / 1e6:,.0f} MB up to image "
          f"{images:,}: {growth:.2f}x, target {TARGET_GROWTH}x{verdict}")  # fmt: skip
    return int(bool(verdict))


def _resident(folder: Path, images: int) -> tuple[int, int]:
    """The most bytes in memory during the first fifth of the images, and during all."""
    ours = Ours(GpuMachine("cpu"))
    ours.add("bench_memory", folder / "many", "webdataset", folder / "tiny", folder / "out-memory")
    peaks, done = [0, 0], 0

    def seen(count: int) -> None:
        nonlocal done
        done += count
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        size = pages * os.sysconf("SC_PAGE_SIZE")
        peaks[1] = max(peaks[1], size)
        if done <= images // 5:
            peaks[0] = max(peaks[0], size)

    ours.run(seen)
    return peaks[0], peaks[1]


def two_workers(folder: Path, images: int, rounds: int) -> int:
    """Two Ray workers against one over the tars; nothing where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        print("two workers against one: not measured, ray is not installed (batch-assets[ray])")
        return 0
    from benchmarks.ray_workers import SHARDS, measure

    values = {
        "source": {"uri": str(folder / "webdataset"), "format": "webdataset"},
        "model": {"id": str(folder / "vit-b-32")},
        "shards": {"records": max(16, images // 2 // SHARDS)},
        "output": {"root": str(folder / "out-ray")},
    }
    return report([measure(parse_pipeline(values, "bench_ray", "benchmark"), rounds)])


if __name__ == "__main__":
    raise SystemExit(main())
