"""Photographs of 0.35 megapixels in tars and Parquet to CLIP ViT-B/32 vectors in Parquet, against a plain loop.

The peer reads the same files and gives them, 32 at a time, to transformers' processor and model as
they come, in float32; its vectors stay in memory. Ours reads, decodes, embeds and writes, by the
executor that a pipeline has. Of the files 19 in 20 are JPEG, the others PNG and WebP.

    python -m benchmarks.images [--quick | --smallest] [--device cpu|cuda] [--images N] [--rounds N]
"""

import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
import transformers
from transformers import CLIPImageProcessor, CLIPModel

from batch_assets.encoders.devices import available_cores
from batch_assets.executors.gpu import GpuMachine
from batch_assets.settings.pipeline import parse_pipeline
from benchmarks import ray_workers
from benchmarks.arguments import Size, make_parser
from benchmarks.image_runs import Ours, plain_loop
from benchmarks.measure import Comparison, Targets, in_new_process, lowest_cosine, report, take_turns
from examples.make_clip_model import make_model
from examples.make_image_dataset import write_data_set

TARGET_PEER, TARGET_LIMIT, TARGET_GROWTH, LEAST_COSINE = 2.5, 0.85, 1.15, 0.9995
FORMATS = ("webdataset", "img2dataset")
OPERATIONS = 8.82e9
"""Of one image in ViT-B/32: two for each of 4.41 billion multiplications."""


@dataclass(frozen=True)
class Counts:
    model: str
    images: int  # of both formats together
    shards: int  # of each format
    rounds: int
    part: int  # images that memory is measured with, over and over again
    parts: int
    with_ray: bool


COUNTS = {
    Size.FULL: Counts("vit-b-32", images=768, shards=2, rounds=3, part=500, parts=20, with_ray=True),
    Size.QUICK: Counts("vit-b-32", images=160, shards=1, rounds=1, part=500, parts=4, with_ray=False),
    Size.SMALLEST: Counts("tiny", images=16, shards=2, rounds=1, part=4, parts=5, with_ray=False),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything and print it; the exit code."""
    parser = make_parser(__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--images", type=int, help="how many images, of both formats together")
    parser.add_argument("--rounds", type=int, help="how often everything takes its turn")
    given = parser.parse_args(arguments)
    size: Size = given.size
    counts, targets = COUNTS[size], Targets(size.judged)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    images, rounds = given.images or counts.images, given.rounds or counts.rounds
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = make_model(folder / "model", counts.model)
        for format in FORMATS:
            write_data_set(folder / format, format=format, images=images // 2, shards=counts.shards)
        compare(folder, model, given.device, images, rounds, targets)
        memory(folder, counts.part, counts.parts, targets)
        if counts.with_ray:
            two_workers(folder, model, images, rounds, targets)
        else:
            print("two Ray workers against one: python -m benchmarks.ray_workers")
    return targets.exit_code()


def compare(folder: Path, model: Path, device: str, images: int, rounds: int, targets: Targets) -> None:
    """Ours against the plain loop, and against what decoding and the model allow together."""
    ours = Ours(GpuMachine(device))
    for format in FORMATS:
        ours.add(f"bench_{format}", folder / format, format, model, folder / f"out-{format}")
    processor = CLIPImageProcessor.from_pretrained(str(model))
    exact = cast(torch.nn.Module, CLIPModel.from_pretrained(str(model))).to(device).eval()
    encoder = ours.encoder
    print(f"{images:,} images, rounds in turns: {rounds}; {available_cores()} cores, {encoder.device}, "
          f"ours computes in {encoder.dtype}")  # fmt: skip
    kept: dict[str, npt.NDArray[np.float32]] = {}
    inputs = ours.decode()
    runs: dict[str, Callable[[], object]] = {
        "decode": ours.decode,
        "forward": lambda: ours.forward(inputs, images),
        "whole": ours.run,
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
    report(
        [
            Comparison("plain loop, float32", "images/s", rates["whole"], rates["peer"], limit, TARGET_PEER),
            Comparison("what the two allow", "images/s", rates["whole"], both, limit, TARGET_LIMIT),
        ],
        targets,
    )
    if device != "cpu":
        share = statistics.median(rates["forward"]) * OPERATIONS / product_rate(device, encoder.dtype)
        print(f"the model alone is at {share:.0%} of this device's best matrix product in {encoder.dtype}")
    cosine = lowest_cosine(ours.vectors(), kept["peer"])
    verdict = targets.require("lowest cosine", cosine >= LEAST_COSINE)
    print(f"lowest cosine to the plain loop: {cosine:.6f}; target {LEAST_COSINE}{verdict}")


def product_rate(device: str, dtype: str) -> float:
    """Operations per second of the device's best matrix product, measured now."""
    a = torch.ones(8192, 8192, dtype=getattr(torch, dtype), device=device)
    best = float("inf")
    for _ in range(10):
        torch.cuda.synchronize(device)
        started = time.perf_counter()
        torch.matmul(a, a)
        torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * 8192**3 / best


def memory(folder: Path, part: int, parts: int, targets: Targets) -> None:
    """How much a process grows from its first fifth of the images to its last, with a tiny model."""
    source, images = folder / "part", part * parts
    write_data_set(source, format="webdataset", images=part, shards=1)
    many = folder / "many"
    many.mkdir()
    for number in range(parts):
        for path in source.iterdir():
            os.link(path, many / path.name.replace("00000", f"{number:05d}"))
    make_model(folder / "tiny", "tiny")
    # A process of its own: in this one the peer's memory would hide what grows.
    first, last = in_new_process(resident, folder, images)
    growth = last / first
    verdict = targets.judge("memory", growth <= TARGET_GROWTH)
    print(f"memory: {first / 1e6:,.0f} MB up to image {images // 5:,}, {last / 1e6:,.0f} MB up to image "
          f"{images:,}: {growth:.2f}x, target {TARGET_GROWTH}x{verdict}")  # fmt: skip


def resident(folder: Path, images: int) -> tuple[int, int]:
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
        if done <= images // 5 or not peaks[0]:  # the first images, even where they come all at once
            peaks[0] = max(peaks[0], size)

    ours.run(seen)
    return peaks[0], peaks[1]


def two_workers(folder: Path, model: Path, images: int, rounds: int, targets: Targets) -> None:
    """Two Ray workers against one over the tars; nothing where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        print("two workers against one: not measured, ray is not installed (batch-assets[ray])")
        return
    values = {
        "source": {"uri": str(folder / "webdataset"), "format": "webdataset"},
        "model": {"id": str(model)},
        "shards": {"records": max(16, images // 2 // ray_workers.SHARDS)},
        "output": {"root": str(folder / "out-ray")},
    }
    measured = ray_workers.measure(parse_pipeline(values, "bench_ray", "benchmark"), rounds)
    report([measured], targets)


if __name__ == "__main__":
    raise SystemExit(main())
