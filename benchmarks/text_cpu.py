"""Text of 20 to 250 tokens on this machine's CPU: JSONL to a shard's Parquet, against `SentenceTransformer.encode`.

The peers encode a list of strings that is in memory already: in float32 with batches of 32, as
`encode` comes, and in bfloat16 where the processor computes that. Ours reads, checks, tokenizes,
embeds and writes.

    python -m benchmarks.text_cpu [--quick | --smallest]
"""

import ast
import json
import random
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer

from batch_assets.embeddings.shard_writer import ShardWriter
from batch_assets.encoders.devices import available_cores
from batch_assets.encoders.text import TextEncoder
from batch_assets.encoders.weights import locate_model
from batch_assets.settings.model import ModelSettings
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline
from batch_assets.sharding.planner import plan_generation
from batch_assets.sharding.reading import read_shard
from batch_assets.storage import open_storage
from batch_assets.worker.pipeline import embed
from benchmarks.arguments import Size, make_parser
from benchmarks.measure import Comparison, Targets, lowest_cosine, report, take_turns

LEAST_COSINE = 0.9995
FLOAT32, BFLOAT16 = "encode, float32, batch 32", "encode, bfloat16"
TARGETS = {FLOAT32: 2.3, BFLOAT16: 1.0}
FEWEST_TOKENS = 20


@dataclass(frozen=True)
class Counts:
    texts: int
    most_tokens: int
    rounds: int


COUNTS = {
    Size.FULL: Counts(texts=1024, most_tokens=250, rounds=5),
    Size.QUICK: Counts(texts=160, most_tokens=250, rounds=2),
    Size.SMALLEST: Counts(texts=8, most_tokens=40, rounds=1),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything and print it; the exit code."""
    size: Size = make_parser(__doc__).parse_args(arguments).size
    counts, targets = COUNTS[size], Targets(size.judged)
    count, rounds = counts.texts, counts.rounds
    folder = str(locate_model(ModelSettings()))
    exact = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": torch.float32})
    encoder = TextEncoder.load(ModelSettings(), device="cpu")
    texts = docstring_texts(count, counts.most_tokens, exact.tokenizer)
    tokens = int(encoder.prepare(texts).counts.sum())
    print(
        f"{count:,} texts of {tokens / count:.0f} tokens on average, rounds in turns: {rounds}; records per second"
    )
    print(f"{available_cores()} cores; ours computes in {encoder.dtype}")
    kept: dict[str, npt.NDArray[np.float32]] = {}
    with tempfile.TemporaryDirectory() as place:
        ours = file_to_parquet(Path(place), texts, encoder)

        def keep(name: str, run: Callable[[], npt.NDArray[np.float32]]) -> Callable[[], None]:
            def turn() -> None:
                torch.set_num_threads(available_cores())  # whatever the last turn has set
                kept[name] = run()

            return turn

        runs = {
            "ours": keep("ours", ours),
            FLOAT32: keep(FLOAT32, lambda: exact.encode(texts, batch_size=32)),
        }
        if encoder.dtype == "bfloat16":  # elsewhere it is emulated, and takes many times as long
            reduced = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": torch.bfloat16})
            runs[BFLOAT16] = keep(BFLOAT16, lambda: as_float32(reduced.encode(texts, convert_to_tensor=True)))
        for warm_up in runs.values():
            warm_up()
        seconds = take_turns(runs, rounds)
    rates = {name: [count / each for each in taken] for name, taken in seconds.items()}
    limit = product_rate(encoder) / operations(encoder, texts)
    report(
        [
            Comparison(name, "records/s", rates["ours"], rates[name], limit, target)
            for name, target in TARGETS.items()
            if name in rates
        ],
        targets,
    )
    cosine = lowest_cosine(kept["ours"], kept[FLOAT32])
    verdict = targets.require("lowest cosine", cosine >= LEAST_COSINE)
    print(f"lowest cosine to encode in float32: ours {cosine:.6f}; target {LEAST_COSINE}{verdict}")
    if BFLOAT16 in kept:
        print(f"that of encode in bfloat16: {lowest_cosine(kept[BFLOAT16], kept[FLOAT32]):.6f}")
    else:
        print(f"{BFLOAT16}: not measured, this processor does not compute bfloat16")
    return targets.exit_code()


def docstring_texts(count: int, most_tokens: int, tokenizer: Any) -> list[str]:
    """Stretches of the standard library's docstrings, their lengths spread evenly over the range."""
    words: list[str] = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                words += (ast.get_docstring(node) or "").split()
    chance, texts = random.Random(0), list[str]()
    while len(texts) < count:
        first, length = chance.randrange(len(words) - most_tokens), chance.randint(10, most_tokens)
        text = " ".join(words[first : first + length])
        if FEWEST_TOKENS <= len(tokenizer(text, verbose=False)["input_ids"]) <= most_tokens:
            texts.append(text)
    return texts


def file_to_parquet(
    place: Path, texts: list[str], encoder: TextEncoder
) -> Callable[[], npt.NDArray[np.float32]]:
    """Write `texts` as JSONL and plan them; what is returned makes a shard's files of them, and their vectors."""
    with (place / "in.jsonl").open("w", encoding="utf-8") as file:
        for number, text in enumerate(texts):
            file.write(json.dumps({"id": number, "text": text}) + "\n")
    values = {"source": {"uri": str(place / "in.jsonl")}, "output": {"root": str(place / "out")}}
    settings: PipelineSettings = parse_pipeline(values, "benchmark", "benchmark")
    storage = open_storage(settings.output.root)
    plan = plan_generation(settings, storage)
    fences = iter(range(1, 1_000))

    def run() -> npt.NDArray[np.float32]:
        shard = plan.shards[0]
        writer = ShardWriter(storage, shard.key, next(fences), plan.summary.columns, "float32")
        vectors: list[npt.NDArray[np.float32]] = []
        for outcomes in embed(read_shard(settings, shard, plan.summary, storage), encoder):
            writer.write(outcomes)
            vectors.append(outcomes.vectors)
        writer.close(encoder.dimensions)
        return np.concatenate(vectors)

    return run


def operations(encoder: TextEncoder, texts: list[str]) -> float:
    """Floating-point operations of an average text: two for each weight and token, and the attention's products."""
    config = json.loads((locate_model(ModelSettings()) / "config.json").read_text())
    hidden, layers, inner = config["hidden_size"], config["num_hidden_layers"], config["intermediate_size"]
    lengths = encoder.prepare(texts).counts.astype(np.float64)
    weights = layers * (4 * hidden * hidden + 2 * hidden * inner)
    return float((2 * weights * lengths + 4 * layers * hidden * lengths**2).mean())


def product_rate(encoder: TextEncoder) -> float:
    """Operations per second of this machine's best matrix product in the encoder's precision, measured now."""
    dtype = getattr(torch, encoder.dtype)
    a, b = torch.ones(2048, 1536, dtype=dtype), torch.ones(1536, 1536, dtype=dtype)
    packed = torch.ops.mkldnn._reorder_linear_weight(b, 2048)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(20):
            started = time.perf_counter()
            torch.ops.mkldnn._linear_pointwise(a, packed, None, "none", [], "")
            best = min(best, time.perf_counter() - started)
    return 2 * 2048 * 1536 * 1536 / best


def as_float32(vectors: torch.Tensor) -> npt.NDArray[np.float32]:
    return vectors.float().numpy()


if __name__ == "__main__":
    raise SystemExit(main())
