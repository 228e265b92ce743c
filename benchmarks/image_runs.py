"""What the benchmark of images times: ours from files to files, whole and in parts, and the plain loop."""

import io
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from PIL import Image

from batch_assets.embeddings.marker import standing_marker
from batch_assets.encoders.base import Encoder
from batch_assets.encoders.devices import available_cores
from batch_assets.executors.gpu import GpuMachine
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline
from batch_assets.sharding.plan import Shard
from batch_assets.sharding.plan_files import write_plan
from batch_assets.sharding.planner import plan_generation
from batch_assets.sharding.reading import read_shard
from batch_assets.storage import open_storage
from batch_assets.worker.attempt import Attempt, Processed, Step, follow
from batch_assets.worker.encoding import trivial_record
from batch_assets.worker.fetching import Fetching
from batch_assets.worker.images import ImageWindows
from batch_assets.worker.timings import Timings

PEER_BATCH = 32


@dataclass
class Ours:
    """The pipelines over both formats, on one machine, planned and with the model loaded."""

    machine: GpuMachine
    pipelines: list[PipelineSettings] = field(default_factory=list)
    shards: list[tuple[PipelineSettings, Shard]] = field(default_factory=list)
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
        self.shards += [(settings, shard) for shard in plan.shards]

    @cached_property
    def fingerprint(self) -> str:
        return self.machine.executor(self.pipelines[0]).fingerprint()

    @property
    def encoder(self) -> Encoder:
        return self.machine.encoder(self.pipelines[0])

    def run(self, seen: Callable[[int], None] = lambda _: None) -> None:
        """From files to files."""

        def heed(step: Step) -> None:
            if isinstance(step, Processed):
                seen(step.records)

        for settings, shard in self.shards:
            self.written += 1
            storage, executor = open_storage(settings.output.root), self.machine.executor(settings)
            # A commit up to the one before does not count: the shard is embedded again.
            attempt = Attempt(
                settings,
                shard,
                fence=self.written,
                number=1,
                fingerprint=self.fingerprint,
                executor=executor.kind,
                job="benchmark",
                outdated_fence=self.written - 1,
            )
            follow(executor.run(attempt, storage), heed)

    def vectors(self) -> npt.NDArray[np.float32]:
        """What was committed last, in source order."""
        found: list[npt.NDArray[np.float32]] = []
        for settings, shard in self.shards:
            storage = open_storage(settings.output.root)
            marker, _ = standing_marker(storage, shard.key)
            assert marker is not None, shard.key
            stored = pq.read_table(f"{storage.uri}/{marker.embeddings.path}", columns=["embedding"])
            values = stored["embedding"].combine_chunks().flatten().to_numpy()
            found.append(values.reshape(-1, marker.dimensions))
        return np.concatenate(found)

    def decode(self) -> list[Any]:
        """Read and decode everything, as a run does, and embed nothing; the first prepared images."""
        kept: list[Any] = []
        for settings, shard in self.shards:
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
    return int(encoder.prepare([trivial_record(encoder)]).counts[0])


def plain_loop(folder: Path, processor: Any, model: Any, device: str) -> npt.NDArray[np.float32]:
    """What a first script does: open, process, embed, 32 at a time."""
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
